"""What the client's core and its shell pass to each other, and the state of one call."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple, Protocol

from minilambda.client.live import Following, Heard
from minilambda.errors import InputTooLarge, ModuleTooLarge, RequestError, Unreachable
from minilambda.messages import (
    Accepted,
    Cancel,
    ClientList,
    Credit,
    Deploy,
    Deployed,
    Follow,
    Followed,
    FunctionList,
    GetOverview,
    GetResult,
    GetStatus,
    Hello,
    Input,
    JobList,
    JobResult,
    JobSpec,
    JobStatus,
    ListClients,
    ListFunctions,
    ListJobs,
    ListModules,
    ListWorkers,
    ModuleList,
    Overview,
    Put,
    Refused,
    Reply,
    Request,
    Run,
    RunAgain,
    SetAlias,
    Stored,
    Taken,
    Undeploy,
    Unfollow,
    Welcome,
    WorkerList,
)
from minilambda.messages import Call as CallFunction

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
    Follow: (Followed,),
    Input: (Taken,),
    Deploy: (Deployed,),
    SetAlias: (Deployed,),
    Undeploy: (Deployed,),
    ListFunctions: (FunctionList,),
    CallFunction: (JobResult, Accepted),
    ListClients: (ClientList,),
    GetOverview: (Overview,),
}
"""The replies, other than an error, that a request may get."""


PIECE = 1024 * 1024
"""A module up to this size rides along with the first job that needs it; a larger one is sent in such pieces, bytes."""

MAX_SPEC_BYTES = 240 * 1024
"""What the arguments, the environment and the paths of files of a job may take together, bytes."""

MAX_IN_PLACE = 4096
"""What is uploaded and has no more bytes is sent without asking: it takes no more frames, and hardly more time."""


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
    message: Request | Credit | Unfollow
    piece: Piece | None


class Ended(NamedTuple):
    call: int  # as ``start`` returned it
    outcome: Reply | Exception


Action = Send | Ended | Heard


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
    lacks: int = 0  # times that the broker said that it lacks the module or a file, or took nothing of it
    parked: tuple[int, ...] = ()  # upload: calls that wait for its end
    needs: set[str] | None = None  # digests whose uploads the call waits for; None: it has waited for none
    own: bool = False  # the core's own call: nobody hears of its end
    following: Following | None = None  # of a ``follow``
    beside: int = 0  # the call that runs the job which this one is about; while it lasts, the job may yet be unknown

    def left_ms(self, now: float) -> float:
        """What is left of the wait that a ``get_result`` asks for, milliseconds."""
        asked = self.message.wait_ms if isinstance(self.message, GetResult) else 0
        return asked - (now - self.started) * 1000


def too_large(message: Request, source: Source | None, limits: Welcome) -> RequestError | None:
    """Why the broker would refuse a request for its size, found out without sending it."""
    if not isinstance(message, (Run, Put, Deploy, CallFunction)):
        return None
    if isinstance(message, (Deploy, CallFunction)) and "functions" not in limits.features:
        return RequestError("This broker is too old for functions.")
    size = source.size if source is not None else None
    if size is not None and size > limits.max_module_bytes:
        return ModuleTooLarge(f"The module has {size} bytes; the broker takes {limits.max_module_bytes}.")
    if isinstance(message, (Run, CallFunction)):
        if len(message.stdin) > limits.max_stdin_bytes:
            text = f"The standard input has {len(message.stdin)} bytes"
            return InputTooLarge(f"{text}; the broker takes {limits.max_stdin_bytes}.")
        if len(message.stdin) + len(message.values) > limits.max_request_bytes:
            return InputTooLarge(f"The input has more than the {limits.max_request_bytes} bytes of one request.")
    if isinstance(message, (Run, Deploy, CallFunction)):
        spec = JobSpec("", message.args or (), message.env) if isinstance(message, CallFunction) else message.spec
        texts = _spec_bytes(spec) if spec.args or spec.env or spec.files else 0
        if texts > MAX_SPEC_BYTES:
            what = "Arguments, environment and the paths of files"
            return InputTooLarge(f"{what} have {texts} bytes; the broker takes {MAX_SPEC_BYTES}.")
        if (spec.files or spec.scratch) and "files" not in limits.features:
            return RequestError("This broker is too old for files: it offers neither files nor a scratch.")
    return None


def of_function(
    call: Call, message: Deploy | CallFunction, known: Container[str], limits: Welcome | None
) -> tuple[Request, Piece | None, int]:
    """A request about a function as it is sent, the module that goes with it, and the bytes of its input.

    ``known``: digests that the broker has.
    """
    if isinstance(message, Deploy):
        lacks = call.source is not None and call.source.digest not in known
        return message, ride_along(call.source, 0, limits) if lacks else None, 0
    call.unanswered = call.unanswered or call.awaited
    again = replace(message, again=True) if call.unanswered else message
    return again, None, len(message.stdin) + len(message.values)


def ride_along(source: Source | None, inputs: int, limits: Welcome | None) -> Piece | None:
    """The whole module where it is small enough to go with its job: one round trip instead of three."""
    if source is None or not source.size or limits is None:
        return None
    if source.size > PIECE or source.size + inputs > limits.max_request_bytes:
        return None
    return Piece(source, 0, source.size)


def not_yet(call: Call, reply: Refused, running: bool) -> bool:
    """Whether a refusal only says that the job is not there yet: at the broker, or at a worker that takes its input.

    ``running``: the ``run`` of the job is under way beside the call.
    """
    if isinstance(call.message, Input) and reply.code == "busy":
        return True
    return running and reply.code == "not_found"


def out_of_time(call: Call, endpoint: str) -> Exception:
    """Why a call ends with its caller's patience."""
    patience = f"{call.deadline - call.started:g} s"
    if isinstance(call.message, Hello):
        return Unreachable(f"No broker answered at {endpoint} within {patience}; start one with `minilambda-broker`.")
    if isinstance(call.message, (Run, CallFunction, GetResult)):
        return TimeoutError("The job did not end in time.")
    return Unreachable(f"The broker at {endpoint} did not answer within {patience}.")


def _spec_bytes(spec: JobSpec) -> int:
    """What the texts of a job take in a header, bytes, each with its length before it."""
    texts = [*spec.args, *spec.env, *spec.env.values(), *spec.files, *spec.files.values(), *spec.collect]
    return sum(len(text.encode("utf-8", "surrogatepass")) + 5 for text in texts)
