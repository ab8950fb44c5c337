"""Jobs that have ended, kept for a while so that a request that comes again gets the same answer."""

from __future__ import annotations

from collections import deque
from math import inf

from minilambda.broker.jobs import KEEP_INPUT, InvariantError, Job, JobKey

MAX_FORGOTTEN = 10_000
"""Ids of jobs whose results are gone that are remembered, at most."""


class Results:
    """Ended jobs, oldest end first, bounded in time and bytes."""

    def __init__(self, ttl: float, limit: int) -> None:
        self._ttl = ttl  # seconds
        self._limit = limit  # bytes
        self._kept: deque[Job] = deque()
        self.again: dict[JobKey, Job] = {}  # those that failed with minilambda, not by themselves, oldest first
        self.bytes = 0  # of all kept jobs, about
        self.soonest = inf  # none expires earlier, seconds: the oldest may have had to go before its time

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, job: Job) -> list[Job]:
        """Keep a job that has just ended; returns the older ones that had to go for it."""
        if not self._kept:
            self.soonest = job.ended_at + self._ttl
        self._kept.append(job)
        if job.state == "failed" and job.code in KEEP_INPUT:
            self.again[job.key] = job
        self.bytes += job.kept_bytes()
        gone: list[Job] = []
        while self.bytes > self._limit and len(self._kept) > 1:
            gone.append(self._drop_oldest())
        return gone

    def expire(self, now: float) -> list[Job]:
        """Drop and return the jobs whose time is over."""
        gone: list[Job] = []
        while (due := self.next()) is not None and due <= now:
            gone.append(self._drop_oldest())
        self.soonest = inf if due is None else due
        return gone

    def next(self) -> float | None:
        """When the oldest one expires, seconds; None without any."""
        return self._kept[0].ended_at + self._ttl if self._kept else None

    def _drop_oldest(self) -> Job:
        job = self._kept.popleft()
        self.again.pop(job.key, None)
        self.bytes -= job.kept_bytes()
        return job

    def check(self) -> None:
        """Raise ``InvariantError`` when the bytes are miscounted."""
        if self.bytes != sum(job.kept_bytes() for job in self._kept):
            raise InvariantError("the bytes of the results are miscounted")


class Forgotten:
    """Ids of jobs whose results were kept for their time, the latest ones."""

    def __init__(self) -> None:
        self._keys: set[JobKey] = set()
        self._order: deque[JobKey] = deque()  # the same, the latest last

    def __contains__(self, key: JobKey) -> bool:
        return key in self._keys

    def add(self, key: JobKey) -> None:
        keys = self._keys
        if key in keys:
            return
        keys.add(key)
        self._order.append(key)
        if len(keys) > MAX_FORGOTTEN:
            keys.remove(self._order.popleft())
