"""What the broker's state looks like to a client: replies built from jobs, workers and modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from minilambda.broker.functions import Function, FunctionKey
from minilambda.broker.jobs import InvariantError, Job
from minilambda.broker.meters import ClientMeter
from minilambda.broker.modules import Module
from minilambda.broker.registry import Worker
from minilambda.errors import Busy, MinilambdaError, StorageFailed, sentence_for
from minilambda.messages import (
    TERMINAL,
    ErrorInfo,
    JobResult,
    JobStatus,
    Message,
    Refused,
    Reply,
    Request,
    Result,
    Usage,
)

MAX_ROWS = 1000
"""Rows of a list, at most."""

MAX_LIST_BYTES = 192 * 1024
"""Text in the rows of a list, at most, so that the header fits a frame; bytes."""


def failed(code: str, message: str = "") -> Result:
    """A result that the broker makes itself: the job failed with ``code``, or was cancelled."""
    state = "cancelled" if code == "cancelled" else "failed"
    return Result(state, error=ErrorInfo(code, message or sentence_for(code)))


def final_result(job: Job, result: Result, now: float) -> Result:
    """The result with what only the broker knows: who ran it, which attempt it was, how long it all took."""
    usage = result.usage
    state, error = result.state, result.error
    if state == "completed" and error is None:
        state = "completed"  # the same text for all results that are kept
    elif state not in TERMINAL or error is None:
        state, error = "failed", ErrorInfo("internal", "The worker sent a result without a proper end.")
    elif state == "completed":
        state = "failed"
    return Result(
        state,
        result.exit_code,
        error,
        Usage(
            usage.queued_ms + job.waited * 1000,
            usage.fetch_ms,
            usage.compile_ms,
            usage.load_ms,
            usage.run_ms,
            (now - job.accepted_at) * 1000,
            usage.cpu_ms,
            usage.peak_memory_bytes,
            usage.compiler,
        ),
        result.tier,
        job.ran_on,
        job.attempt,
    )


def result_reply(job: Job, request: int) -> JobResult:
    """The answer about an ended job."""
    if job.result is None:
        raise InvariantError(job.tell("it has not ended"))
    return JobResult(request, job.key[1], job.result, job.stdout, job.stderr, job.value, job.collected)


def status_reply(job: Job, request: int, now: float, story: bool = False) -> JobStatus:
    """The answer about a job, whether it has ended or not; with ``story``, what happened to it."""
    age_ms = (now - job.accepted_at) * 1000
    told = story_rows(job) if story else ()
    cancelling = job.cancelling and not job.ended
    return JobStatus(request, job.key[1], job.shown, job.attempt, job.ran_on, cancelling, age_ms, told)


STORY = {
    "dispatch": "given to a worker",
    "adopt": "found at a worker",
    "hold": "waiting for the workers of before the restart",
    "start": "running",
    "requeue": "back in the queue",
    "complete": "completed",
    "fail": "failed",
    "cancel": "cancelled",
}
"""Event of a job's life to what people are told."""


def story_rows(job: Job) -> tuple[dict[str, Any], ...]:
    """What happened to a job, as far as it is remembered, oldest first. Of a job from the journal little is."""
    rows = [{"at_ms": 0.0, "what": "accepted"}]
    story = job.story
    last = len(story) - 1 - next((i for i, (_, what) in enumerate(reversed(story)) if what in _PLACED), 0)
    for index, (when, event) in enumerate(story):
        what = STORY.get(event, event)
        if event in _PLACED and index == last:
            what += f" ({job.ran_on})"
        elif event == "fail":
            what += f" ({job.code})"
        rows.append({"at_ms": round((when - job.accepted_at) * 1000, 3), "what": what})
    return tuple(rows)


_PLACED = frozenset({"dispatch", "adopt"})  # events that brought it to a worker


def refusal(message: Message, error: MinilambdaError, busy_retry: float) -> Refused:
    """The error that answers a request, or stands in for a reply. ``busy_retry``: try again after so long, seconds."""
    request = message.request if isinstance(message, (Request, Reply)) else 0
    retry = getattr(error, "retry_after", None)
    if retry is None and isinstance(error, (Busy, StorageFailed)):
        retry = busy_retry
    retry_ms = None if retry is None else int(retry * 1000)
    return Refused(request, error.code, error.message, retry_ms, getattr(message, "job", None))


