"""The fair queue of jobs that wait for a worker.

Principals take turns, then the groups of one principal; within a group the higher priority goes first, then age.
Each operation is O(log n) in the jobs of one group, whatever else is queued.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field

from minilambda.broker.jobs import InvariantError, Job

Entry = tuple[int, int, int, Job]
"""Negative priority, order of acceptance, number of the entry, job: the smallest goes first."""


@dataclass(slots=True)
class _Group:
    heap: list[Entry] = field(default_factory=list)  # live entries, and those of removed jobs until they come up
    live: int = 0  # jobs that are queued


_Groups = OrderedDict[str, _Group]


class FairQueue:
    """Jobs that wait, each once. A job's ``entry`` is its place here, None outside."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, _Groups] = OrderedDict()  # principals in order of their turns
        self._size = 0  # jobs queued
        self._entries = 0  # entries made so far

    def __len__(self) -> int:
        return self._size

    def push(self, job: Job, *, first: bool = False) -> None:
        """Queue a job. ``first`` gives its principal and group the next turn, for a job that had its turn before."""
        principal = job.key[0]
        groups = self._turns.get(principal)
        if groups is None:
            groups = self._turns[principal] = OrderedDict()
        group = groups.get(job.spec.group)
        if group is None:
            group = groups[job.spec.group] = _Group()
        self._entries += 1
        entry = job.entry = (-job.spec.priority, job.number, self._entries, job)
        heapq.heappush(group.heap, entry)
        group.live += 1
        self._size += 1
        if first:
            groups.move_to_end(job.spec.group, last=False)
            self._turns.move_to_end(principal, last=False)

    def pop(self) -> Job:
        """Take the job whose turn it is. Raises ``InvariantError`` when nothing waits."""
        if not self._turns:
            raise InvariantError("the queue is empty")
        principal, groups = next(iter(self._turns.items()))
        name, group = next(iter(groups.items()))
        while True:
            entry = heapq.heappop(group.heap)
            job = entry[3]
            if job.entry is entry:
                break
        self._took(job, group)
        if name in groups:
            groups.move_to_end(name)
        if principal in self._turns:
            self._turns.move_to_end(principal)
        return job

    def remove(self, job: Job) -> None:
        """Take a job out, wherever it is. Its entry stays behind until it comes up or such entries abound."""
        group = self._turns[job.key[0]][job.spec.group]
        self._took(job, group)
        if len(group.heap) > 2 * group.live + 32:
            group.heap = [entry for entry in group.heap if entry[3].entry is entry]
            heapq.heapify(group.heap)

    def _took(self, job: Job, group: _Group) -> None:
        job.entry = None
        self._size -= 1
        group.live -= 1
        if not group.live:
            groups = self._turns[job.key[0]]
            del groups[job.spec.group]
            if not groups:
                del self._turns[job.key[0]]

    def check(self) -> int:
        """Raise ``InvariantError`` when the counts disagree; returns the number of entries, stale ones too."""
        live = entries = 0
        for groups in self._turns.values():
            for group in groups.values():
                count = sum(entry[3].entry is entry for entry in group.heap)
                if count != group.live or not count:
                    raise InvariantError(f"a group counts {group.live} jobs and has {count}")
                live += count
                entries += len(group.heap)
        if live != self._size:
            raise InvariantError(f"the queue counts {self._size} jobs and has {live}")
        return entries
