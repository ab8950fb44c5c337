"""What the client tells of jobs, modules and workers: frozen values, made from the rows of the broker's lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilambda.messages import TERMINAL, JobStatus, WorkerList


@dataclass(frozen=True, slots=True)
class Status:
    """Where a job is."""

    job_id: str
    state: str  # queued, assigned, running, completed, failed or cancelled
    attempt: int  # the latest attempt; 0 before the first
    worker: str  # name of the worker that has it; "" when none has
    cancelling: bool  # a cancel is on its way to the worker
    age: float  # since the job was accepted, seconds

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


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """A module that the broker has."""

    module: str  # "sha256:" and 64 hex digits
    size: int  # bytes
    used_ms: int  # since its last use, milliseconds
    jobs: int  # unfinished jobs that need it


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


def status(reply: JobStatus) -> Status:
    """The state in a broker's reply."""
    return Status(reply.job, reply.state, reply.attempt, reply.worker, reply.cancelling, reply.age_ms / 1000)


def module_info(row: Mapping[str, Any]) -> ModuleInfo:
    """One row of a list of modules; what the broker leaves out is empty."""
    return ModuleInfo(str(row.get("module", "")), _number(row, "size"), _number(row, "used_ms"), _number(row, "jobs"))


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
