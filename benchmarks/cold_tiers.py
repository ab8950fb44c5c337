"""The cold-start benchmark's measuring: the tiers of one module, minilambda and wasmtime-py in turn."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import guests
from guests import Guest
from harness import Sample
from lines import Lines
from local_cluster import UPGRADE_S, LocalCluster

from minilambda import Client, RunResult

WARM_UP = 3  # runs before a warm one counts
EXPECTED_TIER = {"never seen": "compiled", "on disk": "disk", "rested": "warm", "warm": "warm"}


@dataclass(frozen=True)
class Plan:
    """How many samples to take."""

    never_seen: int
    turn: int  # of these, before wasmtime-py has its turn
    on_disk: int
    warm: int
    seconds: float  # a tier of a module takes no further sample after so long

    @classmethod
    def of(cls, guest: Guest, quick: bool) -> Plan:
        if quick:
            return cls(2, 1, 3, 50, 6.0) if guest.large else cls(20, 5, 5, 500, 6.0)
        return cls(10, 1, 10, 200, 90.0) if guest.large else cls(100, 5, 20, 2000, 90.0)


@dataclass
class Tier:
    """The samples of one tier."""

    ours: list[Sample] = field(default_factory=list)
    theirs: list[Sample] = field(default_factory=list)  # of wasmtime-py
    compilers: Counter[str] = field(default_factory=Counter)  # whose code ran, where results say so


class Bench:
    """One worker that is replaced for each run from disk, and wasmtime-py."""

    def __init__(self, cluster: LocalCluster, client: Client, folder: Path, memory: Path, quick: bool) -> None:
        self._cluster = cluster
        self._client = client
        self._folder = folder
        self._output = memory / "baseline.out"  # where wasmtime-py writes a guest's output
        self._quick = quick
        self._worker = cluster.start_worker(client)

    def measure(self, guest: Guest, say: Callable[[str], None]) -> dict[str, Tier]:
        """The samples of each tier. ``say`` is told what is being done."""
        plan = Plan.of(guest, self._quick)
        # The copy that the last sample of the first tier ran is what the other tiers find compiled.
        path, artifact = self._folder / f"{guest.name}.wasm", self._folder / f"{guest.name}.cwasm"
        order = {**asdict(guest), "path": str(path), "artifact": str(artifact)}
        with self._baseline() as baseline:
            say(f"{guest.name}: never seen")
            never_seen = self._never_seen(guest, path, order, baseline, plan)
            say(f"{guest.name}: on disk")
            on_disk = self._on_disk(guest, path, order, plan)
            say(f"{guest.name}: warm")
            warm = self._warm(guest, path, order, baseline, plan)
            say(f"{guest.name}: rested")
            rested = self._rested(guest, path, order, baseline, plan)
        path.unlink()
        artifact.unlink()
        return {"never seen": never_seen, "on disk": on_disk, "rested": rested, "warm": warm}

    def _never_seen(self, guest: Guest, path: Path, order: dict[str, Any], baseline: Lines, plan: Plan) -> Tier:
        tier = Tier()
        for _ in rounds(plan.never_seen // plan.turn, plan.seconds):
            for _ in range(plan.turn):
                guests.write_unseen_copy(guest, path)
                self._cluster.settle()
                self._run(guest, path, "never seen", tier)
            self._cluster.settle(UPGRADE_S)
            for _ in range(plan.turn):
                tier.theirs.append(baseline_sample(baseline.order(do="compiled", guest=order)))
        return tier

    def _on_disk(self, guest: Guest, path: Path, order: dict[str, Any], plan: Plan) -> Tier:
        tier = Tier()
        for _ in rounds(plan.on_disk, plan.seconds):
            self._cluster.stop_worker(self._worker, self._client)
            self._worker = self._cluster.start_worker(self._client)
            self._run(guest, path, "on disk", tier)
            with self._baseline() as fresh:
                self._cluster.settle()
                tier.theirs.append(baseline_sample(fresh.order(do="loaded", guest=order)))
        return tier

    def _warm(self, guest: Guest, path: Path, order: dict[str, Any], baseline: Lines, plan: Plan) -> Tier:
        tier = Tier()
        turn = max(1, plan.warm // 20)  # runs of one side before the other has its turn
        for _ in range(WARM_UP):
            self._client.run(path, **guests.options(guest))
        baseline.order(do="warm", guest={**order, "count": WARM_UP})
        self._cluster.settle(UPGRADE_S)
        self._client.run(path, **guests.options(guest))  # loads what was compiled again, if anything was
        for _ in rounds(plan.warm // turn, plan.seconds):
            for _ in range(turn):
                self._run(guest, path, "warm", tier)
            tier.theirs += map(baseline_sample, baseline.order(do="warm", guest={**order, "count": turn}))
        return tier

    def _rested(self, guest: Guest, path: Path, order: dict[str, Any], baseline: Lines, plan: Plan) -> Tier:
        """Warm runs, each after the same rest that a new worker has before its first one."""
        tier = Tier()
        for _ in rounds(2 * plan.on_disk, plan.seconds):
            self._cluster.settle()
            self._run(guest, path, "rested", tier)
            self._cluster.settle()
            tier.theirs += map(baseline_sample, baseline.order(do="warm", guest={**order, "count": 1}))
        return tier

    def _run(self, guest: Guest, path: Path, name: str, tier: Tier) -> None:
        begun = time.perf_counter()
        result = self._client.run(path, **guests.options(guest))
        total = (time.perf_counter() - begun) * 1e3
        guests.check(guest, result, EXPECTED_TIER[name])
        tier.ours.append(sample(total, result))
        if result.usage.compiler:
            tier.compilers[result.usage.compiler] += 1

    def _baseline(self) -> Lines:
        return baseline_process(self._output, self._folder / "baseline.log")


def baseline_process(output: Path, log: Path) -> Lines:
    """wasmtime-py in a process of its own, ready for orders: see ``baseline.py``."""
    return Lines([sys.executable, str(Path(__file__).with_name("baseline.py")), str(output)], log)


def sample(total: float, result: RunResult) -> Sample:
    """A run of minilambda. What no phase of its usage explains is split by what the broker saw of it."""
    usage = result.usage
    told = {
        "wait": usage.queued_ms,
        "fetch": usage.fetch_ms,
        "compile": usage.compile_ms,
        "load": usage.load_ms,
        "run": usage.run_ms,
    }
    hops = max(0.0, usage.total_ms - sum(told.values()))
    return Sample(total, {"client": max(0.0, total - usage.total_ms), "hops": hops, **told})


def baseline_sample(times: dict[str, float]) -> Sample:
    """A run of wasmtime-py."""
    return Sample(sum(times.values()), times)


def rounds(count: int, seconds: float) -> Iterator[None]:
    """``count`` rounds, fewer when they take too long, but one at least."""
    end = time.monotonic() + seconds
    for number in range(count):
        if number and time.monotonic() > end:
            return
        yield
