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
class Share:
    """A principal, or a group of one. It lives for as long as jobs of it wait or run, and a while longer."""

    name: str
    turns: Turns  # those that it takes turns with
    above: Share | None  # the principal of a group
    spent: float  # slot time used by ended jobs, level with the others' at the time of joining, seconds
    pending: float = 0.0  # what its running jobs are taken to use, seconds
    waiting: int = 0  # jobs queued
    running: int = 0  # jobs dispatched whose use is not known
    place: int = 0  # number of its latest entry among the turns
    average: float = 0.0  # use of a job of the group, seconds; 0.0 before the first has ended
    heap: list[Entry] = field(default_factory=list)  # of a group: live entries, and those of removed jobs
    groups: Turns | None = None  # of a principal


class Turns:
    """Shares by what they have used; the one that has used the least and has jobs goes next."""

    def __init__(self, above: Share | None = None, most: int = 0) -> None:
        self.most = most  # jobs of one share that may run; one with so many takes no turns. 0: any number
        self.shares: OrderedDict[str, Share] = OrderedDict()  # those that became idle last at the end
        self.active: dict[str, Share] = {}  # those with jobs that wait; only where there are several is there a heap
        self.level = 0.0  # spent by the one that went last, without what was pending: that may prove less
        self.idle = 0  # shares with nothing waiting or running
        self._above = above  # the principal, where these are groups
        self._heap: list[tuple[float, int, str]] = []  # spent and pending, number of the entry, name; stale ones too
        self._entries = 0  # entries made so far

    def share(self, name: str) -> Share:
        """The share of a name, a new one if there is none."""
        share = self.shares.get(name)
        if share is None:
            share = self.shares[name] = Share(name, self, self._above, self.level)
            self.idle += 1
        return share

    def join(self, share: Share) -> None:
        """One more job waits for this share."""
        if not share.waiting:
            self.idle -= not share.running
            share.spent = max(share.spent, self.level)
            share.waiting = 1
            if not self.most or share.running < self.most:
                self._begin(share)
        else:
            share.waiting += 1

    def _begin(self, share: Share) -> None:
        self.active[share.name] = share
        for each in self.active.values() if len(self.active) == 2 else (share,):
            self.enter(each)

    def _hold(self, share: Share) -> bool:
        """Let a share that runs as many jobs as it may take no turns until one has ended; whether that was all."""
        if share.running >= self.most:
            self.active.pop(share.name, None)
            return True
        if share.name not in self.active:
            self._begin(share)
            return True
        return False

    def next(self) -> Share:
        """Whose turn it is. Raises ``InvariantError`` when nothing waits."""
        active = self.active
        while len(active) > 1:
            _, number, name = self._heap[0]
            share = active.get(name)
            if share is not None and share.place == number:
                break
            heapq.heappop(self._heap)
        else:
            share = next(iter(active.values()), None)
            if share is None:
                raise InvariantError("the queue is empty")
        self.level = max(self.level, share.spent)
        return share

    def leave(self, share: Share) -> None:
        """No job waits for the share any more."""
        self.active.pop(share.name, None)  # it may be held
        if not share.running:
            self.rest(share)

    def enter(self, share: Share) -> None:
        """What a share with jobs that wait has used is another now."""
        if (self.most and self._hold(share)) or len(self.active) <= 1:
            return
        self._entries += 1
        share.place = self._entries
        heapq.heappush(self._heap, (share.spent + share.pending, share.place, share.name))
        if len(self._heap) > 2 * len(self.shares) + 32:
            self._heap = [entry for entry in self._heap if self._current(entry)]
            heapq.heapify(self._heap)

    def _current(self, entry: tuple[float, int, str]) -> bool:
        share = self.active.get(entry[2])
        return share is not None and share.place == entry[1]

    def rest(self, share: Share) -> None:
        """Nothing of the share waits or runs any more."""
        self.idle += 1
        if len(self.shares) > 1:
            self.shares.move_to_end(share.name)
        if self.idle > IDLE:
            idle = [name for name, share in self.shares.items() if not (share.waiting or share.running)]
            for name in idle[: IDLE // 2]:
                del self.shares[name]
            self.idle -= len(idle[: IDLE // 2])


class FairQueue:
    """Jobs that wait, each once. A job's ``entry`` is its place here, None outside; ``share`` is its group.

    The steps on a share are written out for the group and its principal: a job takes each of them once.
    """

    def __init__(self, most_running: int = 0) -> None:
        self.size = 0  # jobs queued
        self._principals = Turns(most=most_running)  # of one principal; 0: any number
        self._back: list[Entry] = []  # jobs that had their turn before, the next one last; removed ones too
        self._entries = 0  # entries made so far
        self._average = LEAST  # use of a job of any group, seconds

    def __len__(self) -> int:
        return self.size

    @property
    def running(self) -> int:
        """Jobs that were popped and are not settled."""
        return sum(share.running for share in self._principals.shares.values())

    def _group(self, job: Job) -> Share:
        """The share of a job that has none."""
        principal = self._principals.shares.get(job.key[0]) or self._principals.share(job.key[0])
        groups = principal.groups
        if groups is None:
            groups = principal.groups = Turns(principal)
        group = job.share = groups.shares.get(job.spec.group) or groups.share(job.spec.group)
        return group

    def push(self, job: Job, *, first: bool = False) -> None:
        """Queue a job. ``first``: it had its turn before, and goes before all that did not."""
        group = self._group(job)
        for share in _both(group):
            share.turns.join(share)
        self._entries += 1
        entry = job.entry = (-job.spec.priority, job.number, self._entries, job)
        self.size += 1
        if first:
            self._back.append(entry)
        else:
            heapq.heappush(group.heap, entry)

    def waiting_of(self, principal: str) -> int:
        """Jobs of a principal that wait."""
        share = self._principals.shares.get(principal)
        return 0 if share is None else share.waiting

    def full(self, principal: str) -> bool:
        """Whether as many jobs of a principal run as may."""
        most, share = self._principals.most, self._principals.shares.get(principal)
        return 0 < most <= (0 if share is None else share.running)

    def pop(self) -> Job | None:
        """Take the job whose turn it is, and charge it; None where as many run as their principals may have.

        Raises ``InvariantError`` when nothing waits.
        """
        job = self._returned()
        if job is None and self._principals.most and not self._principals.active and self.size:
            return None
        job = job or self._in_turn()
        job.entry = None
        self.size -= 1
        group = _share_of(job)
        charged = job.charged = group.average or self._average
        for share in _both(group):
            share.waiting -= 1
            share.running += 1
            share.pending += charged
            if share.waiting:
                share.turns.enter(share)
            else:
                share.turns.leave(share)
        return job

    def pass_through(self, job: Job) -> None:
        """Charge a job that has a worker at once: the same as ``push`` and ``pop``, where nothing else waits."""
        group = self._group(job)
        charged = job.charged = group.average or self._average
        share: Share | None = group
        while share is not None:
            turns = share.turns
            turns.idle -= not share.running
            if share.spent < turns.level:
                share.spent = turns.level
            else:
                turns.level = share.spent
            share.running += 1
            share.pending += charged
            share = share.above

    def _returned(self) -> Job | None:
        while self._back:
            entry = self._back.pop()
            if entry[3].entry is entry:
                return entry[3]
        return None

    def _in_turn(self) -> Job:
        groups = self._principals.next().groups
        heap = groups.next().heap if groups is not None else []
        while heap:
            entry = heapq.heappop(heap)
            if entry[3].entry is entry:
                return entry[3]
        raise InvariantError("a group counts jobs and has none")

    def settle(self, job: Job, used: float | None) -> None:
        """A job that was popped has left its worker after using so much slot time, seconds; None: it never began."""
        charged = job.charged
        if charged is None:
            return
        job.charged = None
        group = _share_of(job)
        cost = 0.0
        if used is not None:
            cost = used if used > LEAST else LEAST
            group.average += WEIGHT * (cost - group.average) if group.average else cost
            self._average += WEIGHT * (cost - self._average)
        share: Share | None = group
        while share is not None:
            share.pending -= charged
            share.spent += cost
            share.running -= 1
            if share.waiting:
                share.turns.enter(share)
            elif not share.running:
                share.turns.rest(share)
            share = share.above

    def remove(self, job: Job) -> None:
        """Take a job out, wherever it is. Its entry stays behind until it comes up or such entries abound."""
        group = _share_of(job)
        job.entry = None
        self.size -= 1
        for share in _both(group):
            share.waiting -= 1
            if not share.waiting:
                share.turns.leave(share)
        if len(group.heap) > 2 * group.waiting + 32:
            group.heap = [entry for entry in group.heap if entry[3].entry is entry]
            heapq.heapify(group.heap)
        if len(self._back) > 2 * self.size + 32:
            self._back = [entry for entry in self._back if entry[3].entry is entry]

    def check(self) -> int:
        """Raise ``InvariantError`` when the counts disagree; returns the number of entries, stale ones too."""
        back = [entry[3] for entry in self._back if entry[3].entry is entry]
        live, entries = len(back), len(self._back)
        for name, principal in self._principals.shares.items():
            inside = 0
            for label, group in (principal.groups or Turns()).shares.items():
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
        if live != self.size:
            raise InvariantError(f"the queue counts {self.size} jobs and has {live}")
        return entries


def _both(group: Share) -> tuple[Share, ...]:
    """A group and its principal."""
    return (group,) if group.above is None else (group, group.above)


def _share_of(job: Job) -> Share:
    if job.share is None:
        raise InvariantError(job.tell("it is in no group of the queue"))
    return job.share
