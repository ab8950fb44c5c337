"""From the end of a run to the message that tells it. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from minilambda.errors import OutOfMemory, OutputLimit, UnsupportedFeature, sentence_for
from minilambda.fields import MAX_FRAME
from minilambda.messages import ErrorInfo, JobRef, Usage, body_handle
from minilambda.worker.events import Collected, Outcome, RunnerDied
from minilambda.worker.jobs import InvariantError, Job
from minilambda.worker.sentences import past_deadline, past_output

INLINE = 4 * MAX_FRAME
"""Bodies up to this size together ride along with the result, bytes; larger ones are fetched by the broker."""


@dataclass(slots=True)
class Finished:
    """A result that the broker has not acknowledged."""

    ref: JobRef
    state: str  # "completed", "failed" or "cancelled"
    exit_code: int | None  # the guest's own
    error: ErrorInfo | None  # None when completed
    usage: Usage
    tier: str  # "compiled", "disk" or "warm"; "" when its guest never began
    stdout: bytes = b""
    stderr: bytes = b""
    value: bytes = b""
    collected: bytes = b""  # files that are brought back, as in the message
    size: int = 0  # of these bodies together, bytes
    at: float = 0.0  # when the job ended, or when the broker last fetched of its bodies, seconds
    bodies: dict[str, bytes] | None = None  # handle to body, for those that are fetched; None: they rode along


def ended(job: Job, code: str, message: str, now: float | None = None) -> Finished:
    """A job that ended before its guest began, or while nobody could say how it ran."""
    state = "cancelled" if code == "cancelled" else "failed"
    usage = Usage(
        queued_ms=max(0.0, job.started - job.received - job.fetched - job.compiled) * 1000 if job.started else 0.0,
        fetch_ms=job.fetched * 1000,
        compile_ms=job.compiled * 1000,
        run_ms=max(0.0, now - job.started) * 1000 if now is not None else 0.0,
        compiler=job.compiler if job.begun else "",
    )
    error = ErrorInfo(code, message or sentence_for(code))
    return Finished(job.ref, state, None, error, usage, job.tier if job.begun else "")


def from_outcome(job: Job, outcome: Outcome) -> Finished:
    """A job whose runner reported how the guest ended."""
    code, message, exit_code, value, stdout, stderr, trap, backtrace, load_ms, run_ms, cpu_ms, peak = outcome
    queued = job.started - job.received - job.fetched - job.compiled
    usage = Usage(
        queued_ms=queued * 1000 if queued > 0.0 else 0.0,
        fetch_ms=job.fetched * 1000,
        compile_ms=job.compiled * 1000,
        load_ms=load_ms,
        run_ms=run_ms,
        cpu_ms=cpu_ms,
        peak_memory_bytes=peak,
        compiler=job.compiler,
    )
    value = value or b""
    size = len(stdout) + len(stderr) + len(value)
    if code is None:
        return Finished(job.ref, "completed", exit_code, None, usage, job.tier, stdout, stderr, value, b"", size)
    error = ErrorInfo(code, message, trap, backtrace)
    return Finished(job.ref, "failed", exit_code, error, usage, job.tier, stdout, stderr, value, b"", size)


def bring(finished: Finished, collected: Collected | None) -> Finished:
    """The same with what was brought back of the guest's files. A job that failed anyway does not fail for these."""
    if collected is None:
        return finished
    if collected.problem and finished.state == "completed":
        finished.state, finished.error = "failed", ErrorInfo(OutputLimit.code, collected.problem)
    finished.collected = collected.files
    finished.size += len(collected.files)
    return finished


