"""What the broker's state looks like to a client: replies built from jobs, workers and modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minilambda.broker.jobs import InvariantError, Job
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

MAX_LIST_BYTES = 160 * 1024
"""Text in the rows of a list, at most, so that the header fits a frame; bytes."""


def failed(code: str, message: str = "") -> Result:
    """A result that the broker makes itself: the job failed with ``code``, or was cancelled."""
    state = "cancelled" if code == "cancelled" else "failed"
    return Result(state, error=ErrorInfo(code, message or sentence_for(code)))


def final_result(job: Job, result: Result, now: float) -> Result:
    """The result with what only the broker knows: who ran it, which attempt it was, how long it all took."""
    usage = result.usage
    state, error = result.state, result.error
    if state not in TERMINAL or (state != "completed" and error is None):
        state, error = "failed", ErrorInfo("internal", "The worker sent a result without a proper end.")
    elif state == "completed" and error is not None:
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
    return JobResult(request, job.key[1], job.result, job.stdout, job.stderr, job.value)


def status_reply(job: Job, request: int, now: float) -> JobStatus:
    """The answer about a job, whether it has ended or not."""
    age_ms = (now - job.accepted_at) * 1000
    return JobStatus(request, job.key[1], job.shown, job.attempt, job.ran_on, job.cancelling and not job.ended, age_ms)


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
        state = "draining" if worker.draining else "lost" if not worker.reachable else "busy" if worker.load else "idle"
        return {
            "name": worker.name,
            "id": worker.id,
            "state": state,
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
    return _fit(
        {
            "job": job.key[1],
            "state": job.shown,
            "code": job.code,
            "attempt": job.attempt,
            "losses": job.losses,
            "age_ms": int((now - job.accepted_at) * 1000),
            "module": job.spec.module,
            "worker": job.ran_on or (job.result.worker if job.result is not None else ""),
            "principal": job.key[0],
        }
        for job in jobs
    )


def module_rows(modules: Iterable[Module], now: float) -> tuple[dict[str, Any], ...]:
    """The rows of the list of modules, as many as fit."""
    return _fit(
        {"module": item.digest, "size": item.size, "used_ms": int((now - item.used_at) * 1000), "jobs": item.jobs}
        for item in modules
    )


def _fit(rows: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    chosen: list[dict[str, Any]] = []
    room = MAX_LIST_BYTES
    for row in rows:
        room -= sum(len(key) + (len(value.encode()) if isinstance(value, str) else 9) for key, value in row.items())
        if room < 0 or len(chosen) == MAX_ROWS:
            break
        chosen.append(row)
    return tuple(chosen)
