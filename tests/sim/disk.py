"""The broker's disk in a simulation: what is written is safe a little later, and a crash tears what is not safe yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from minilambda.broker.events import Persist
from minilambda.broker.jobs import JobKey
from minilambda.broker.records import (
    JobAccepted,
    JobEnded,
    JobForgotten,
    JobMoved,
    JobWithdrawn,
    ModuleDropped,
    ModuleKept,
    Record,
    Recovered,
    SavedJob,
    WorkerGone,
    WorkerKnown,
)
from tests.sim.world import World


class Disk:
    """What outlives the broker: the records that are safe, and the bytes of the modules that those name."""

    def __init__(self, world: World, sync: float) -> None:
        self.world = world
        self._sync = sync  # how long a write takes to be safe, on average, seconds
        self.safe: list[Record] = []
        self.modules: dict[str, bytes] = {}  # bytes that were handed over, safe once a safe record names them
        self._waiting: deque[Persist] = deque()  # in order
        self._life = 0  # of the broker: what a dead one has asked for is answered no more

    def write(self, write: Persist, durable: Callable[[int], None]) -> None:
        """Keep the records, and say so once they are safe. Several writes become safe together."""
        self._waiting.append(write)
        life = self._life

        def sync() -> None:
            if life != self._life or write not in self._waiting:
                return
            while self._waiting and self._waiting[0].number <= write.number:
                self.safe.extend(self._waiting.popleft().records)
            durable(write.number)

        self.world.after(self.world.random.expovariate(1 / self._sync), sync)

    def crash(self) -> None:
        """The broker dies: of the writes that were not safe, any number of the first ones may have reached the disk."""
        self._life += 1
        survive = self.world.random.randrange(len(self._waiting) + 1)
        for _ in range(survive):
            self.safe.extend(self._waiting.popleft().records)
        self._waiting.clear()
        named = {record.digest for record in self.safe if isinstance(record, ModuleKept)}
        self.modules = {digest: data for digest, data in self.modules.items() if digest in named}

    def recover(self) -> Recovered:
        """What the safe records amount to."""
        accepted: dict[int, JobAccepted] = {}
        moved: dict[int, JobMoved] = {}
        ended: dict[int, JobEnded] = {}
        modules: dict[tuple[str, str], ModuleKept] = {}
        workers: dict[str, None] = {}
        forgotten: dict[JobKey, None] = {}
        for record in self.safe:
            if isinstance(record, JobAccepted):
                accepted[record.number] = record
            elif isinstance(record, JobMoved):
                moved[record.number] = record
            elif isinstance(record, JobEnded):
                ended[record.number] = record
                if record.drops_input:
                    accepted[record.number] = replace(accepted[record.number], stdin=b"", values=b"")
            elif isinstance(record, (JobForgotten, JobWithdrawn)):
                accepted.pop(record.number, None)
                if isinstance(record, JobForgotten):
                    forgotten[record.key] = None
            elif isinstance(record, ModuleKept):
                modules[record.digest, record.principal] = record
            elif isinstance(record, ModuleDropped):
                modules = {key: kept for key, kept in modules.items() if key[0] != record.digest}
            elif isinstance(record, WorkerKnown):
                workers[record.worker] = None
            elif isinstance(record, WorkerGone):
                workers.pop(record.worker, None)
        jobs = tuple(SavedJob(job, moved[number], ended.get(number)) for number, job in sorted(accepted.items()))
        kept = tuple(module for module in modules.values() if module.digest in self.modules)
        return Recovered(jobs, kept, tuple(workers), tuple(forgotten))
