"""What the client's core and its shell pass to each other, and the state of one call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple, Protocol

from minilambda.errors import InputTooLarge, ModuleTooLarge, RequestError, Unreachable
from minilambda.messages import (
    Accepted,
    Cancel,
    GetResult,
    GetStatus,
    Hello,
    JobList,
    JobResult,
    JobSpec,
    JobStatus,
    ListJobs,
    ListModules,
    ListWorkers,
    ModuleList,
    Put,
    Reply,
    Request,
    Run,
    RunAgain,
    Stored,
    Welcome,
    WorkerList,
)

ANSWERS: dict[type[Request], tuple[type[Reply], ...]] = {
    Hello: (Welcome,),
    Run: (JobResult, Accepted),
    GetResult: (JobResult, JobStatus),
    GetStatus: (JobStatus,),
    Cancel: (JobStatus,),
    Put: (Stored,),
    ListModules: (ModuleList,),
    ListWorkers: (WorkerList,),
    ListJobs: (JobList,),
    RunAgain: (Accepted,),
}
"""The replies, other than an error, that a request may get."""


PIECE = 1024 * 1024
"""A module up to this size rides along with the first job that needs it; a larger one is sent in such pieces, bytes."""

MAX_SPEC_BYTES = 240 * 1024
"""What the arguments and the environment of a job may take together, bytes."""


class Source(Protocol):
    """Where the bytes of a module come from; the core looks at no more than this."""

    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client goes on, seconds."""

    connect: float = 5.0  # until the broker's first word
    lost: float = 60.0  # without a connection, after there was one
    busy: float = 30.0  # trying again while the broker is busy
    spread: float = 0.0  # 0 to 1, other for each client: parts those that were told the same moment


class Piece(NamedTuple):
    """Bytes of a module that the shell puts into a message before it sends it."""

    source: Source
    offset: int  # bytes
    size: int  # bytes


class Send(NamedTuple):
    message: Request
    piece: Piece | None


class Ended(NamedTuple):
    call: int  # as ``start`` returned it
    outcome: Reply | Exception


Action = Send | Ended


@dataclass(slots=True)
class Call:
    """One call, from its start to its end."""

    message: Request  # complete but for the module's bytes; its request number is the call's
    source: Source | None  # the module's bytes, where the caller has them
    started: float  # seconds
    deadline: float  # end of the caller's patience, seconds; inf: without end
    wake: float = inf  # when to send again, seconds; inf: parked behind the greeting or an upload
    awaited: bool = False  # an answer is expected now; one to an earlier try is dropped
    unanswered: bool = False  # a try got no answer, so the broker may have taken the job
    lacks: int = 0  # times that the broker said that it lacks the module, or took nothing of it
    offset: int = 0  # upload: bytes that the broker has
    asked: bool = False  # upload: the broker has said how much it has
    parked: tuple[int, ...] = ()  # upload: calls that wait for its end
    own: bool = False  # the core's own call: nobody hears of its end

    def left_ms(self, now: float) -> float:
        """What is left of the wait that a ``get_result`` asks for, milliseconds."""
        asked = self.message.wait_ms if isinstance(self.message, GetResult) else 0
        return asked - (now - self.started) * 1000


def too_large(message: Request, source: Source | None, limits: Welcome) -> RequestError | None:
    """Why the broker would refuse a request for its size, found out without sending it."""
    if not isinstance(message, (Run, Put)):
        return None
    size = source.size if source is not None else None
    if size is not None and size > limits.max_module_bytes:
        return ModuleTooLarge(f"The module has {size} bytes; the broker takes {limits.max_module_bytes}.")
    if isinstance(message, Run):
        if len(message.stdin) > limits.max_stdin_bytes:
            text = f"The standard input has {len(message.stdin)} bytes"
            return InputTooLarge(f"{text}; the broker takes {limits.max_stdin_bytes}.")
        if len(message.stdin) + len(message.values) > limits.max_request_bytes:
            return InputTooLarge(f"The input has more than the {limits.max_request_bytes} bytes of one request.")
        texts = _spec_bytes(message.spec) if message.spec.args or message.spec.env else 0
        if texts > MAX_SPEC_BYTES:
            return InputTooLarge(f"Arguments and environment have {texts} bytes; the broker takes {MAX_SPEC_BYTES}.")
    return None


def ride_along(source: Source | None, inputs: int, limits: Welcome | None) -> Piece | None:
    """The whole module where it is small enough to go with its job: one round trip instead of three."""
    if source is None or not source.size or limits is None:
        return None
    if source.size > PIECE or source.size + inputs > limits.max_request_bytes:
        return None
    return Piece(source, 0, source.size)


def next_piece(call: Call, message: Put) -> tuple[Put, Piece | None]:
    """The next request of an upload, and the bytes that go with it; the first has none, and asks what is there."""
    if not call.asked or call.source is None:
        return message, None
    piece = Piece(call.source, call.offset, min(PIECE, message.size - call.offset))
    return replace(message, offset=call.offset), piece


def out_of_time(call: Call, endpoint: str) -> Exception:
    """Why a call ends with its caller's patience."""
    patience = f"{call.deadline - call.started:g} s"
    if isinstance(call.message, Hello):
        return Unreachable(f"No broker answered at {endpoint} within {patience}; start one with `minilambda-broker`.")
    if isinstance(call.message, (Run, GetResult)):
        return TimeoutError("The job did not end in time.")
    return Unreachable(f"The broker at {endpoint} did not answer within {patience}.")


def _spec_bytes(spec: JobSpec) -> int:
    """What the texts of a job take in a header, bytes, each with its length before it."""
    texts = [*spec.args, *spec.env, *spec.env.values()]
    return sum(len(text.encode("utf-8", "surrogatepass")) + 5 for text in texts)
