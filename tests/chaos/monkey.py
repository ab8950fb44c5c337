"""The monkey: does something terrible, undoes it later or does not, and keeps a diary."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.ledger import Gap
from tests.chaos.stage import LIVENESS, Stage, Worker

TROUBLES = {
    "worker killed": 4,
    "worker frozen for a moment": 2,
    "worker frozen past its liveness": 2,
    "worker told to stop": 3,
    "runner killed": 3,
    "template killed": 1,
    "compiler killed": 2,
    "client killed": 1,
    "broker frozen for a moment": 1,
    "broker frozen past the liveness": 1,
    "broker killed": 2,
    "broker told to stop": 1,
    "worker parted from the broker": 2,
    "worker that hears nothing": 1,
    "worker that nobody hears": 1,
    "worker lost without a word": 1,
}
"""What may happen, and how often each beside the others."""

NEEDS_JOURNAL = {"broker killed", "broker told to stop"}
NEEDS_NETWORK = {
    "worker parted from the broker",
    "worker that hears nothing",
    "worker that nobody hears",
    "worker lost without a word",
}
LONG = {"worker lost without a word"}  # it is half a minute until the broker can close the connection
LOSSES = {"worker killed", "worker frozen past its liveness", *NEEDS_NETWORK}
EXPLAINS = {
    "worker_lost": LOSSES,
    "poisoned": LOSSES,
    "runner_crashed": {"runner killed", "template killed"},
    "compile_limit": {"compiler killed", "template killed"},
    "internal": {"compiler killed", "template killed"},
}
"""Which troubles explain that a job fails with a code."""


@dataclass(order=True)
class _Later:
    at: float  # monotonic seconds
    number: int
    call: Callable[[], None] = field(compare=False)


class Monkey:
    """One seed is one sequence of choices; what they meet differs from run to run."""

    def __init__(self, stage: Stage, seed: int, only: set[str], brief: bool) -> None:
        self.stage = stage
        self.chance = random.Random(seed)
        self.diary: list[tuple[float, str]] = []  # monotonic seconds, what happened
        self.done: Counter[str] = Counter()
        self.ends: list[Gap] = []  # from the end of a broker to the beginning of the next one
        self._later: list[_Later] = []
        self._numbers = itertools.count()
        self._frozen: set[int] = set()  # process ids
        self._weights = {
            name: weight
            for name, weight in TROUBLES.items()
            if (name in only if only else not (brief and name in LONG))
            and (stage.durable or name not in NEEDS_JOURNAL)
            and (stage.network or name not in NEEDS_NETWORK)
        }

    @property
    def explained(self) -> set[str]:
        """Codes that jobs may have failed with by now."""
        return {code for code, troubles in EXPLAINS.items() if troubles & set(self.done)}

    @property
    def lost_nobody(self) -> bool:
        """No worker was killed or silent for long so far: nothing explains a second run."""
        return not LOSSES & set(self.done)

    def rage(self, seconds: float, every: float) -> None:
        """Make trouble for so long, about so often; both in seconds."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            name = self.chance.choices(list(self._weights), list(self._weights.values()))[0]
            if self._do(name):
                self.done[name] += 1
            self._wait(min(end, now + self.chance.expovariate(1 / every)))

    def rest(self) -> None:
        """Undo all that can be undone, and fill every seat."""
        while self._later:
            heapq.heappop(self._later).call()
        stage = self.stage
        if stage.broker is None or stage.broker.process.poll() is not None:
            stage.start_broker()
        for worker in [worker for worker in stage.workers if worker.service.process.poll() is not None]:
            stage.workers.remove(worker)
        taken = {worker.seat for worker in stage.workers}
        for seat in set(range(stage.seats["worker"])) - taken:
            stage.start_worker(seat)
        self._tell("calm")

    # --- time ---

    def _wait(self, until: float) -> None:
        """Do what was put off until it is time for more."""
        while (now := time.monotonic()) < until:
            if self._later and self._later[0].at <= now:
                heapq.heappop(self._later).call()
                continue
            due = self._later[0].at if self._later else until
            time.sleep(max(0.0, min(until, due) - now))

    def _after(self, low: float, high: float, call: Callable[[], None]) -> None:
        at = time.monotonic() + self.chance.uniform(low, high)
        heapq.heappush(self._later, _Later(at, next(self._numbers), call))

    def _tell(self, text: str) -> None:
        self.diary.append((time.monotonic(), text))

    # --- troubles ---

    def _do(self, name: str) -> bool:
        """Make one trouble, if there is somebody to have it."""
        subject, _, rest = name.partition(" ")
        if subject == "broker":
            return self._broker(rest)
        if name == "client killed":
            return self._client()
        workers = [w for w in self.stage.workers if w.service.process.pid not in self._frozen and not w.cut]
        if not workers:
            return False
        worker = self.chance.choice(workers)
        if subject in ("runner", "template", "compiler"):
            return self._inside(f"ml-{subject}", worker)
        self._tell(f"{worker.service.name}: {name}")
        if rest == "killed":
            self._lose(worker)
        elif rest == "lost without a word":
            self._cut(worker, "both")
            self._lose(worker)
        elif rest == "told to stop":
            self.stage.retire_worker(worker)
            self._after(0.0, 1.0, lambda: self._replace(worker))
        elif rest.startswith("frozen"):
            self._freeze(worker.service.process.pid, rest.endswith("moment"))
        else:
            self._part(worker, {"that hears nothing": "to", "that nobody hears": "from"}.get(rest, "both"))
        return True

    def _broker(self, what: str) -> bool:
        broker = self.stage.broker
        if broker is None or broker.process.pid in self._frozen:
            return False
        self._tell(f"broker {what}")
        if what.startswith("frozen"):
            self._freeze(broker.process.pid, what.endswith("moment"))
            return True
        self.stage.broker, began = None, time.monotonic()
        if what == "killed":
            broker.kill()
        else:
            broker.process.terminate()
        self._after(0.0, 1.5, lambda: self._broker_again(broker.process.wait, began))
        return True

    def _broker_again(self, ended: Callable[[], int], began: float) -> None:
        code = ended()
        self.ends.append((began, time.monotonic()))
        self._tell(f"a new broker; the last one ended with {code}")
        self.stage.start_broker()

    def _client(self) -> bool:
        load = self.chance.choice(self.stage.loads)
        self._tell(f"{load.name} killed")
        self.stage.lose_load(load)
        self.stage.start_load()
        return True

    def _inside(self, comm: str, worker: Worker) -> bool:
        pids = worker.service.pids(comm)
        if not pids:
            return False
        self._tell(f"{worker.service.name}: {comm} killed")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.chance.choice(pids), signal.SIGKILL)
        return True

    def _lose(self, worker: Worker) -> None:
        self.stage.lose_worker(worker)
        self._after(0.0, 2.0, lambda: self._replace(worker))

    def _replace(self, worker: Worker) -> None:
        new = self.stage.start_worker(worker.seat)
        self._tell(f"{new.service.name} takes the seat of {worker.service.name}")

    def _freeze(self, pid: int, short: bool) -> None:
        self._frozen.add(pid)
        os.kill(pid, signal.SIGSTOP)
        bounds = (0.2, LIVENESS / 2) if short else (LIVENESS * 1.25, LIVENESS * 2.5)
        self._after(*bounds, lambda: self._thaw(pid))

    def _thaw(self, pid: int) -> None:
        self._tell(f"{pid} goes on")
        self._frozen.discard(pid)
        os.kill(pid, signal.SIGCONT)

    def _cut(self, worker: Worker, way: str) -> None:
        assert self.stage.network is not None
        worker.cut = True
        self.stage.network.cut(worker.number, worker.service.process.pid, way)

    def _part(self, worker: Worker, way: str) -> None:
        self._cut(worker, way)

        def heal() -> None:
            self._tell(f"{worker.service.name} is connected again")
            worker.cut = False
            if self.stage.network is not None:
                self.stage.network.heal(worker.number, worker.service.process.pid)

        self._after(0.3, LIVENESS * 2.5, heal)
