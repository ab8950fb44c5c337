"""What the client gives back for a job that has ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import msgpack

from minilambda.errors import MinilambdaError, error_for
from minilambda.fields import is_guest_path
from minilambda.messages import ErrorInfo, JobResult, JobStatus, Reply, Usage


@dataclass(slots=True)  # not frozen, which would make it three times as dear to build
class RunResult:
    """How a job ended, with its output."""

    state: str  # completed, failed or cancelled
    job_id: str  # the client's own name for the job
    exit_code: int | None = None  # the guest's own; None when it was ended
    error: ErrorInfo | None = None  # None when completed
    usage: Usage = field(default_factory=Usage)
    tier: str = ""  # how cold it was: "compiled", "disk" or "warm"; "" when it never ran
    worker: str = ""  # name of the worker that ran it last; "" when none did
    attempt: int = 0  # the attempt that ended it, from 1; 0 when it never left the queue
    stdout: bytes = b""  # what the guest wrote, also where it failed
    stderr: bytes = b""
    value: Any = None  # what the function of ``invoke`` returned
    index: int = 0  # place of the input in a ``map``, from 0
    files: dict[str, bytes] = field(default_factory=dict)  # what ``collect`` brought: path in the guest to content
    missing: list[str] = field(default_factory=list)  # paths of ``collect`` that were not there at the end

    @property
    def ok(self) -> bool:
        """The guest ran to its end and its exit code is 0."""
        return self.state == "completed" and not self.exit_code

    @property
    def stdout_text(self) -> str:
        """``stdout`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.stdout.decode("utf-8", "replace")

    @property
    def stderr_text(self) -> str:
        """``stderr`` as text; bytes that are not UTF-8 become U+FFFD."""
        return self.stderr.decode("utf-8", "replace")

    def exception(self) -> MinilambdaError | None:
        """The exception for a job that did not complete, carrying this result; None for one that did."""
        if self.error is None:
            return None
        return error_for(self.error.code, self.error.message, result=self)


def run_result(reply: JobResult, index: int = 0) -> RunResult:
    """The result in a broker's reply."""
    result = reply.result
    found = RunResult(
        result.state,
        reply.job,
        result.exit_code,
        result.error,
        result.usage,
        result.tier,
        result.worker,
        result.attempt,
        reply.stdout,
        reply.stderr,
        _value(reply.value) if reply.value else None,
        index,
    )
    if reply.collected:
        found.files, found.missing = _collected(reply.collected)
    return found


def finished(reply: JobResult, check: bool, index: int = 0) -> RunResult:
    """The result in a broker's reply; with ``check``, that of a job which did not complete is raised."""
    result = run_result(reply, index)
    failure = result.exception() if check and result.error is not None else None
    if failure is not None:
        raise failure
    return result


def ended(reply: Reply, timeout: float | None) -> JobResult:
    """The answer to a ``get_result``, which may be that the job goes on. Raises ``TimeoutError`` then."""
    if isinstance(reply, JobStatus):
        raise TimeoutError(f"Job {reply.job} is still {reply.state} after {timeout or 0.0:g} s.")
    return cast(JobResult, reply)


def refused_result(job_id: str, error: MinilambdaError, index: int) -> RunResult:
    """The result of a job that the broker did not take."""
    return RunResult(state="failed", error=ErrorInfo(error.code, error.message), job_id=job_id, index=index)


def _value(body: bytes) -> Any:
    return _unpacked(body, "The returned value")


def _collected(body: bytes) -> tuple[dict[str, bytes], list[str]]:
    """The files of a body, and the paths of what was not there.

    The paths are checked, so that whoever writes them somewhere need not expect dots: a lying worker made them.
    """
    found = _unpacked(body, "What was collected")
    if type(found) is not dict or not all(map(is_guest_path, found)):
        raise MinilambdaError("What was collected is not a map of paths.")
    missing = [path for path, content in found.items() if content is None]
    for path in missing:
        del found[path]
    if not all(type(content) is bytes for content in found.values()):
        raise MinilambdaError("What was collected is not a map of paths to bytes.")
    return found, missing


def _unpacked(body: bytes, what: str) -> Any:
    try:
        return msgpack.unpackb(body, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
        raise MinilambdaError(f"{what} is not valid msgpack.") from None
