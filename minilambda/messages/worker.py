"""Messages between a worker and the broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from minilambda.fields import Count, Digests, Flag, Handle, JobId, Label, Millis, Size, SizeMap, integer
from minilambda.messages.parts import Body, FromBroker, FromWorker, JobRef, JobSpec, Message, Refs, Result
from minilambda.messages.relay import TO_BROKER, TO_WORKER

# --- worker to broker --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Register(Message):
    """The first word of a worker, and again whenever the broker asks."""

    TYPE: ClassVar[str] = "register"
    worker: JobId  # the worker's own id, new at every start of the agent
    name: Label
    slots: Annotated[int, integer(1, 4096)]
    version: Label = ""
    host: Label = ""
    pid: Count = 0
    walls: Label = ""  # around guests: "all", or "all but" those that can't be raised there
    draining: Flag = False
    ended: Count = 0  # the worker's last session, of which it takes nothing more; 0: none
    seen: Count = 0  # sequence number of the last dispatch that arrived in it
    held: Refs = ()  # jobs that it has and has not finished
    finished: Refs = ()  # jobs whose results it still keeps
    artifacts: Digests = ()  # modules whose artifacts it has open: their bytes need not ride along


@dataclass(slots=True, unsafe_hash=True)
class Report(FromWorker):
    """Sign of life and queue length, as of the dispatch numbered ``seen``."""

    TYPE: ClassVar[str] = "report"
    queue: Count  # jobs dispatched to the worker and unfinished
    seen: Count  # sequence number of the last dispatch that arrived
    draining: Flag = False
    running: Refs = ()  # jobs whose guest has started


@dataclass(slots=True, unsafe_hash=True)
class Done(FromWorker):
    """A job ended at the worker. Bodies that are too large to ride along are in ``withheld`` and are fetched."""

    TYPE: ClassVar[str] = "done"
    ref: JobRef
    queue: Count
    seen: Count
    result: Result
    withheld: SizeMap = field(default_factory=dict)  # body name to size, bytes
    stdout: Body = b""
    stderr: Body = b""
    value: Body = b""
    collected: Body = b""  # as in a client's ``result``


@dataclass(slots=True, unsafe_hash=True)
class Returned(FromWorker):
    """Answers a recall, or hands a job back when draining."""

    TYPE: ClassVar[str] = "returned"
    ref: JobRef
    queue: Count
    seen: Count
    begun: Flag = False  # True: too late, the worker keeps the job


@dataclass(slots=True, unsafe_hash=True)
class Goodbye(FromWorker):
    TYPE: ClassVar[str] = "goodbye"


# --- broker to worker --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Registered(Message):
    TYPE: ClassVar[str] = "registered"
    worker: JobId
    session: Count
    heartbeat_ms: Millis  # the worker reports at least so often
    liveness_ms: Millis  # after so long a silence the broker takes it for lost
    result_keep_ms: Millis  # the worker keeps an unacknowledged result so long


@dataclass(slots=True, unsafe_hash=True)
class RegisterAgain(Message):
    """The broker does not know the sender or its session."""

    TYPE: ClassVar[str] = "register_again"


@dataclass(slots=True, unsafe_hash=True)
class Beat(FromBroker):
    """Answers a report: the broker lives."""

    TYPE: ClassVar[str] = "beat"
    settled: Refs = ()  # as in a dispatch


@dataclass(slots=True, unsafe_hash=True)
class Dispatch(FromBroker):
    TYPE: ClassVar[str] = "dispatch"
    sequence: Count  # from 1 in each session
    ref: JobRef
    spec: JobSpec
    module_size: Size  # of the wasm bytes
    withheld: SizeMap = field(default_factory=dict)  # bodies to fetch: name to size, bytes
    settled: Refs = ()  # attempts whose results are safe: the same as an acknowledge of each, for no message
    wasm: Body = b""  # the module's bytes where they are small and the worker may lack them
    stdin: Body = b""
    values: Body = b""


@dataclass(slots=True, unsafe_hash=True)
class Recall(FromBroker):
    """Give the job back if its guest has not begun. Answered by ``returned``."""

    TYPE: ClassVar[str] = "recall"
    ref: JobRef


@dataclass(slots=True, unsafe_hash=True)
class Stop(FromBroker):
    """End the job as cancelled, whatever it is doing. Answered by ``done``."""

    TYPE: ClassVar[str] = "stop"
    ref: JobRef


@dataclass(slots=True, unsafe_hash=True)
class Acknowledge(FromBroker):
    """The result is safe, or no longer wanted: the worker may forget the job."""

    TYPE: ClassVar[str] = "acknowledge"
    ref: JobRef
    stale: Flag = False  # nobody was told this result: it must not be offered again


# --- both ways between broker and worker -------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Fetch(Message):
    """Asks the holder of a module or of a job's body for a piece. The asker limits what is on its way."""

    TYPE: ClassVar[str] = "fetch"
    session: Count
    handle: Handle  # a module's digest, or ``body_handle``
    offset: Size
    size: Size  # at most MAX_FRAME


@dataclass(slots=True, unsafe_hash=True)
class Chunk(Message):
    """One piece. ``total`` 0 with no data: the holder does not have it any more."""

    TYPE: ClassVar[str] = "chunk"
    session: Count
    handle: Handle
    offset: Size
    total: Size  # size of the whole, bytes
    data: Body = b""


def body_handle(ref: JobRef, body: str) -> str:
    """The handle by which a job's body is fetched."""
    return f"{ref.job}/{ref.attempt}/{body}/{ref.principal}"


WORKER_MESSAGES: tuple[type[Message], ...] = (
    Register,
    Report,
    Done,
    Returned,
    Goodbye,
    Fetch,
    Chunk,
    *TO_BROKER,
)
"""What the broker takes from a worker."""

BROKER_MESSAGES: tuple[type[Message], ...] = (
    Registered,
    RegisterAgain,
    Beat,
    Dispatch,
    Recall,
    Stop,
    Acknowledge,
    Fetch,
    Chunk,
    *TO_WORKER,
)
"""What a worker takes from the broker."""