def worker_rows(workers: Iterable[Worker], now: float) -> tuple[dict[str, Any], ...]:
    """The rows of the list of workers, as many as fit."""

    def row(worker: Worker) -> dict[str, Any]:
        return {
            "name": worker.name,
            "id": worker.id,
            "state": worker.state,
            "slots": worker.slots,
            "queue": worker.load,
            "done": worker.done,
            "seen_ms": int((now - worker.seen_at) * 1000),
            "host": worker.host,
            "pid": worker.pid,
            "version": worker.version,
            "walls": worker.walls,
        }

    return _fit(row(worker) for worker in workers)


def job_rows(jobs: Iterable[Job], now: float) -> tuple[dict[str, Any], ...]:
    """The rows of the list of jobs, as many as fit."""
    return _fit(job_row(job, now) for job in jobs)


def job_row(job: Job, now: float) -> dict[str, Any]:
    """A job in a list. The times of one that has not ended are those until now."""
    result = job.result
    if result is not None:
        usage = result.usage
        queued, total = usage.queued_ms, usage.total_ms
    else:
        usage = _NOTHING
        waiting = now - job.queued_since if job.shown == "queued" else 0.0
        queued, total = (job.waited + waiting) * 1000, (now - job.accepted_at) * 1000
    return {
        "job": job.key[1],
        "state": job.shown,
        "code": job.code,
        "attempt": job.attempt,
        "losses": job.losses,
        "age_ms": int((now - job.accepted_at) * 1000),
        "module": job.spec.module,
        "worker": job.ran_on or (result.worker if result is not None else ""),
        "principal": job.key[0],
        "group": job.spec.group,
        "function": job.function,
        "tier": result.tier if result is not None else "",
        "queued_ms": round(queued, 3),
        "compile_ms": round(usage.compile_ms, 3),
        "run_ms": round(usage.run_ms, 3),
        "total_ms": round(total, 3),
    }


_NOTHING = Usage()


def client_rows(clients: Iterable[tuple[str, str, ClientMeter, int]], now: float) -> tuple[dict[str, Any], ...]:
    """The rows of the list of clients, as many as fit: of principal, name, meter and jobs that wait."""
    return _fit(
        {
            "principal": principal,
            "name": name,
            "queued": queued,
            "running": meter.unfinished - queued,
            "completed": meter.completed,
            "failed": meter.failed,
            "cancelled": meter.cancelled,
            "seen_ms": int((now - meter.seen_at) * 1000),
        }
        for principal, name, meter, queued in clients
    )


def module_rows(modules: Iterable[Module], now: float) -> tuple[dict[str, Any], ...]:
    """The rows of the list of modules, as many as fit."""
    return _fit(
        {
            "module": item.digest,
            "size": item.size,
            "used_ms": int((now - item.used_at) * 1000),
            "jobs": item.jobs - item.pins,
            "functions": item.pins,
        }
        for item in modules
    )


def function_rows(
    functions: Iterable[tuple[FunctionKey, Function]], every: bool, wall: float
) -> tuple[dict[str, Any], ...]:
    """The rows of the list of functions, as many as fit: every version, newest first, or the one that is called."""

    def rows() -> Iterator[dict[str, Any]]:
        for (principal, name), function in functions:
            shown = function.shown
            for version in reversed(function.versions.values()) if every else [shown] if shown is not None else ():
                yield {
                    "function": name,
                    "version": version.number,
                    "module": version.spec.module,
                    "aliases": function.names_of(version.number),
                    "age_ms": max(0, int((wall - version.made) * 1000)),
                    "shared": function.shared,
                    "principal": principal,
                    "invoke": version.spec.invoke or "",
                    "versions": len(function.versions),
                }

    return _fit(rows())


def _fit(rows: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    chosen: list[dict[str, Any]] = []
    room = MAX_LIST_BYTES
    for row in rows:
        room -= sum(len(key) + _bytes(value) for key, value in row.items())
        if room < 0 or len(chosen) == MAX_ROWS:
            break
        chosen.append(row)
    return tuple(chosen)


def _bytes(value: Any) -> int:
    """What a value takes in a header, bytes, or somewhat more."""
    if isinstance(value, list):
        return 9 + sum(map(_bytes, value))
    return len(value.encode()) + 2 if isinstance(value, str) else 9
