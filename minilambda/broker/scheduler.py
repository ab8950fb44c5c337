"""Which worker gets the next job, and which waiting job another worker should have instead.

Workers that have room are kept in buckets by load relative to slots; a decision takes the lowest bucket, looks for
a worker there that knows the module, and else takes the one whose turn it is (``bucket``). No step looks at all
workers or all jobs.

A worker is put into its bucket when the next decision is made, not before: mostly a job has ended and another has come
by then, and the worker is where it was.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from itertools import islice

from minilambda.broker.bucket import Bucket
from minilambda.broker.forecast import Forecast
from minilambda.broker.jobs import InvariantError, Job
from minilambda.broker.registry import Worker

PROBES = 8
"""Workers that are asked for warmth in one decision, from the bucket and from the module's own list each."""

WARM_MODULES = 4096
"""Modules that a worker is remembered to have, at most."""

MAX_STRAYED = 16
"""Workers that wait to be put into their buckets, at most: so one decision never has to do with all workers."""

MOST = 32
"""Jobs that a worker may hold for each of its slots, at most, however short they are."""

STUCK = 0.5
"""A job that waits behind busy slots for so long was given to its worker by mistake, seconds: one that runs there takes
longer than was thought, or nothing was known of it."""

_Workers = OrderedDict[Worker, None]


