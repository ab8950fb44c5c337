"""What messages are made of: the parts that clients, broker and workers share.

Messages and their parts are values: nobody changes one that has been made. They are not frozen because that makes
each ten times as slow to build, and a job takes a dozen of them through every process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

from minilambda.fields import (
    Attempt,
    Check,
    Code,
    Count,
    Digest,
    Duration,
    FileMap,
    Flag,
    JobId,
    Label,
    Millis,
    Paths,
    RequestId,
    Sentence,
    Size,
    TextMap,
    Texts,
    integer,
    one_of,
)

Body = Annotated[bytes, "body"]
"""A field that travels as frames behind the header, not in it."""

TERMINAL: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
"""The states in which a job ends."""

STATES = ("queued", "assigned", "running", "completed", "failed", "cancelled")
"""All states of a job."""

State = Annotated[str, one_of(*STATES)]
Compiler = Annotated[str, one_of("", "cranelift", "winch")]
Tier = Annotated[str, one_of("", "compiled", "disk", "warm")]
Rows = Annotated[tuple[dict[str, Any], ...], Check("a list of maps", lambda value: type(value) in (list, tuple))]


@dataclass(slots=True, unsafe_hash=True)
class Message:
    """Root of all messages."""

    TYPE: ClassVar[str] = ""


@dataclass(slots=True, unsafe_hash=True)
class Request(Message):
    """A client's message that gets exactly one reply, which repeats ``request``."""

    request: RequestId


@dataclass(slots=True, unsafe_hash=True)
class Reply(Message):
    """A message to a client."""

    request: RequestId


@dataclass(slots=True, unsafe_hash=True)
class FromWorker(Message):
    """Root of a registered worker's messages. ``session`` is the one that ``registered`` gave."""

    session: Count


@dataclass(slots=True, unsafe_hash=True)
class FromBroker(Message):
    """Root of the messages to a registered worker."""

    session: Count


@dataclass(slots=True, unsafe_hash=True)
class JobSpec:
    """What a job is: the module and how to run it. A limit of 0 means the default of the worker."""

    module: Digest  # of the wasm bytes
    args: Texts = ()  # guest arguments after argv[0]; with ``invoke``, the parameters as text
    env: TextMap = field(default_factory=dict)  # the guest's whole environment
    invoke: Label | None = None  # exported function to call; None runs the command
    unknown_imports: Annotated[str, one_of("error", "trap")] = "error"  # "trap": link, and trap when one is called
    timeout_ms: Millis = 0  # wall time from the guest's start, milliseconds
    queue_timeout_ms: Millis = 0  # longest wait for a worker, milliseconds; 0: no limit
    memory_bytes: Size = 0  # all memories and tables of the guest together, bytes
    output_bytes: Size = 0  # stdout and stderr together, bytes
    retries: Annotated[int, integer(0, 100)] = 2  # runs again at most so often after a lost worker
    priority: Annotated[int, integer(-100, 100)] = 0  # higher goes first, within one group
    group: Label = ""  # the broker is fair between the groups of one principal
    if_no_workers: Annotated[str, one_of("wait", "fail")] = "wait"  # "fail": refuse with ``no_workers``
    files: FileMap = field(default_factory=dict)  # absolute path in the guest to the digest of a file, read-only
    scratch: Size = 0  # a writable ``/tmp`` of so many bytes; 0: none
    collect: Paths = ()  # absolute paths of files and folders below ``/tmp`` that come back with the result
    stream: Flag = False  # standard input goes on after the body ``stdin``, by ``input``


@dataclass(slots=True, unsafe_hash=True)
class ErrorInfo:
    """Why a job failed."""

    code: Code  # wire code, see ``errors``
    message: Sentence  # one sentence for people
    trap: Label | None = None  # wasmtime's name of the trap
    backtrace: Sentence | None = None  # wasm frames, innermost first, one a line


@dataclass(slots=True, unsafe_hash=True)
class Usage:
    """Where the time of a job went, milliseconds; and what it took besides."""

    queued_ms: Duration = 0.0  # in the broker's queue and the worker's
    fetch_ms: Duration = 0.0  # the module's bytes, broker to worker
    compile_ms: Duration = 0.0
    load_ms: Duration = 0.0  # artifact to runner
    run_ms: Duration = 0.0  # guest's start to its end
    total_ms: Duration = 0.0  # accepted by the broker to result at the broker
    cpu_ms: Duration = 0.0  # processor time of the runner
    peak_memory_bytes: Size = 0  # guest memory at its largest, bytes
    compiler: Compiler = ""  # whose code the guest ran as; "" when it never ran


_UNUSED = Usage()


@dataclass(slots=True, unsafe_hash=True)
class Result:
    """How a job ended, without its output."""

    state: State  # one of TERMINAL
    exit_code: Annotated[int, integer(-(2**31), 2**32 - 1)] | None = None  # the guest's own; None when it was ended
    error: ErrorInfo | None = None  # None when completed
    usage: Usage = _UNUSED
    tier: Tier = ""  # how cold it was: "compiled", "disk" or "warm"; "" when it never ran
    worker: Label = ""  # name of the worker that ran it last; "" when none did
    attempt: Count = 0  # the attempt that ended it, from 1; 0 when it never left the queue


class JobRef(NamedTuple):
    """One attempt of one job. A tuple, since it is the key of many maps and travels as a list."""

    principal: Label
    job: JobId
    attempt: Attempt


Refs = Annotated[tuple[JobRef, ...], "refs"]
