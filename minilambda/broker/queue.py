"""The fair queue of jobs that wait for a worker.

Who has used the least slot time goes next: among principals, then among the groups of one; within a group the higher
priority goes first, then age. A dispatched job is charged what its group's jobs have used on average, and once that is
known what it really used, so a few long jobs count as much as many short ones. Who was away does not save up: it begins
level with the one that goes next. Each operation is O(log n), whatever else is queued.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field

from minilambda.broker.jobs import InvariantError, Job

LEAST = 0.001
"""What a job costs at least, seconds of slot time: dispatching is work too."""

WEIGHT = 0.2
"""Of the latest job in the average of its group."""

IDLE = 1024
"""Principals, and groups of one, whose use is remembered while nothing of theirs waits or runs, at most."""

Entry = tuple[int, int, int, Job]
"""Negative priority, order of acceptance, number of the entry, job: the smallest goes first."""


@dataclass(slots=True, eq=False)
class _Share:
    """A principal, or a group of one."""

    spent: float  # slot time used by ended jobs, level with the others' at the time of joining, seconds
    pending: float = 0.0  # what its running jobs are taken to use, seconds
    waiting: int = 0  # jobs queued
    running: int = 0  # jobs dispatched whose use is not known
    place: int = 0  # number of its latest entry among the turns
    average: float = 0.0  # use of a job of the group, seconds; 0.0 before the first has ended
    heap: list[Entry] = field(default_factory=list)  # of a group: live entries, and those of removed jobs
    groups: _Turns | None = None  # of a principal


class _Turns:
    """Shares by what they have used; the one that has used the least and has jobs goes next."""

    def __init__(self) -> None:
        self.shares: OrderedDict[str, _Share] = OrderedDict()  # those that became idle last at the end
        self._heap: list[tuple[float, int, str]] = []  # spent and pending, number of the entry, name; stale ones too
        self._level = 0.0  # spent by the one that went last, without what was pending: that may prove less
        self._entries = 0  # entries made so far
        self._idle = 0  # shares with nothing waiting or running

    def join(self, name: str) -> _Share:
        """One more job waits for this share."""
        share = self.shares.get(name)
        if share is None:
            share = self.shares[name] = _Share(self._level)
            self._idle += 1
        self.changed(name, waiting=1)
        if share.waiting == 1:
            share.spent = max(share.spent, self._level)
            self._enter(name, share)
        return share

    def next(self) -> str:
        """Whose turn it is. Raises ``InvariantError`` when nothing waits."""
        while self._heap:
            _, number, name = self._heap[0]
            share = self.shares.get(name)
            if share is not None and share.waiting and share.place == number:
                self._level = max(self._level, share.spent)
                return name
            heapq.heappop(self._heap)
        raise InvariantError("the queue is empty")

    def charge(self, name: str, pending: float, spent: float = 0.0) -> None:
        """The share is taken to use, and has used, so much more or less."""
        share = self.shares[name]
        share.pending += pending
        share.spent += spent
        if share.waiting:
            self._enter(name, share)

    def changed(self, name: str, waiting: int = 0, running: int = 0) -> None:
        """So many more jobs of the share wait or run."""
        share = self.shares[name]
        idle = not (share.waiting or share.running)
        share.waiting += waiting
        share.running += running
        if share.waiting or share.running:
            self._idle -= idle
        elif not idle:
            self._idle += 1
            self.shares.move_to_end(name)
            self._forget()

    def _enter(self, name: str, share: _Share) -> None:
        self._entries += 1
        share.place = self._entries
        heapq.heappush(self._heap, (share.spent + share.pending, share.place, name))
        if len(self._heap) > 2 * len(self.shares) + 32:
            self._heap = [entry for entry in self._heap if self._current(entry)]
            heapq.heapify(self._heap)

    def _current(self, entry: tuple[float, int, str]) -> bool:
        share = self.shares.get(entry[2])
        return share is not None and share.waiting > 0 and share.place == entry[1]

    def _forget(self) -> None:
        if self._idle <= IDLE:
            return
        idle = [name for name, share in self.shares.items() if not (share.waiting or share.running)]
        for name in idle[: IDLE // 2]:
            del self.shares[name]
        self._idle -= len(idle[: IDLE // 2])


class FairQueue:
    """Jobs that wait, each once. A job's ``entry`` is its place here, None outside."""

    def __init__(self) -> None:
        self._principals = _Turns()
        self._back: list[Entry] = []  # jobs that had their turn before, the next one last; removed ones too
        self._size = 0  # jobs queued
        self._entries = 0  # entries made so far
        self._average = LEAST  # use of a job of any group, seconds

    def __len__(self) -> int:
        return self._size

    @property
    def running(self) -> int:
        """Jobs that were popped and are not settled."""
        return sum(share.running for share in self._principals.shares.values())

    def push(self, job: Job, *, first: bool = False) -> None:
        """Queue a job. ``first``: it had its turn before, and goes before all that did not."""
        principal = self._principals.join(job.key[0])
        if principal.groups is None:
            principal.groups = _Turns()
        group = principal.groups.join(job.spec.group)
        self._entries += 1
        entry = job.entry = (-job.spec.priority, job.number, self._entries, job)
        self._size += 1
        if first:
            self._back.append(entry)
        else:
            heapq.heappush(group.heap, entry)

    def pop(self) -> Job:
        """Take the job whose turn it is, and charge it. Raises ``InvariantError`` when nothing waits."""
        job = self._returned() or self._in_turn()
        self._took(job, running=1)
        job.charged = self._groups(job.key[0]).shares[job.spec.group].average or self._average
        self._charge(job, job.charged)
        return job

    def _returned(self) -> Job | None:
        while self._back:
            entry = self._back.pop()
            if entry[3].entry is entry:
                return entry[3]
        return None

    def _in_turn(self) -> Job:
        groups = self._groups(self._principals.next())
        while True:
            group = groups.shares[groups.next()]
            while group.heap:
                entry = heapq.heappop(group.heap)
                if entry[3].entry is entry:
                    return entry[3]
            raise InvariantError("a group counts jobs and has none")

    def settle(self, job: Job, used: float | None) -> None:
        """A job that was popped has left its worker after using so much slot time, seconds; None: it never began."""
        if job.charged is None:
            return
        charged, job.charged = job.charged, None
        groups = self._groups(job.key[0])
        cost = 0.0 if used is None else max(used, LEAST)
        if used is not None:
            group = groups.shares[job.spec.group]
            group.average += WEIGHT * (cost - group.average) if group.average else cost
            self._average += WEIGHT * (cost - self._average)
        self._charge(job, -charged, cost)
        groups.changed(job.spec.group, running=-1)
        self._principals.changed(job.key[0], running=-1)

    def remove(self, job: Job) -> None:
        """Take a job out, wherever it is. Its entry stays behind until it comes up or such entries abound."""
        group = self._groups(job.key[0]).shares[job.spec.group]
        self._took(job)
        if len(group.heap) > 2 * group.waiting + 32:
            group.heap = [entry for entry in group.heap if entry[3].entry is entry]
            heapq.heapify(group.heap)
        if len(self._back) > 2 * self._size + 32:
            self._back = [entry for entry in self._back if entry[3].entry is entry]

    def _took(self, job: Job, running: int = 0) -> None:
        job.entry = None
        self._size -= 1
        self._groups(job.key[0]).changed(job.spec.group, -1, running)
        self._principals.changed(job.key[0], -1, running)

    def _charge(self, job: Job, pending: float, spent: float = 0.0) -> None:
        self._groups(job.key[0]).charge(job.spec.group, pending, spent)
        self._principals.charge(job.key[0], pending, spent)

    def _groups(self, principal: str) -> _Turns:
        groups = self._principals.shares[principal].groups
        if groups is None:
            raise InvariantError("a principal without groups")
        return groups

    def check(self) -> int:
        """Raise ``InvariantError`` when the counts disagree; returns the number of entries, stale ones too."""
        back = [entry[3] for entry in self._back if entry[3].entry is entry]
        live, entries = len(back), len(self._back)
        for name, principal in self._principals.shares.items():
            inside = 0
            for label, group in self._groups(name).shares.items():
                count = sum(entry[3].entry is entry for entry in group.heap)
                count += sum((job.key[0], job.spec.group) == (name, label) for job in back)
                if count != group.waiting or group.running < 0:
                    raise InvariantError(f"a group counts {group.waiting} jobs and has {count}")
                inside += count
                entries += len(group.heap)
            if inside != principal.waiting:
                raise InvariantError(f"a principal counts {principal.waiting} jobs and has {inside}")
            live += inside
        live -= len(back)
        if live != self._size:
            raise InvariantError(f"the queue counts {self._size} jobs and has {live}")
        return entries
