"""Measure minilambda beside the pools that people would use instead, on the same work."""

from __future__ import annotations

import importlib.metadata
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import command
import harness
import procs
from harness import ROOT, Answer, Table
from lines import HelperFailed, Lines
from report import micros, rate, ratio

from minilambda.awake import DEVICE

USAGE = """Measure minilambda beside ProcessPoolExecutor, Ray, Parsl, ipyparallel and Dask, on the same work.

Usage:
  peers.py [--quick] [--python=<path>] [--only=<names>] [--tuned] [--seed=<n>] [--json=<path>]
  peers.py (-h | --help)

Options:
  --quick          Few rounds, about two minutes. Without it: about ten.
  --python=<path>  The Python that has the peers of benchmarks/requirements.txt. Default: .venv-peers, which
                   `make peers` makes, or this one.
  --only=<names>   Some of minilambda, minilambda-asleep, pool, pool-awake, pool-tuned, ray, parsl, ipyparallel,
                   dask, with commas between.
  --tuned          Ray, Parsl, ipyparallel and Dask too get the tuned form of the work.
  --seed=<n>       Of the order of turns. Default: another one each time; it is printed.
  --json=<path>    Write machine, figures and all samples to this file.
  -h --help        Show this.

Every system has two workers on this machine; each job runs examples/hello.wasm, which prints a line by WASI, and
returns the line. minilambda does it through client, broker, worker and a sandboxed process; the others call
wasmtime-py in their worker processes, with engine and module kept for each process.
  minilambda         as it comes: where /dev/cpu_dma_latency can be opened, processors don't sleep around a job
  minilambda-asleep  with --awake=0 for broker and worker: processors sleep whenever they like, as with the others
  pool               ProcessPoolExecutor; linker, WASI, store and output file for each run, as wasmtime-py documents it
  pool-awake         the same while its caller keeps processors awake, by the same device
  pool-tuned         ProcessPoolExecutor; one linker for all runs, output by a callback: the fastest public way
  the others         as documented, or with --tuned in the tuned form
Systems take turns in an order drawn anew in each round. Those that burn no time when idle (minilambda, the pools)
stay up all the time; the others are up in their turns only.
"""

MODULE = ROOT / "examples" / "hello.wasm"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
NOT_MEASURED = [
    "a network: all processes are on this machine; a pool has no network at all, minilambda talks TCP by loopback",
    "what the others lack: a sandbox around the runtime, limits, deadlines, retries; minilambda has them switched on",
    "chunks: each job is a call of its own in all systems",
    "large inputs and outputs, long jobs, more than one caller, many machines",
    "encryption: switched off in Parsl, which has it by default; not in use in the others",
]


@dataclass(frozen=True)
class System:
    """One of the systems that are compared."""

    name: str
    title: str
    package: str = ""  # that must be installed; "" for what is always there
    latency: float | None = None  # our latency is to be at most so many times theirs
    throughput: float | None = None  # our throughput is to be at least so many times theirs

    @property
    def light(self) -> bool:
        """It costs nothing while it waits, so it can stay up while others are measured."""
        return not self.package


OURS = System("minilambda", "minilambda")
ASLEEP = System("minilambda-asleep", "minilambda, --awake=0")
SYSTEMS = (
    OURS,
    ASLEEP,
    System("pool", "ProcessPoolExecutor(2), as documented", "", 0.9, 1.2),
    System("pool-awake", "ProcessPoolExecutor(2), as documented, processors kept awake"),
    System("pool-tuned", "ProcessPoolExecutor(2), tuned"),
    System("ray", "Ray", "ray", 1 / 4, 5),
    System("parsl", "Parsl, HTEX", "parsl", 1 / 4, 5),
    System("ipyparallel", "ipyparallel", "ipyparallel", 1 / 7, 5),
    System("dask", "Dask", "distributed", 1 / 20, 5),
)


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    heavy_turns: int  # of each system that is started for its turn
    light_turns: int  # of each that stays up
    latency: int  # jobs one by one, in a turn
    throughput: int  # jobs handed over at once, in a turn
    tuned: bool  # the peers that need a package get the tuned form

    @classmethod
    def of(cls, quick: bool, tuned: bool) -> Plan:
        return cls(2, 10, 300, 1500, tuned) if quick else cls(7, 35, 500, 3000, tuned)


