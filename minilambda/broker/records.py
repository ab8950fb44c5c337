"""What the broker writes down so that a crash loses nothing that it has promised. Plain values.

A record says how something is from now on, so that each can be applied to what was written before without looking at
it. Jobs are named by their number, the order of acceptance, which no other job of the journal has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from minilambda.messages import JobSpec, Result

if TYPE_CHECKING:
    from minilambda.broker.jobs import JobKey


class Called(NamedTuple):
    """That a job is a call of a function."""

    function: str  # NAME@VERSION
    content: bytes  # hash of what was asked for, to know the call again when the alias names another version


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """The job outlives the broker from now on."""

    number: int  # order of acceptance
    key: JobKey
    spec: JobSpec
    stdin: bytes
    values: bytes
    accepted: float  # wall time, seconds
    called: Called | None = None  # the function that it is a call of


@dataclass(frozen=True, slots=True)
class JobMoved:
    """Where an unfinished job is. Written before a worker is told of an attempt, so that no two have the same one."""

    number: int
    attempt: int  # the latest; 0 before the first
    holder: str  # id of the worker that may have it
    waiting: bool  # in the queue; False: the holder has it
    losses: int  # workers lost with it
    cancelling: bool  # its end will be a cancel


@dataclass(frozen=True, slots=True)
class JobEnded:
    number: int
    result: Result
    stdout: bytes
    stderr: bytes
    value: bytes
    content: bytes  # hash of the input, to know the job again
    drops_input: bool  # the input is not needed any more
    losses: int  # workers lost with it
    ended: float  # wall time, seconds
    collected: bytes = b""


@dataclass(frozen=True, slots=True)
class JobForgotten:
    """The result was kept for its time; only the id is remembered, for a while."""

    number: int
    key: JobKey


@dataclass(frozen=True, slots=True)
class JobWithdrawn:
    """The job was never promised to anyone: as if it had not been."""

    number: int


@dataclass(frozen=True, slots=True)
class ModuleKept:
    """The principal may use the module, or the file, whose bytes are in the store."""

    digest: str
    size: int  # bytes
    principal: str


@dataclass(frozen=True, slots=True)
class ModuleDropped:
    digest: str


@dataclass(frozen=True, slots=True)
class WorkerKnown:
    """The worker may have jobs from now on."""

    worker: str  # its id


@dataclass(frozen=True, slots=True)
class WorkerGone:
    worker: str  # its id


@dataclass(frozen=True, slots=True)
class FunctionKept:
    """A function is like this from now on, but for its versions."""

    principal: str
    name: str
    last: int  # number of the newest version that there ever was
    shared: bool
    aliases: dict[str, tuple[int, ...]]  # to the versions that each has named, the present one last


@dataclass(frozen=True, slots=True)
class FunctionGone:
    """There is no such function, nor any version of it."""

    principal: str
    name: str


@dataclass(frozen=True, slots=True)
class VersionKept:
    principal: str
    name: str  # of the function
    number: int
    spec: JobSpec
    made: float  # wall time, seconds


@dataclass(frozen=True, slots=True)
class VersionGone:
    principal: str
    name: str  # of the function
    number: int


JobRecord = JobAccepted | JobMoved | JobEnded | JobForgotten | JobWithdrawn
FunctionRecord = FunctionKept | FunctionGone | VersionKept | VersionGone
Record = JobRecord | ModuleKept | ModuleDropped | WorkerKnown | WorkerGone | FunctionRecord


@dataclass(frozen=True, slots=True)
class SavedJob:
    """All that is known of a job."""

    accepted: JobAccepted
    moved: JobMoved
    ended: JobEnded | None  # None: unfinished


@dataclass(frozen=True, slots=True)
class Recovered:
    """What an earlier broker has left."""

    jobs: tuple[SavedJob, ...] = ()  # in order of acceptance
    modules: tuple[ModuleKept, ...] = ()
    workers: tuple[str, ...] = ()  # ids of those that may still have jobs
    forgotten: tuple[JobKey, ...] = ()  # oldest first
    functions: tuple[FunctionKept, ...] = ()
    versions: tuple[VersionKept, ...] = ()  # of each function oldest first
