"""Which worker gets the next job, and which waiting job another worker should have instead.

Workers that have room are kept in buckets by load relative to slots; a decision takes the lowest bucket, looks for
a worker there that knows the module, and else takes the one that has been there longest. No step looks at all
workers or all jobs.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import islice

from minilambda.broker.jobs import InvariantError, Job
from minilambda.broker.registry import Worker

PROBES = 8
"""Workers that are asked for warmth in one decision, from the bucket and from the module's own list each."""

WARM_MODULES = 4096
"""Modules that a worker is remembered to have, at most."""

_Workers = OrderedDict[Worker, None]


class Scheduler:
    """The load of all workers. ``update`` must be told of every change to a worker that bears on it."""

    def __init__(self, prefetch: int) -> None:
        self._prefetch = prefetch  # jobs that a worker may hold beyond its slots
        self._buckets: dict[float, _Workers] = {}  # load relative to slots to the workers that have room
        self._order: list[float] = []  # heap of the keys of ``_buckets``, each once
        self._warm: dict[str, _Workers] = {}  # digest to workers that got the module in their session
        self.donors: _Workers = OrderedDict()  # workers with more jobs than slots, by their last dispatch
        self.filled = 0  # buckets that are not empty: while there is one, some worker can take a job
        self.free_slots = 0  # of all workers that take jobs
        self.taking = 0  # workers that take jobs, now or when they have room

    def update(self, worker: Worker) -> None:
        """Measure a worker's load anew and put the worker where it belongs."""
        load = worker.load = worker.measure()
        slots = worker.slots
        if worker.reachable and not worker.draining and not worker.doubted:
            self._count(worker, slots - load if load < slots else 0, True)
            place = load / slots if load < slots + self._prefetch else None
        else:
            self._count(worker, 0, False)
            place = None
        if place != worker.place:
            self._move(worker, place)
        if self.donors and (load <= slots or not worker.reachable):
            self.donors.pop(worker, None)

    def watch(self, worker: Worker) -> None:
        """Jobs came to the worker: one that waits there may be wanted elsewhere later."""
        if worker.load > worker.slots and worker.reachable:
            self.donors[worker] = None
            self.donors.move_to_end(worker)

    def remove(self, worker: Worker) -> None:
        """Forget a worker."""
        self._count(worker, 0, False)
        if worker.place is not None:
            self._move(worker, None)
        self.donors.pop(worker, None)
        for digest in worker.warm:
            self._cool(worker, digest)
        worker.warm.clear()

    def choose(self, digest: str) -> Worker:
        """The worker for a job with this module. Raises ``InvariantError`` when none has room."""
        bucket = self._lowest()
        first, warm = next(iter(bucket)), self._warm.get(digest)
        if not warm:
            return first
        if len(warm) > PROBES or len(bucket) <= PROBES:  # else the module's own list says it all
            if digest in first.warm:
                return first
            for worker in islice(bucket, PROBES):
                if digest in worker.warm:
                    return worker
        for worker in islice(warm, PROBES):
            if worker.place == first.place:
                return worker
        return first

    def sent(self, worker: Worker, digest: str, now: float) -> None:
        """A job with this module was dispatched to the worker."""
        worker.dispatched_at = now
        self.update(worker)
        if worker.load > worker.slots:
            self.watch(worker)
        if digest in worker.warm:
            self._warm[digest].move_to_end(worker)
        else:
            self._warm.setdefault(digest, OrderedDict())[worker] = None
            worker.warm[digest] = None
            if len(worker.warm) > WARM_MODULES:
                oldest = next(iter(worker.warm))
                del worker.warm[oldest]
                self._cool(worker, oldest)

    def knows(self, digest: str) -> bool:
        """Whether some worker has got the module."""
        return digest in self._warm

    def forget_module(self, digest: str) -> None:
        """The module left the store; workers will be sent it again."""
        for worker in self._warm.pop(digest, ()):
            worker.warm.pop(digest, None)

    def surplus_at(self) -> float | None:
        """When the job that longest waits behind a busy worker came there, about, seconds; None without any."""
        return next(iter(self.donors)).dispatched_at if self.donors else None

    def surplus(self, now: float, after: float) -> Job | None:
        """The last unstarted job of a worker with more jobs than slots, if none came there for ``after`` seconds."""
        while self.donors:
            worker = next(iter(self.donors))
            if worker.dispatched_at + after > now:
                return None
            for job in islice(reversed(worker.jobs.values()), worker.load - worker.slots):
                if job.state == "assigned" and not (job.begun or job.recalled or job.cancelling):
                    return job
            del self.donors[worker]
        return None

    def _count(self, worker: Worker, free: int, takes: bool) -> None:
        if takes is not worker.takes:
            self.taking += 1 if takes else -1
            worker.takes = takes
        if free != worker.free:
            self.free_slots += free - worker.free
            worker.free = free

    def _move(self, worker: Worker, place: float | None) -> None:
        """Put a worker into another bucket, or into none."""
        if worker.place is not None:
            bucket = self._buckets[worker.place]
            del bucket[worker]
            if not bucket:
                self.filled -= 1
        worker.place = place
        if place is not None:
            target = self._buckets.get(place)
            if target is None:
                target = self._buckets[place] = OrderedDict()
                heapq.heappush(self._order, place)
            if not target:
                self.filled += 1
            target[worker] = None
        if len(self._order) > 2 * self.filled + 64:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket}
            self._order = sorted(self._buckets)

    def _lowest(self) -> _Workers:
        while self._order:
            bucket = self._buckets[self._order[0]]
            if bucket:
                return bucket
            del self._buckets[heapq.heappop(self._order)]
        raise InvariantError("no worker has room")

    def _cool(self, worker: Worker, digest: str) -> None:
        warm = self._warm[digest]
        del warm[worker]
        if not warm:
            del self._warm[digest]

    def check(self, workers: dict[int, Worker]) -> None:
        """Raise ``InvariantError`` where the indexes and the workers disagree."""
        placed = {worker: place for place, bucket in self._buckets.items() for worker in bucket}
        if placed != {worker: worker.place for worker in workers.values() if worker.place is not None}:
            raise InvariantError("the buckets and the workers disagree")
        if sorted(self._order) != sorted(self._buckets) or self.filled != sum(map(bool, self._buckets.values())):
            raise InvariantError("the order of the buckets and the buckets disagree")
        if self.free_slots != sum(worker.free for worker in workers.values()):
            raise InvariantError("the free slots are miscounted")
        if self.taking != sum(worker.takes_jobs for worker in workers.values()):
            raise InvariantError("the workers that take jobs are miscounted")
        for worker in workers.values():
            if worker.load != worker.measure():
                raise InvariantError(f"the load of {worker.name!r} is out of date")
        if any(worker.load <= worker.slots or worker.session not in workers for worker in self.donors):
            raise InvariantError("a worker without surplus counts as a donor")
        warm = {(digest, worker) for digest, group in self._warm.items() for worker in group}
        if warm != {(digest, worker) for worker in workers.values() for digest in worker.warm}:
            raise InvariantError("the warm modules and the workers disagree")