def from_death(job: Job, event: RunnerDied, now: float) -> Finished:
    """A job whose runner is gone: killed for a reason of ours, or by its guest."""
    limits = job.limits
    crashed = ("runner_crashed", f"The process that ran the guest died: {event.how.rstrip('.')}.")
    if event.unsupported:
        text = f"The worker can't give the job files: it can't mount here ({event.how.rstrip('.')})."
        return ended(job, UnsupportedFeature.code, text)
    starved = (OutOfMemory.code, "The process that ran the guest needed more memory than a runner may have.")
    code, message = {
        "deadline": ("deadline_exceeded", past_deadline(limits.timeout)),
        "cancelled": ("cancelled", ""),
        "output": ("output_limit", past_output(limits.output_bytes)),
    }.get(job.ending, starved if event.starved else crashed)
    finished = ended(job, code, message, now)
    finished.stdout = event.stdout[: limits.output_bytes]
    finished.stderr = event.stderr[: max(0, limits.output_bytes - len(finished.stdout))]
    finished.size = len(finished.stdout) + len(finished.stderr)
    return bring(finished, event.collected)


def withhold(finished: Finished) -> dict[str, int]:
    """The bodies of a result, which are to be fetched: name to size."""
    bodies = {"stdout": finished.stdout, "stderr": finished.stderr, "value": finished.value}
    bodies["collected"] = finished.collected
    finished.bodies = {body_handle(finished.ref, name): body for name, body in bodies.items() if body}
    return {name: len(body) for name, body in bodies.items() if body}


SAFE_FOR = 20.0
"""How long a result is kept that the broker has acknowledged, seconds: its word to the client may be lost with it."""

MAX_SAFE = 64
"""Acknowledged results that are kept, at most."""

MAX_SAFE_BYTES = 16 * 1024
"""An acknowledged result with more output is not kept, bytes."""


class Kept:
    """The results of ended jobs: named at a registration, sent anew, served in pieces.

    Those that the broker has not acknowledged count; of the others the last small ones are remembered for a while, in
    case a broker dies between its word to the worker and its word to the client.
    """

    def __init__(self) -> None:
        self._by_ref: OrderedDict[JobRef, Finished] = OrderedDict()  # not acknowledged, the one that goes next first
        self._safe: OrderedDict[JobRef, Finished] = OrderedDict()  # acknowledged, the oldest first

    def __len__(self) -> int:
        return len(self._by_ref)

    def __contains__(self, ref: JobRef) -> bool:
        return ref in self._by_ref

    def __iter__(self) -> Iterator[JobRef]:
        return iter(self._by_ref)

    def get(self, ref: JobRef) -> Finished | None:
        """The result of a job, an acknowledged one too."""
        return self._by_ref.get(ref) or self._safe.get(ref)

    def listed(self) -> list[JobRef]:
        """What a broker that does not know this worker should hear of."""
        return [*self._by_ref, *self._safe]

    def add(self, finished: Finished, now: float) -> None:
        """Raises ``InvariantError`` for a job that has ended already."""
        ref = finished.ref
        if ref in self._by_ref or ref in self._safe:
            raise InvariantError(f"{ref} ended twice.")
        finished.at = now
        self._by_ref[ref] = finished

    def acknowledge(self, ref: JobRef, now: float, stale: bool = False) -> None:
        """The result is safe with the broker, or ``stale``: nobody wants it."""
        if stale:
            self._safe.pop(ref, None)
        finished = self._by_ref.pop(ref, None)
        if finished is None or stale or finished.state == "cancelled":
            return
        if finished.size <= MAX_SAFE_BYTES:
            finished.at = now
            self._safe[ref] = finished
            if len(self._safe) > MAX_SAFE:
                self._safe.popitem(last=False)

    def body(self, handle: str, now: float) -> bytes:
        """The body of a handle, its result kept anew from now; empty when there is none."""
        for finished in self._by_ref.values():
            if finished.bodies and handle in finished.bodies:
                finished.at = now
                self._by_ref.move_to_end(finished.ref)
                return finished.bodies[handle]
        return b""

    def expire(self, now: float, keep: float) -> None:
        """Drops those that ended, or were last fetched of, ``keep`` seconds ago."""
        while self._by_ref and now >= self.oldest + keep:
            self._by_ref.popitem(last=False)
        while self._safe and now >= next(iter(self._safe.values())).at + SAFE_FOR:
            self._safe.popitem(last=False)

    @property
    def oldest(self) -> float:
        """When the one that goes next was last touched, seconds. There must be one."""
        return next(iter(self._by_ref.values())).at
