"""What the commands print: JSON objects, values and tables."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minilambda.client.results import RunResult
from minilambda.errors import BY_CODE, MinilambdaError
from minilambda.messages import ErrorInfo, Usage
from minilambda.messages.parts import STATES

if TYPE_CHECKING:
    from minilambda.client.functions import FunctionInfo
    from minilambda.client.listings import ClientInfo, Cluster, JobInfo, ModuleInfo, Status, WorkerInfo
    from minilambda.client.live import Chunk

_USAGE = ("queued_ms", "fetch_ms", "compile_ms", "load_ms", "run_ms", "total_ms", "cpu_ms", "peak_memory_bytes")


def result_object(result: RunResult) -> dict[str, Any]:
    """The object that ``--json`` prints for a job that ended."""
    return {
        "job_id": result.job_id,
        "state": result.state,
        "exit_code": result.exit_code,
        "error": error_object(result.error),
        **_output("stdout", result.stdout),
        **_output("stderr", result.stderr),
        "value": plain(result.value),
        "usage": usage_object(result.usage),
        "tier": result.tier or None,
        "worker": result.worker or None,
        "attempt": result.attempt,
    }


def chunk_object(job_id: str, chunk: Chunk) -> dict[str, Any]:
    """The object that ``--json`` prints for a piece of what a job writes."""
    return {
        "job_id": job_id,
        "attempt": chunk.attempt,
        "stream": chunk.stream,
        "offset": chunk.offset,
        **_output("data", chunk.data),
    }


def failure_object(error: Exception, code: str, job_id: str | None = None) -> dict[str, Any]:
    """The object that ``--json`` prints for a request that failed, so that no job came of it."""
    found: dict[str, Any] = {"code": code, "message": sentence(error)}
    retry = getattr(error, "retry_after", None)
    if retry is not None:
        found["retry_after_ms"] = round(retry * 1000)
    return {"job_id": job_id, "state": None, "exit_code": None, "error": found}


def error_object(error: ErrorInfo | None) -> dict[str, Any] | None:
    """Why a job failed; the trap and its backtrace where there are any."""
    if error is None:
        return None
    found = {"code": error.code, "message": error.message}
    if error.trap is not None:
        found["trap"] = error.trap
    if error.backtrace is not None:
        found["backtrace"] = error.backtrace
    return found


def usage_object(usage: Usage) -> dict[str, Any]:
    """Where the time went, milliseconds to the microsecond; and whose code the guest ran as, null when it never ran."""
    return {**{name: round(getattr(usage, name), 3) for name in _USAGE}, "compiler": usage.compiler or None}


def status_object(status: Status, error: ErrorInfo | None = None) -> dict[str, Any]:
    """Where a job is, and why it failed; what happened to it, where that was asked for."""
    moments = [{"at_ms": round(moment.at * 1000, 3), "what": moment.what} for moment in status.story]
    story: dict[str, Any] = {"story": moments} if moments else {}
    return {
        "job_id": status.job_id,
        "state": status.state,
        "error": error_object(error),
        "attempt": status.attempt,
        "worker": status.worker or None,
        "cancelling": status.cancelling,
        "age_ms": round(status.age * 1000, 3),
        **story,
    }


def plain(value: Any) -> Any:
    """A value as JSON can hold it: bytes are a list of numbers, what is not a finite number is its name."""
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (int, float, str)) or value is None else str(value)


def value_text(value: Any) -> str:
    """What a function returned, for people: text and numbers bare, all else as JSON, nothing for nothing."""
    if value is None:
        return ""
    found = plain(value)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def print_json(value: Any) -> None:
    """One line of JSON."""
    print(json.dumps(value, ensure_ascii=True))


def json_line(value: Any) -> bytes:
    """The same as bytes."""
    return json.dumps(value, ensure_ascii=True).encode() + b"\n"


def status_line(status: Status, error: ErrorInfo | None = None) -> str:
    """Where a job is, in a line, and why it failed."""
    why = f": {error.code}" if error is not None else ""
    where = f" on {printable(status.worker)}" if status.worker else ""
    more = ", being cancelled" if status.cancelling and not status.done else ""
    return f"{status.job_id}  {status.state}{why}{where}{more}  attempt {status.attempt}  {status.age:.1f} s old"


def story_lines(status: Status) -> list[str]:
    """What happened to a job, a line each."""
    return [f"  {moment.at:9.3f} s  {printable(moment.what)}" for moment in status.story]


def jobs_table(jobs: Sequence[JobInfo], *, state: str = "", whose: bool = False) -> None:
    """``state``: what was asked for; ``whose``: they may be of several principals."""
    head = ["job", "state", "code", "attempt", "accepted", "took", "tier", "worker"]
    rows = [
        [
            each.job,
            each.state,
            each.code,
            str(each.attempt),
            f"{each.age_ms / 1000:.0f} s ago",
            _took(each.total_ms),
            each.tier,
            each.worker,
        ]
        for each in jobs
    ]
    if whose:
        head, rows = [*head, "principal"], [[*row, each.principal] for row, each in zip(rows, jobs, strict=True)]
    known = not state or state in STATES or state in BY_CODE
    hint = "" if known else f" {printable(state)!r} is no state, and no code that this command knows."
    table(head, rows, f"There are no such jobs.{hint}")


def _took(milliseconds: float) -> str:
    return f"{milliseconds:.1f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def modules_table(modules: Sequence[ModuleInfo]) -> None:
    rows = [[each.module, size(each.size), f"{each.used_ms / 1000:.0f} s ago", str(each.jobs)] for each in modules]
    table(["module", "size", "used", "jobs"], rows, "The broker has no modules.")


def workers_table(cluster: Cluster) -> None:
    rows = [
        [
            each.name,
            each.state,
            str(each.slots),
            str(each.queue),
            str(each.done),
            f"{each.seen_ms} ms ago",
            each.host,
            each.walls,
        ]
        for each in cluster.workers
    ]
    table(["name", "state", "slots", "queue", "done", "seen", "host", "walls"], rows, "No worker is connected.")
    if cluster.queued:
        print("1 job waits at the broker." if cluster.queued == 1 else f"{cluster.queued} jobs wait at the broker.")


def table(head: list[str], rows: list[list[str]], empty: str) -> None:
    """A table for people on a terminal, aligned columns for anything else."""
    if not rows:
        print(empty)
    elif sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - slow to import
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        shown = Table(*head, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            shown.add_row(*(Text(printable(cell)) for cell in row))
        Console().print(shown)
    else:
        widths = [max(len(printable(row[column])) for row in [head, *rows]) for column in range(len(head))]
        for row in [head, *rows]:
            cells = (printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip())


def size(number: int) -> str:
    """Bytes, for people."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} B"


def rows(values: Sequence[JobInfo | ModuleInfo | WorkerInfo | ClientInfo | FunctionInfo]) -> list[dict[str, Any]]:
    """A list of the broker's as JSON can hold it."""
    return [dataclasses.asdict(value) for value in values]


def sentence(error: Exception) -> str:
    """What an exception says, for people."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def code_of(error: Exception) -> str:
    """The wire code of an exception that ended a command."""
    if isinstance(error, MinilambdaError):
        return error.code
    if isinstance(error, TimeoutError):
        return "not_finished"
    if isinstance(error, FileNotFoundError):
        return "no_such_file"
    return "unreadable_file" if isinstance(error, OSError) else "bad_request"


def _output(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {name: data.decode("utf-8", "replace"), f"{name}_base64": base64.b64encode(data).decode()}


def printable(cell: str) -> str:
    """A peer's text without what a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in cell)
