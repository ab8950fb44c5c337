"""What the parts of the cold-start benchmark share: how many runs, one run of each side, and samples by round."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import guests
from guests import Guest
from harness import Sample
from lines import Lines

from minilambda import Client, RunResult

WARM_UP = 3  # runs before a warm one counts


@dataclass(frozen=True)
class Plan:
    """How many samples to take. A round has all that is compared, so that both sides meet the same machine."""

    never_seen: int  # rounds
    turn: int  # modules of each of them
    fresh: int  # rounds of a new worker: after a rest, and in a stream that is under way
    warm: int  # warm runs of each of them
    compilers: int  # rounds of never-seen modules by compiler
    seconds: float  # a part of a module begins no further round after so long

    @classmethod
    def of(cls, guest: Guest, quick: bool) -> Plan:
        if quick:
            return cls(3, 1, 7, 7, 1, 40.0) if guest.large else cls(10, 2, 10, 50, 4, 40.0)
        return cls(10, 1, 20, 10, 10, 180.0) if guest.large else cls(20, 5, 20, 100, 30, 180.0)


@dataclass
class Tier:
    """The samples of one tier, by round."""

    ours: list[list[Sample]] = field(default_factory=list)
    theirs: list[list[Sample]] = field(default_factory=list)  # of wasmtime-py
    compilers: Counter[str] = field(default_factory=Counter)  # whose code ran, where results say so

    def add(self, runs: Sequence[tuple[Sample, RunResult]]) -> None:
        """One round of minilambda."""
        self.ours.append([sample for sample, _ in runs])
        self.compilers.update(result.usage.compiler for _, result in runs if result.usage.compiler)


def medians(by_round: Sequence[Sequence[Sample]], phase: str = "") -> list[float]:
    """The median of each round, milliseconds: of the totals, or of one phase."""
    return [
        round(statistics.median(sample.phases_ms[phase] if phase else sample.total_ms for sample in samples), 4)
        for samples in by_round
    ]


def run(client: Client, guest: Guest, path: Path, tier: str) -> tuple[Sample, RunResult]:
    """One run, its output and its tier checked."""
    begun = time.perf_counter()
    result = client.run(path, **guests.options(guest))
    total = (time.perf_counter() - begun) * 1e3
    guests.check(guest, result, tier)
    return _sample(total, result), result


def loop(client: Client, guest: Guest, path: Path, count: int) -> list[tuple[Sample, RunResult]]:
    """Runs one after another, those that make everything warm not counted."""
    for _ in range(WARM_UP):
        run(client, guest, path, "warm")
    return [run(client, guest, path, "warm") for _ in range(count)]


def _sample(total: float, result: RunResult) -> Sample:
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


class Baseline(Lines):
    """wasmtime-py in a process of its own, ready for one guest: see ``baseline.py``."""

    def __init__(self, guest: Guest, path: Path, artifact: Path, output: Path, log: Path) -> None:
        """``output`` is where it writes the guest's output."""
        self._guest = {**asdict(guest), "path": str(path), "artifact": str(artifact)}
        super().__init__([sys.executable, str(Path(__file__).with_name("baseline.py")), str(output)], log)

    def compiled(self) -> Sample:
        """Compile and run."""
        return _baseline_sample(self.order(do="compiled", guest=self._guest))

    def loaded(self) -> Sample:
        """Load the artifact and run."""
        return _baseline_sample(self.order(do="loaded", guest=self._guest))

    def warm(self, count: int) -> list[Sample]:
        """Run what is loaded, in a loop."""
        return [_baseline_sample(times) for times in self.order(do="warm", guest={**self._guest, "count": count})]


def _baseline_sample(times: dict[str, float]) -> Sample:
    return Sample(sum(times.values()), times)


def rounds(count: int, seconds: float) -> Iterator[None]:
    """``count`` rounds, fewer when they take too long, but one at least."""
    end = time.monotonic() + seconds
    for number in range(count):
        if number and time.monotonic() > end:
            return
        yield
