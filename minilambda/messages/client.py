"""Messages between a client and the broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from minilambda.fields import (
    Check,
    Code,
    Count,
    Digest,
    Duration,
    Flag,
    JobId,
    Label,
    Millis,
    Sentence,
    Size,
    Texts,
    integer,
)
from minilambda.messages.functions import REPLIES as FUNCTION_REPLIES
from minilambda.messages.functions import REQUESTS as FUNCTION_REQUESTS
from minilambda.messages.live import REPLIES as LIVE_REPLIES
from minilambda.messages.live import REQUESTS as LIVE_REQUESTS
from minilambda.messages.overview import REPLIES as OVERVIEW_REPLIES
from minilambda.messages.overview import REQUESTS as OVERVIEW_REQUESTS
from minilambda.messages.parts import Body, JobSpec, Message, Reply, Request, Result, Rows, State

# --- client to broker --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Hello(Request):
    TYPE: ClassVar[str] = "hello"


@dataclass(slots=True, unsafe_hash=True)
class Run(Request):
    """Run a job and wait for its result; with ``detach``, answer as soon as it is accepted."""

    TYPE: ClassVar[str] = "run"
    job: JobId
    spec: JobSpec
    detach: Flag = False
    again: Flag = False  # this job was sent before, so a worker may have had it
    traceparent: Label = ""  # W3C trace context of the caller, for the broker's spans; "": none
    wasm: Body = b""  # the module's bytes; empty when the broker has them
    stdin: Body = b""
    values: Body = b""  # msgpack list of typed parameters for ``invoke``; empty: parse ``args``


@dataclass(slots=True, unsafe_hash=True)
class GetStatus(Request):
    TYPE: ClassVar[str] = "status"
    job: JobId
    principal: Label = ""  # whose job, for an admin; "": the sender's own
    story: Flag = False  # tell what happened to the job so far, too


@dataclass(slots=True, unsafe_hash=True)
class GetResult(Request):
    """Answered with ``result`` at the job's end, with ``state`` after ``wait_ms``."""

    TYPE: ClassVar[str] = "get_result"
    job: JobId
    wait_ms: Millis = 0
    principal: Label = ""  # whose job, for an admin; "": the sender's own


@dataclass(slots=True, unsafe_hash=True)
class Cancel(Request):
    TYPE: ClassVar[str] = "cancel"
    job: JobId
    principal: Label = ""  # whose job, for an admin; "": the sender's own


@dataclass(slots=True, unsafe_hash=True)
class Put(Request):
    """One piece of a module's bytes, in order. Without data it asks how much the broker has."""

    TYPE: ClassVar[str] = "put"
    module: Digest
    size: Size  # of the whole module, bytes
    offset: Size = 0  # of ``data`` in the module, bytes
    data: Body = b""


@dataclass(slots=True, unsafe_hash=True)
class ListModules(Request):
    TYPE: ClassVar[str] = "list_modules"


@dataclass(slots=True, unsafe_hash=True)
class ListWorkers(Request):
    TYPE: ClassVar[str] = "list_workers"


@dataclass(slots=True, unsafe_hash=True)
class ListJobs(Request):
    """The principal's jobs, newest first."""

    TYPE: ClassVar[str] = "list_jobs"
    state: Label = ""  # of a job, or the code that it failed with; "": any
    limit: Annotated[int, integer(1, 1000)] = 100  # rows, at most
    principal: Label = ""  # whose jobs, for an admin; "*": everybody's; "": the sender's own


@dataclass(slots=True, unsafe_hash=True)
class RunAgain(Request):
    """Run an ended job once more, as another job. Answered as a detached ``run``."""

    TYPE: ClassVar[str] = "run_again"
    job: JobId  # the new one
    of: JobId  # the one that has ended


