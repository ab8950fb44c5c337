"""What the client tells of jobs, modules and workers: frozen values, made from the rows of the broker's lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilambda.messages import TERMINAL, JobStatus, WorkerList
from minilambda.messages.overview import ClientList
from minilambda.messages.overview import Overview as OverviewReply


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened to a job."""

    at: float  # since the job was accepted, seconds
    what: str  # for people


@dataclass(frozen=True, slots=True)
class Status:
    """Where a job is."""

    job_id: str
    state: str  # queued, assigned, running, completed, failed or cancelled
    attempt: int  # the latest attempt; 0 before the first
    worker: str  # name of the worker that has it; "" when none has
    cancelling: bool  # a cancel is on its way to the worker
    age: float  # since the job was accepted, seconds
    story: tuple[Moment, ...] = ()  # what happened to it so far, oldest first, where that was asked for

    @property
    def done(self) -> bool:
        """The job has ended."""
        return self.state in TERMINAL


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job that the broker knows."""

    job: str  # its id
    state: str  # as in Status
    code: str  # why it failed; "" where it has not
    attempt: int  # the latest attempt; 0 before the first
    losses: int  # workers lost with it
    age_ms: int  # since it was accepted, milliseconds
    module: str  # "sha256:" and 64 hex digits
    worker: str  # name of the one that has it or had it last; "" when none did
    principal: str = ""  # whose it is
    group: str = ""  # as its client named it
    tier: str = ""  # how cold it was: "compiled", "disk" or "warm"; "" until it has ended, or when it never ran
    queued_ms: float = 0.0  # in queues so far, milliseconds
    compile_ms: float = 0.0  # milliseconds; 0 until it has ended
    run_ms: float = 0.0  # the guest's start to its end, milliseconds; 0 until it has ended
    total_ms: float = 0.0  # accepted to result, or to now, milliseconds
    function: str = ""  # the function that it is a call of


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A module that the broker has."""

    module: str  # "sha256:" and 64 hex digits
    size: int  # bytes
    used_ms: int  # since its last use, milliseconds
    jobs: int  # unfinished jobs that need it
    functions: int = 0  # versions of functions that need it


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker that the broker knows."""

    name: str
    id: str  # new at every start of the worker
    state: str  # as in "ready" or "draining"
    slots: int  # guests at a time
    queue: int  # jobs dispatched to it and unfinished
    done: int  # jobs that ended there since it registered
    seen_ms: int  # since its last sign of life, milliseconds
    host: str
    pid: int
    version: str
    walls: str = ""  # around guests: "all", or "all but" those that can't be raised there


@dataclass(frozen=True, slots=True)
class Cluster:
    """The workers, and what waits for them."""

    workers: list[WorkerInfo]
    queued: int  # jobs in the broker's queue


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A principal that has jobs, or had some since the broker began."""

    principal: str
    name: str  # of its key; "" where there are no keys
    queued: int  # jobs that wait at the broker
    running: int  # jobs at workers
    completed: int  # jobs so far
    failed: int
    cancelled: int
    seen_ms: int  # since its last request, milliseconds


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the last jobs of a tier took, from accepted to result; milliseconds."""

    tier: str  # "compiled", "disk" or "warm"
    count: int  # jobs that these numbers are of
    p50_ms: float
    p90_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Overview:
    """How a broker does."""

    broker: str  # name and version of the software
    up_ms: float  # since this broker began, milliseconds
    workers: int  # registered
    slots: int  # of all workers together
    queued: int  # jobs in the broker's queue
    running: int  # jobs at workers
    kept: int  # ended jobs whose results are kept
    accepted: int  # jobs so far
    outcomes: dict[str, int]  # ended jobs so far: "completed" or the code of the failure
    rejected: dict[str, int]  # what peers got wrong so far, by kind
    modules: int  # in the store, files included
    store_bytes: int  # what they take
    tiers: tuple[Latency, ...]  # of the last jobs


def status(reply: JobStatus) -> Status:
    """The state in a broker's reply."""
    told = tuple(Moment(_decimal(row, "at_ms") / 1000, str(row.get("what", ""))) for row in reply.story)
    return Status(reply.job, reply.state, reply.attempt, reply.worker, reply.cancelling, reply.age_ms / 1000, told)


def module_info(row: Mapping[str, Any]) -> ModuleInfo:
    """One row of a list of modules; what the broker leaves out is empty."""
    numbers = (_number(row, each) for each in ("size", "used_ms", "jobs", "functions"))
    return ModuleInfo(str(row.get("module", "")), *numbers)


def job_info(row: Mapping[str, Any]) -> JobInfo:
    """One row of a list of jobs; what the broker leaves out is empty."""

    def text(key: str) -> str:
        return str(row.get(key, ""))

    return JobInfo(
        job=text("job"),
        state=text("state"),
        code=text("code"),
        attempt=_number(row, "attempt"),
        losses=_number(row, "losses"),
        age_ms=_number(row, "age_ms"),
        module=text("module"),
        worker=text("worker"),
        principal=text("principal"),
        group=text("group"),
        tier=text("tier"),
        queued_ms=_decimal(row, "queued_ms"),
        compile_ms=_decimal(row, "compile_ms"),
        run_ms=_decimal(row, "run_ms"),
        total_ms=_decimal(row, "total_ms"),
        function=text("function"),
    )


def client_infos(reply: ClientList) -> list[ClientInfo]:
    """The clients in a broker's reply; what the broker leaves out is empty."""
    numbers = ("queued", "running", "completed", "failed", "cancelled", "seen_ms")
    return [
        ClientInfo(str(row.get("principal", "")), str(row.get("name", "")), *(_number(row, each) for each in numbers))
        for row in reply.clients
    ]


def overview(reply: OverviewReply) -> Overview:
    """How the broker does, as it says itself."""
    marks = ("p50_ms", "p90_ms", "p99_ms")
    tiers = tuple(
        Latency(str(row.get("tier", "")), _number(row, "count"), *(_decimal(row, each) for each in marks))
        for row in reply.tiers
    )
    r = reply
    return Overview(
        broker=r.broker,
        up_ms=r.up_ms,
        workers=r.workers,
        slots=r.slots,
        queued=r.queued,
        running=r.running,
        kept=r.kept,
        accepted=r.accepted,
        outcomes=dict(r.outcomes),
        rejected=dict(r.rejected),
        modules=r.modules,
        store_bytes=r.store_bytes,
        tiers=tiers,
    )


def cluster(reply: WorkerList) -> Cluster:
    """The list of workers in a broker's reply; what the broker leaves out is empty."""
    return Cluster([_worker_info(row) for row in reply.workers], reply.queued)


def _worker_info(row: Mapping[str, Any]) -> WorkerInfo:
    def text(key: str) -> str:
        return str(row.get(key, ""))

    return WorkerInfo(
        name=text("name"),
        id=text("id"),
        state=text("state"),
        slots=_number(row, "slots"),
        queue=_number(row, "queue"),
        done=_number(row, "done"),
        seen_ms=_number(row, "seen_ms"),
        host=text("host"),
        pid=_number(row, "pid"),
        version=text("version"),
        walls=text("walls"),
    )


def _number(row: Mapping[str, Any], key: str) -> int:
    value = row.get(key, 0)
    return int(value) if isinstance(value, (int, float)) else 0


def _decimal(row: Mapping[str, Any], key: str) -> float:
    value = row.get(key, 0.0)
    return float(value) if isinstance(value, (int, float)) else 0.0
