"""Every failure that minilambda can report: one class, one wire code, one sentence.

The code travels in the protocol (``error.code``) and is stable; the sentence is the default text for
people, which a specific failure replaces by one that names the limit, the trap or the import.
``JobError`` subclasses are terminal answers for a job and carry its result; ``RequestError`` subclasses
are answers to a request that created no job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from minilambda.client.results import RunResult


class MinilambdaError(Exception):
    """Root of every error that minilambda raises on purpose."""

    code: ClassVar[str] = "internal"
    sentence: ClassVar[str] = "Something went wrong inside minilambda."

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.sentence)
        self.message: str = message or self.sentence


# --- the job ended, and not by itself -------------------------------------------------------------


class JobError(MinilambdaError):
    """The job reached the terminal state ``failed`` or ``cancelled``; ``result`` holds what is known of it."""

    code = "job_failed"
    sentence = "The job failed."

    def __init__(self, message: str = "", result: RunResult | None = None) -> None:
        super().__init__(message)
        self.result: RunResult | None = result


class DeadlineExceeded(JobError):
    code = "deadline_exceeded"
    sentence = "The guest was stopped at its deadline."


class OutOfMemory(JobError):
    code = "out_of_memory"
    sentence = "The guest needs more memory than the job allows."


class OutputLimit(JobError):
    code = "output_limit"
    sentence = "The guest wrote more output than the job allows."


class StackOverflow(JobError):
    code = "stack_overflow"
    sentence = "The guest's call stack overflowed."


class Trap(JobError):
    code = "trap"
    sentence = "The guest trapped."


class InvalidModule(JobError):
    code = "invalid_module"
    sentence = "The bytes are not a valid WebAssembly module or component."


class UnknownImport(JobError):
    code = "unknown_import"
    sentence = "The module imports something that minilambda does not offer."


class UnknownImportCalled(JobError):
    code = "unknown_import_called"
    sentence = "The guest called an import that minilambda does not offer."


class UnknownExport(JobError):
    code = "unknown_export"
    sentence = "The module does not export what was asked for."


class BadArguments(JobError):
    code = "bad_arguments"
    sentence = "The arguments do not fit the exported function."


class CompileLimit(JobError):
    code = "compile_limit"
    sentence = "Compiling the module took more time or memory than the worker allows."


class UnsupportedFeature(JobError):
    code = "unsupported"
    sentence = "The worker can't offer what the job asks for."


class RunnerCrashed(JobError):
    code = "runner_crashed"
    sentence = "The process that ran the guest died."


class WorkerLost(JobError):
    code = "worker_lost"
    sentence = "The worker was lost and the job may not run again."


class Poisoned(JobError):
    code = "poisoned"
    sentence = "The job lost three workers and will not run again by itself."


class Cancelled(JobError):
    code = "cancelled"
    sentence = "The job was cancelled."


class QueueTimeout(JobError):
    code = "queue_timeout"
    sentence = "The job waited in the queue for longer than it allows."


# --- the request was refused ----------------------------------------------------------------------


class RequestError(MinilambdaError):
    """The broker refused a request. ``retry_after`` is in seconds, None where trying again is no use."""

    code = "request_failed"
    sentence = "The request failed."

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after: float | None = retry_after


class ModuleTooLarge(RequestError):
    code = "module_too_large"
    sentence = "The module is larger than the broker accepts."


class InputTooLarge(RequestError):
    code = "input_too_large"
    sentence = "The input is larger than the broker accepts."


class Busy(RequestError):
    code = "busy"
    sentence = "The queue is full."


class Conflict(RequestError):
    code = "conflict"
    sentence = "Another job with this id and other content exists."


class BadRequest(RequestError):
    code = "bad_request"
    sentence = "The request is malformed."


class UnsupportedVersion(RequestError):
    code = "unsupported_version"
    sentence = "The broker does not speak this version of the protocol."


class NotFound(RequestError):
    code = "not_found"
    sentence = "The broker does not know this job or module."


class Expired(RequestError):
    code = "expired"
    sentence = "The job's result was kept for its time and is gone."


class StorageFailed(RequestError):
    code = "storage_failed"
    sentence = "The broker can't write to its disk, so it takes no jobs that must outlive it."


class NoWorkers(RequestError):
    code = "no_workers"
    sentence = "No worker is connected."


class Forbidden(RequestError):
    code = "forbidden"
    sentence = "The key does not allow this."


class QuotaExceeded(RequestError):
    code = "quota_exceeded"
    sentence = "The client has used up what it may have."


class KeyRefused(RequestError):
    """Raised by the client itself; it never travels."""

    code = "key_refused"
    sentence = "The broker and this side do not agree on keys."


class Unreachable(RequestError):
    """Raised by the client itself; it never travels."""

    code = "unreachable"
    sentence = "No broker answered."


def _leaves(root: type[MinilambdaError]) -> list[type[MinilambdaError]]:
    found = [root]
    for child in root.__subclasses__():
        found.extend(_leaves(child))
    return found


BY_CODE: dict[str, type[MinilambdaError]] = {cls.code: cls for cls in _leaves(MinilambdaError)}
"""Wire code to class, for every class above."""

JOB_CODES: frozenset[str] = frozenset(cls.code for cls in _leaves(JobError))
"""The codes that end a job."""


def sentence_for(code: str) -> str:
    """The default sentence of a wire code; a general one for a code that this version does not know."""
    cls = BY_CODE.get(code)
    return cls.sentence if cls else f"The job failed with the code {code!r}."


def error_for(
    code: str, message: str = "", *, result: RunResult | None = None, retry_after: float | None = None
) -> MinilambdaError:
    """The exception for a wire code. An unknown code becomes the root class of its kind, its code in the text."""
    cls = BY_CODE.get(code)
    if cls is not None and issubclass(cls, RequestError) and result is None:
        return cls(message, retry_after)
    if cls is not None and issubclass(cls, JobError):
        return cls(message, result)
    text = message or sentence_for(code)
    return JobError(f"{code}: {text}", result) if result is not None else RequestError(f"{code}: {text}", retry_after)
