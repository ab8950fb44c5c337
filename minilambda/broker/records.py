"""What the broker writes down so that a crash loses nothing that it has promised. Plain values.

A record says how something is from now on, so that each can be applied to what was written before without looking at
it. Jobs are named by their number, the order of acceptance, which no other job of the journal has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from minilambda.messages import JobSpec, Result

if TYPE_CHECKING:
    from minilambda.broker.jobs import JobKey


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """The job outlives the broker from now on."""

    number: int  # order of acceptance
    key: JobKey
    spec: JobSpec
    stdin: bytes
    values: bytes
    accepted: float  # wall time, seconds


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
    """The principal may use the module, whose bytes are in the store."""

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


JobRecord = JobAccepted | JobMoved | JobEnded | JobForgotten | JobWithdrawn
Record = JobRecord | ModuleKept | ModuleDropped | WorkerKnown | WorkerGone


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
