"""What must be on the disk before a word goes out. Pure: the shell does the writing and says when it is done.

The records of one step make one write. A message about a job waits for the write that has the job's latest record; all
others go at once. So an acknowledgement means that the job is safe, and no worker has an attempt that a crash forgets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from minilambda.broker.events import Persist, Send
from minilambda.broker.jobs import Job
from minilambda.broker.records import JobAccepted, JobEnded, JobForgotten, JobMoved, JobWithdrawn, Record

MAX_HELD = 100_000
"""Messages that wait for the disk, at most; requests that would make more of them are refused."""


@dataclass(slots=True, eq=False)
class Held:
    """A message that waits for a write."""

    send: Send
    job: Job | None  # that it is about


class Promises:
    """The records of this step, and the messages that wait for a write. A broker without a journal has neither."""

    def __init__(self, durable: bool) -> None:
        self.durable = durable  # there is a journal
        self.accepting = True  # the disk has room for more jobs
        self.stuck = False  # the disk takes nothing at all
        self.wall = 0.0  # wall time minus the monotonic time of the core, seconds
        self.written = 0  # every write up to this number is on the disk
        self.held = 0  # messages that wait
        self._number = 1  # of the next write
        self.records: list[Record] = []  # of this step
        self._held: dict[int, list[Held]] = {}  # by the write that they wait for
        self._fresh: dict[int, list[Job]] = {}  # jobs whose acceptance is not on the disk yet, by its write

    # --- records ---------------------------------------------------------------------------------

    def note(self, record: Record) -> int:
        """Write a record with this step; returns the number of the write, 0 where nothing is written."""
        if not self.durable:
            return 0
        self.records.append(record)
        return self._number

    def accepted(self, job: Job) -> None:
        """From now on the job outlives the broker."""
        job.journaled = True
        accepted_at = job.accepted_at + self.wall
        self.note(JobAccepted(job.number, job.key, job.spec, job.stdin, job.values, accepted_at, job.called))
        self._fresh.setdefault(self._number, []).append(job)
        self.moved(job)
        self.ended(job)

    def moved(self, job: Job) -> None:
        """An unfinished job is somewhere else, or was lost, or is to be cancelled."""
        if job.journaled:
            waiting = job.state == "queued"
            moved = JobMoved(job.number, job.attempt, job.holder, waiting, job.losses, job.cancelling)
            job.saved = self.note(moved)

    def ended(self, job: Job) -> None:
        """A job has its result."""
        if job.journaled and job.result is not None:
            drops, at = bool(job.content) and not (job.stdin or job.values), job.ended_at + self.wall
            outputs = (job.stdout, job.stderr, job.value)
            end = JobEnded(job.number, job.result, *outputs, job.content, drops, job.losses, at, job.collected)
            job.saved = self.note(end)

    def forgotten(self, job: Job) -> None:
        """A job's result is gone."""
        if job.journaled:
            self.note(JobForgotten(job.number, job.key))

    def take(self) -> Persist | None:
        """The write of this step, if it has one."""
        if not self.records:
            return None
        write = Persist(self._number, tuple(self.records))
        self.records.clear()
        self._number += 1
        return write

    # --- messages --------------------------------------------------------------------------------

    def wait(self, send: Send, number: int, job: Job | None) -> bool:
        """Keep a message until the write is on the disk; False where too many wait already."""
        if self.held >= MAX_HELD:
            return False
        self.held += 1
        self._held.setdefault(number, []).append(Held(send, job))
        return True

    def done(self, number: int) -> list[Send]:
        """The writes up to this number are on the disk; returns the messages that may go, in order."""
        self.written = max(self.written, number)
        ready = sorted(key for key in self._held if key <= number)
        for key in [key for key in self._fresh if key <= number]:
            del self._fresh[key]
        return [held.send for key in ready for held in self._pop(key)]

    def free(self) -> list[Send]:
        """The messages that are about no job: they don't wait for a disk that takes nothing."""
        freed = [(key, held) for key in sorted(self._held) for held in self._pop(key)]
        for key, held in freed:
            if held.job is not None:
                self.wait(held.send, key, held.job)
        return [held.send for _, held in freed if held.job is None]

    def withdraw(self, jobs: Iterable[Job]) -> dict[Job, list[Send]]:
        """The jobs are not promised after all; the messages about each that waited, which must not go."""
        found: dict[Job, list[Send]] = {job: [] for job in jobs}
        for job in found:
            self.note(JobWithdrawn(job.number))
        for waiting in self._held.values():  # once for all jobs: there may be a hundred thousand of both
            left = []
            for held in waiting:
                if held.job is not None and held.job in found:
                    found[held.job].append(held.send)
                else:
                    left.append(held)
            self.held -= len(waiting) - len(left)
            waiting[:] = left
        return found

    def fresh(self) -> list[Job]:
        """The jobs whose acceptance is not on the disk yet: nobody was told of them, no worker has them."""
        return [job for jobs in self._fresh.values() for job in jobs if job.journaled]

    def _pop(self, number: int) -> list[Held]:
        waiting = self._held.pop(number)
        self.held -= len(waiting)
        return waiting