@dataclass
class Figures:
    """What was measured of one system."""

    system: System
    version: str = ""
    latencies: list[list[float]] = field(default_factory=list)  # microseconds, a list for each turn
    rates: list[float] = field(default_factory=list)  # jobs per second, one for each turn
    cpu: list[float] = field(default_factory=list)  # microseconds per job, all processes and the caller
    failure: str = ""

    @property
    def measured(self) -> bool:
        return bool(self.rates)

    @property
    def medians(self) -> list[float]:
        return [statistics.median(turn) for turn in self.latencies]

    @property
    def latency(self) -> float:
        return statistics.median(self.medians)

    @property
    def p99(self) -> float:
        return harness.quantile([each for turn in self.latencies for each in turn], 0.99)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


class Bench:
    """Starts systems and lets them take turns."""

    def __init__(self, plan: Plan, python: str, folder: Path, stack: ExitStack) -> None:
        self._plan = plan
        self._python = python  # for the systems that need a package
        self._folder = folder
        self._stack = stack
        self._up: dict[str, Lines] = {}  # the light ones that run
        self._started = 0

    def turn(self, figures: Figures) -> None:
        """One turn of a system; a failure is noted in its figures."""
        try:
            if figures.system.light:
                if figures.system.name not in self._up:
                    self._up[figures.system.name] = self._stack.enter_context(self._start(figures.system))
                self._measure(figures, self._up[figures.system.name])
            else:
                with self._start(figures.system) as driver:
                    self._measure(figures, driver)
        except (HelperFailed, OSError) as error:
            figures.failure = str(error)

    def _start(self, system: System) -> Lines:
        self._started += 1
        folder = self._folder / str(self._started)  # short: Ray puts sockets below it
        folder.mkdir()
        python = self._python if system.package else sys.executable
        script = str(Path(__file__).with_name("peer_drivers.py"))
        # Parsl and ipyparallel start programs by name; the work must be found by all worker processes.
        env = {
            "PATH": f"{Path(python).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(Path(__file__).parent),
            "PYTHONWARNINGS": "ignore",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        name = f"{system.name}-tuned" if system.package and self._plan.tuned else system.name
        return Lines([python, script, name, system.package, str(MODULE), str(folder)], folder / "0.log", env=env)

    def _measure(self, figures: Figures, driver: Lines) -> None:
        figures.version = driver.ready["version"]
        if driver.ready["wasmtime"] != importlib.metadata.version("wasmtime"):
            figures.version += f", with another wasmtime ({driver.ready['wasmtime']})"
        figures.latencies.append(driver.order(do="latency", count=self._plan.latency))
        pids = driver.pids()
        before = sum(map(procs.process_us, pids))
        seconds = driver.order(do="throughput", count=self._plan.throughput)
        figures.cpu.append((sum(map(procs.process_us, pids)) - before) / self._plan.throughput)
        figures.rates.append(self._plan.throughput / seconds)


def schedule(systems: Sequence[System], plan: Plan, seed: int) -> list[System]:
    """Who has its turn when: rounds, in each every heavy system once and the light ones more often, shuffled."""
    chance = random.Random(seed)
    turns: list[System] = []
    for number in range(plan.heavy_turns):
        light = plan.light_turns * (number + 1) // plan.heavy_turns - plan.light_turns * number // plan.heavy_turns
        round_ = [system for system in systems for _ in range(light if system.light else 1)]
        chance.shuffle(round_)
        turns += round_
    return turns


def measure(args: dict[str, Any]) -> dict[str, Any]:
    begun, described = time.monotonic(), harness.machine()
    chosen = _chosen(args["--only"])
    plan, seed = Plan.of(args["--quick"], args["--tuned"]), int(args["--seed"] or random.randrange(10**6))
    python = args["--python"] or (str(PEERS_PYTHON) if PEERS_PYTHON.exists() else sys.executable)
    found = {system.name: Figures(system) for system in chosen}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlb-", ignore_cleanup_errors=True)))
        status = stack.enter_context(command.console.status("starting"))
        bench = Bench(plan, python, folder, stack)
        turns = schedule(chosen, plan, seed)
        for number, system in enumerate(turns, 1):
            if not found[system.name].failure:
                status.update(f"turn {number} of {len(turns)}: {system.name}")
                bench.turn(found[system.name])
    return harness.document(
        "peers",
        args["--quick"],
        begun,
        described,
        answers=_answers(found),
        tables=[_table(found, plan, seed)],
        not_measured=NOT_MEASURED,
        results={
            name: {"version": each.version, "latencies_us": each.latencies, "rates": each.rates, "cpu_us": each.cpu}
            for name, each in found.items()
        },
        seed=seed,
    )


def _chosen(names: str | None) -> list[System]:
    if names is None:
        return list(SYSTEMS)
    wanted = {name.strip() for name in names.split(",")} | {OURS.name}
    if unknown := wanted - {system.name for system in SYSTEMS}:
        raise ValueError(f"--only: there is no {', '.join(sorted(unknown))}.")
    return [system for system in SYSTEMS if system.name in wanted]


def _table(found: dict[str, Figures], plan: Plan, seed: int) -> Table:
    columns = ("system", "median", "p99", "turns", "ratio", "throughput", "turns", "ratio", "CPU/job")
    rows = []
    ours = found[OURS.name]
    for each in found.values():
        title = f"{each.system.title} {each.version}".strip()
        if not each.measured:
            rows.append([f"{title}: not measured: {each.failure}"] + [""] * (len(columns) - 1))
            continue
        compared = each is not ours and ours.measured
        rows.append(
            [
                title + (f" (then failed: {each.failure})" if each.failure else ""),
                micros(each.latency),
                micros(each.p99),
                f"{micros(min(each.medians))} – {micros(max(each.medians))}",
                ratio(ours.latency / each.latency) if compared else "",
                rate(each.rate),
                f"{rate(min(each.rates))} – {rate(max(each.rates))}",
                ratio(ours.rate / each.rate) if compared else "",
                micros(statistics.median(each.cpu)),
            ]
        )
    note = (
        f"median, p99: one job at a time, from the call to the result. throughput: {plan.throughput} jobs handed over "
        "at once. turns: smallest and largest median (rate) of a turn. ratio: minilambda's figure over theirs, of the "
        f"medians of the turns: small is good for time, large for throughput. CPU/job: all processes and the caller, "
        f"in the throughput part. {plan.heavy_turns} turns for systems that are started for each, {plan.light_turns} "
        f"for the others; seed {seed}. {_device()}"
    )
    return Table("hello.wasm by two workers", columns, rows, note)


def _device() -> str:
    """What rows differ in that say something of processors."""
    text = "Processors may sleep whenever they like, but around jobs of minilambda as it comes, and in turns of the "
    text += "pool that says so. Linux's device for that could "
    return f"{text}{'' if os.access(DEVICE, os.W_OK) else 'not '}be had on this machine."


def _answers(found: dict[str, Figures]) -> list[Answer]:
    ours = found[OURS.name]
    if not ours.measured:
        return [Answer("warm round trip and throughput of hello", f"not measured: {ours.failure}")]
    share = ours.p99 / ours.latency
    answers = [harness.at_most("p99 of the round trip over its median", micros(ours.p99), share, 3)]
    for each in found.values():
        if each is ours or each.system is ASLEEP:
            continue
        asked = f"warm round trip of hello, against {each.system.title}"
        if not each.measured:
            answers.append(Answer(asked, f"not measured: {each.failure}"))
            continue
        times = f"{micros(ours.latency)} / {micros(each.latency)}"
        rates = f"{rate(ours.rate)} / {rate(each.rate)}"
        flow = f"throughput of hello, against {each.system.title}"
        answers.append(_answer(asked, times, ours.latency / each.latency, each.system.latency, harness.at_most))
        answers.append(_answer(flow, rates, ours.rate / each.rate, each.system.throughput, harness.at_least))
        asleep = found.get(ASLEEP.name)
        if each.system.latency and asleep and asleep.measured:
            asked, times = f"{asked}, with --awake=0", f"{micros(asleep.latency)} / {micros(each.latency)}"
            answers.append(harness.at_most(asked, times, asleep.latency / each.latency, each.system.latency))
    return answers


def _answer(question: str, figure: str, found: float, limit: float | None, judge: Any) -> Answer:
    return Answer(question, figure, round(found, 3)) if limit is None else judge(question, figure, found, limit)


if __name__ == "__main__":
    command.main(USAGE, measure)