class Scheduler:
    """The load of all workers. ``update`` must be told of every change to a worker that bears on it."""

    def __init__(self, prefetch: int, prefetch_time: float = 0.0) -> None:
        self._prefetch = prefetch  # jobs of any length that a worker may hold beyond its slots
        # A worker may hold more jobs while all that it has will be done after so long, microseconds of a slot
        self._in_hand = int(prefetch_time * 1e6) if prefetch else 0
        self.forecast = Forecast()
        self._buckets: dict[float, Bucket] = {}  # load relative to slots to the workers that have room
        self._order: list[float] = []  # heap of the keys of ``_buckets``, each once
        self._warm: dict[str, _Workers] = {}  # digest to workers that got the module in their session
        self.donors: _Workers = OrderedDict()  # workers with more jobs than slots, by their last dispatch
        self._filled = 0  # buckets that are not empty
        self._strayed: dict[Worker, None] = {}  # workers whose place has changed, the latest last
        self.free_slots = 0  # of all workers that take jobs
        self.taking = 0  # workers that take jobs, now or when they have room

    def has_room(self) -> bool:
        """Whether some worker can take a job."""
        if self._strayed:
            self._arrange()
        return self._filled > 0

    def update(self, worker: Worker) -> None:
        """Measure a worker's load anew."""
        load = worker.load = worker.measure()
        slots = worker.slots
        free, place = 0, None
        if worker.reachable and not worker.draining and not worker.doubted:
            if load < slots:
                free, place = slots - load, load / slots
                worker.stuck = False
            elif worker.stuck:
                pass
            elif load < slots + self._prefetch or (worker.expected < slots * self._in_hand and load < slots * MOST):
                place = load / slots
            if not worker.takes:
                worker.takes = True
                self.taking += 1
        elif worker.takes:
            worker.takes = False
            self.taking -= 1
        if free != worker.free:
            self.free_slots += free - worker.free
            worker.free = free
        if place != worker.place:
            worker.place = place
            if worker in self._strayed:
                del self._strayed[worker]
            elif len(self._strayed) >= MAX_STRAYED:
                self._arrange()
            self._strayed[worker] = None
        if self.donors and (load <= slots or not worker.reachable):
            self.donors.pop(worker, None)

    def watch(self, worker: Worker) -> None:
        """Jobs came to the worker: one that waits there may be wanted elsewhere later."""
        if worker.load > worker.slots and worker.reachable:
            self.donors[worker] = None
            self.donors.move_to_end(worker)

    def remove(self, worker: Worker) -> None:
        """Forget a worker."""
        self.taking -= worker.takes
        self.free_slots -= worker.free
        worker.takes, worker.free, worker.place = False, 0, None
        self._strayed.pop(worker, None)
        self._move(worker)
        self.donors.pop(worker, None)
        for digest in worker.warm:
            self._cool(worker, digest)
        worker.warm.clear()

    def choose(self, digest: str) -> Worker:
        """The worker for a job with this module. Raises ``InvariantError`` when none has room."""
        if self._strayed:
            self._arrange()
        bucket = self._lowest()
        turns, warm = bucket.recent or bucket.turns(), self._warm.get(digest)
        first, few = next(iter(turns)), not bucket.others
        if not warm:
            return first
        if few or len(warm) > PROBES:  # else the module's own list says it all
            for worker in turns:
                if worker in warm:
                    return worker
        if not few:
            for worker in tuple(islice(warm, PROBES)):
                warm.move_to_end(worker)  # the next decision asks others
                if worker.place == first.place:
                    return worker
        return first

    def sent(self, worker: Worker, digest: str, now: float) -> None:
        """A job with this module was dispatched to the worker."""
        self.update(worker)
        if worker.load > worker.slots:
            worker.waits_since = now
            self.watch(worker)
        warm = self._warm.get(digest)
        if warm is None:
            warm = self._warm[digest] = OrderedDict()
        if worker not in warm:
            warm[worker] = None
            worker.warm[digest] = None
            if len(worker.warm) > WARM_MODULES:
                oldest = next(iter(worker.warm))
                del worker.warm[oldest]
                self._cool(worker, oldest)

    def is_warm(self, worker: Worker, digest: str) -> bool:
        """Whether the worker has got the module."""
        return worker in self._warm.get(digest, ())

    def knows(self, digest: str) -> bool:
        """Whether some worker has got the module."""
        return digest in self._warm

    def forget_module(self, digest: str) -> None:
        """The module left the store; workers will be sent it again."""
        for worker in self._warm.pop(digest, ()):
            worker.warm.pop(digest, None)

    def surplus_at(self) -> float | None:
        """When the job that longest waits behind a busy worker came there, about, seconds; None without any."""
        return next(iter(self.donors)).waits_since if self.donors else None

    def surplus(self, now: float, after: float) -> Job | None:
        """The last unstarted job of a worker with more jobs than slots, if none came there for ``after`` seconds."""
        while self.donors:
            worker = next(iter(self.donors))
            if worker.waits_since + after > now:
                return None
            for job in islice(reversed(worker.jobs.values()), worker.load - worker.slots):
                if job.state == "assigned" and not (job.begun or job.recalled or job.cancelling):
                    return job
            del self.donors[worker]
        return None

    def stuck(self, now: float) -> Job | None:
        """An unstarted job that has waited for too long. Its worker gets no more of that kind until a slot is free."""
        job = self.surplus(now, STUCK)
        if job is not None and (worker := job.worker) is not None:
            worker.stuck = True
            self.update(worker)
        return job

    def _arrange(self) -> None:
        """Put the workers where they belong, behind those that have been there."""
        for worker in self._strayed:
            if worker.bucket != worker.place:
                self._move(worker)
            elif worker.place is not None:
                bucket = self._buckets[worker.place]
                bucket.remove(worker)
                bucket.add(worker)
        self._strayed.clear()

    def _move(self, worker: Worker) -> None:
        """Put a worker into the bucket of its place."""
        if worker.bucket is not None:
            bucket = self._buckets[worker.bucket]
            bucket.remove(worker)
            if not (bucket.recent or bucket.others):
                self._filled -= 1
        place = worker.bucket = worker.place
        if place is not None:
            target = self._buckets.get(place)
            if target is None:
                target = self._buckets[place] = Bucket()
                heapq.heappush(self._order, place)
            if not (target.recent or target.others):
                self._filled += 1
            target.add(worker)
        if len(self._order) > 2 * self._filled + 64:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket}
            self._order = sorted(self._buckets)

    def _lowest(self) -> Bucket:
        while self._order:
            bucket = self._buckets[self._order[0]]
            if bucket.recent or bucket.others:
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
        if placed != {worker: worker.bucket for worker in workers.values() if worker.bucket is not None}:
            raise InvariantError("the buckets and the workers disagree")
        if any(worker.bucket != worker.place and worker not in self._strayed for worker in workers.values()):
            raise InvariantError("a worker is in a wrong bucket for good")
        if any(worker.session not in workers for worker in self._strayed):
            raise InvariantError("a worker that has gone is to be put into a bucket")
        if sorted(self._order) != sorted(self._buckets) or self._filled != sum(map(bool, self._buckets.values())):
            raise InvariantError("the order of the buckets and the buckets disagree")
        if self.free_slots != sum(worker.free for worker in workers.values()):
            raise InvariantError("the free slots are miscounted")
        if self.taking != sum(worker.takes_jobs for worker in workers.values()):
            raise InvariantError("the workers that take jobs are miscounted")
        for worker in workers.values():
            if worker.load != worker.measure():
                raise InvariantError(f"the load of {worker.name!r} is out of date")
            if worker.expected != sum(job.expected for job in worker.jobs.values()):
                raise InvariantError(f"what {worker.name!r} has to do is miscounted")
        if any(worker.load <= worker.slots or worker.session not in workers for worker in self.donors):
            raise InvariantError("a worker without surplus counts as a donor")
        warm = {(digest, worker) for digest, group in self._warm.items() for worker in group}
        if warm != {(digest, worker) for worker in workers.values() for digest in worker.warm}:
            raise InvariantError("the warm modules and the workers disagree")