# --- broker to client --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Welcome(Reply):
    TYPE: ClassVar[str] = "welcome"
    broker: Label  # name and version of the software
    principal: Label  # who the broker takes the client for
    versions: Annotated[tuple[int, ...], Check("a list of integers", lambda v: type(v) in (list, tuple))]
    features: Texts  # optional parts of the protocol that this broker offers
    max_module_bytes: Size
    max_stdin_bytes: Size
    max_request_bytes: Size  # all bodies of one request together
    resend_ms: Millis  # a waiting client sends its request again after so long a silence
    max_wait_ms: Millis  # the longest ``wait_ms`` that is honoured


@dataclass(slots=True, unsafe_hash=True)
class Accepted(Reply):
    """The job of a detached ``run`` is in the broker's hands."""

    TYPE: ClassVar[str] = "accepted"
    job: JobId
    state: State


@dataclass(slots=True, unsafe_hash=True)
class JobResult(Reply):
    TYPE: ClassVar[str] = "result"
    job: JobId
    result: Result
    stdout: Body = b""
    stderr: Body = b""
    value: Body = b""  # msgpack of what ``invoke`` returned
    collected: Body = b""  # msgpack map of path to content, nil for one that is not there; "": nothing was asked for


@dataclass(slots=True, unsafe_hash=True)
class JobStatus(Reply):
    TYPE: ClassVar[str] = "state"
    job: JobId
    state: State
    attempt: Count = 0  # the latest attempt; 0 before the first
    worker: Label = ""  # name of the worker that has it
    cancelling: Flag = False  # a cancel is on its way to the worker
    age_ms: Duration = 0.0  # since the job was accepted, milliseconds
    story: Rows = ()  # maps of at_ms (since it was accepted) and what, oldest first


@dataclass(slots=True, unsafe_hash=True)
class Stored(Reply):
    """What the broker has of a module."""

    TYPE: ClassVar[str] = "stored"
    module: Digest
    received: Size  # bytes in order from the start
    complete: Flag  # all bytes are there and their hash is right


@dataclass(slots=True, unsafe_hash=True)
class ModuleList(Reply):
    TYPE: ClassVar[str] = "modules"
    modules: Rows  # maps of module, size, used_ms (since the last use), jobs (that need it now)


@dataclass(slots=True, unsafe_hash=True)
class JobList(Reply):
    TYPE: ClassVar[str] = "jobs"
    # Maps of job, state, code, attempt, losses, age_ms (since it was accepted), module, worker, principal, group, tier,
    # queued_ms, compile_ms, run_ms, total_ms (until its end, or now), function ("" unless called as one).
    jobs: Rows


@dataclass(slots=True, unsafe_hash=True)
class WorkerList(Reply):
    TYPE: ClassVar[str] = "workers"
    workers: Rows  # maps of name, id, state, slots, queue, done, seen_ms, host, pid, version, walls
    queued: Count  # jobs in the broker's queue


@dataclass(slots=True, unsafe_hash=True)
class Refused(Reply):
    """An error reply. ``request`` is 0 where the request could not be read so far."""

    TYPE: ClassVar[str] = "error"
    code: Code
    message: Sentence
    retry_after_ms: Millis | None = None
    job: JobId | None = None


CLIENT_MESSAGES: tuple[type[Message], ...] = (
    Hello,
    Run,
    GetStatus,
    GetResult,
    Cancel,
    Put,
    ListModules,
    ListWorkers,
    ListJobs,
    RunAgain,
    *LIVE_REQUESTS,
    *FUNCTION_REQUESTS,
    *OVERVIEW_REQUESTS,
)
"""What the broker takes from a client."""

REPLIES: tuple[type[Message], ...] = (
    Welcome,
    Accepted,
    JobResult,
    JobStatus,
    Stored,
    ModuleList,
    WorkerList,
    JobList,
    Refused,
    *LIVE_REPLIES,
    *FUNCTION_REPLIES,
    *OVERVIEW_REPLIES,
)
"""What a client takes from the broker."""
