"""Run short and long jobs on a hundred workers: how busy are they while jobs wait, how long do short jobs take?"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import command
import harness
from harness import Answer, Table
from nodes_cluster import Nodes, own_network
from nodes_sides import Ours, Push, Side
from report import milliseconds, size

USAGE = """Run short and long jobs on a hundred workers, placed by minilambda, at random and in turn.

Usage:
  nodes.py [--quick] [--nodes=<n>] [--seed=<n>] [--json=<path>]
  nodes.py (-h | --help)

Options:
  --quick        20 workers and few jobs, about a minute. Without it: 100 workers, about six minutes.
  --nodes=<n>    So many workers.
  --seed=<n>     Of the jobs' lengths and arrivals. Default: another one each time; it is printed.
  --json=<path>  Write machine, figures and all latencies to this file.
  -h --help      Show this.

Real workers with one slot each and real sandboxes, each in a network namespace of its own, joined by a bridge; where
that is not allowed (it needs root, or user namespaces, and `ip` and `unshare`) they are plain processes, which is said.
The same workers serve three brokers in turn: minilambda's, and one that pushes each job to a worker when it comes, at
random or to each in turn. Each gets the same jobs at the same times:
  backlog  as many long jobs as short ones, all at once: which share of the slots runs a guest while jobs wait?
  tail     long jobs are under way for half the slots, all the time; short ones come at random: how long do they take?
Long jobs sleep for 0.5 to 2 s, short ones for 1 to 5 ms, since no machine has a hundred processors for them to burn.
"""

LONG_S = (0.5, 2.0)
SHORT_S = (0.001, 0.005)
SHARES = (0.5, 0.99, 0.999)
NOT_MEASURED = [
    "a hundred processors: all nodes share those of this machine, so the jobs sleep and the rate of short ones is low",
    "wire time: the namespaces are joined by a bridge in the kernel",
    "a broker between client and worker in the rows random and round-robin: the process that has the jobs places them",
    "jobs of unequal modules: all run one small module, which every worker has",
]


@dataclass(frozen=True)
class Plan:
    """The load."""

    nodes: int
    backlog: int  # long jobs for each worker, and as many short ones
    tail_s: float  # how long short jobs come, seconds, in each round
    rate: float  # short jobs that come, per second
    rounds: int  # turns of each placement

    @classmethod
    def of(cls, quick: bool, nodes: int | None) -> Plan:
        if quick:
            return cls(nodes or 20, 3, 8.0, 50.0, 1)
        return cls(nodes or 100, 4, 20.0, 100.0, 3)


@dataclass
class Figures:
    """What one placement has shown, in all its rounds."""

    busy: list[float] = field(default_factory=list)  # share of slot time in which a guest ran while jobs waited
    done_s: list[float] = field(default_factory=list)  # from the first to the last result of the backlog
    short_ms: list[float] = field(default_factory=list)  # latencies of short jobs beyond their own sleep
    held: list[float] = field(default_factory=list)  # share of slot time that long jobs had meanwhile


class Flight:
    """Jobs under way on one side, and what they have shown."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._open: dict[str, tuple[float, float]] = {}  # job to the time it was due and its sleep, seconds
        self.guests: list[tuple[float, float]] = []  # start and end of each guest, seconds

    def __len__(self) -> int:
        return len(self._open)

    def submit(self, sleep_s: float, due: float) -> None:
        """Begin a job that was due at ``due``: what it waits for this process counts too."""
        self._open[self._side.submit(sleep_s)] = (due, sleep_s)

    def ended(self, wait_s: float) -> list[tuple[float, float]]:
        """For each job that has ended meanwhile, its sleep and its latency beyond that, seconds."""
        found = []
        for each in self._side.ended(wait_s):
            due, sleep_s = self._open.pop(each.job)
            self.guests.append((each.at - each.run_s, each.at))
            found.append((sleep_s, each.at - due - sleep_s))
        return found


def backlog(side: Side, plan: Plan, seed: int, figures: Figures) -> None:
    """All jobs at once."""
    draw = random.Random(seed)
    count = plan.nodes * plan.backlog
    sleeps = [draw.uniform(*LONG_S) for _ in range(count)] + [draw.uniform(*SHORT_S) for _ in range(count)]
    draw.shuffle(sleeps)
    flight, begun = Flight(side), time.monotonic()
    for sleep_s in sleeps:
        flight.submit(sleep_s, begun)
    while len(flight):
        flight.ended(1.0)
    first, last = (edge(start for start, _ in flight.guests) for edge in (min, max))
    ran = sum(max(0.0, min(end, last) - start) for start, end in flight.guests)
    figures.busy.append(ran / (plan.nodes * (last - first)))
    figures.done_s.append(max(end for _, end in flight.guests) - begun)


def tail(side: Side, plan: Plan, seed: int, figures: Figures) -> None:
    """Short jobs at random while as many long ones as half the slots are under way."""
    draw, lengths = random.Random(seed), random.Random(seed + 1)
    flight, begun = Flight(side), time.monotonic()
    for _ in range(plan.nodes // 2):
        flight.submit(lengths.uniform(*LONG_S), begun)
    settled = begun + LONG_S[1]  # by then their ends are spread
    over, due = settled + plan.tail_s, settled
    while len(flight):
        now = time.monotonic()
        while due <= now and due < over:
            flight.submit(draw.uniform(*SHORT_S), due)
            due += draw.expovariate(plan.rate)
        for sleep_s, beyond in flight.ended((due if due < over else now + 1.0) - now):
            if sleep_s <= SHORT_S[1]:
                figures.short_ms.append(beyond * 1000)
            elif time.monotonic() < over:
                flight.submit(lengths.uniform(*LONG_S), time.monotonic())
    ran = sum(max(0.0, min(end, over) - max(start, settled)) for start, end in flight.guests if end - start > 0.1)
    figures.held.append(ran / (plan.nodes * plan.tail_s))


def rounds(nodes: Nodes, plan: Plan, seed: int, say: Callable[[str], None]) -> tuple[dict[str, Figures], float]:
    """Let the placements take turns on the same workers; their figures, and when all workers were ready, seconds."""
    found = {name: Figures() for name in ("minilambda", "random", "round-robin")}
    ready = 0.0
    for number in range(plan.rounds):
        for name, figures in found.items():
            say(f"round {number + 1} of {plan.rounds}, {name}: waiting for the workers")
            if name == "minilambda":
                nodes.start_broker()
            if not ready:
                begun = time.monotonic()
                nodes.start_workers()
            side = Ours(nodes.address) if name == "minilambda" else Push(nodes.address, name, seed + number)
            with side:
                side.wait_ready(plan.nodes, nodes.check)
                ready = ready or time.monotonic() - begun
                _warm(side, plan)
                for phase in (backlog, tail):
                    say(f"round {number + 1} of {plan.rounds}, {name}: {phase.__name__}")
                    phase(side, plan, seed + number, figures)
            nodes.stop_broker()
            nodes.check()
    return found, ready


def _warm(side: Side, plan: Plan) -> None:
    """Every worker has run the module once."""
    flight = Flight(side)
    for _ in range(3 * plan.nodes):
        flight.submit(0.2, time.monotonic())
    while len(flight):
        flight.ended(1.0)


# --- the document ------------------------------------------------------------------------------------


def _table(found: dict[str, Figures], plan: Plan) -> Table:
    rows = []
    for name, each in found.items():
        rows.append(
            (
                name,
                f"{statistics.median(each.busy):.1%}",
                f"{statistics.median(each.done_s):.2f} s",
                f"{statistics.median(each.held):.0%}",
                f"{len(each.short_ms):,}",
                *(_quantile(each.short_ms, share) for share in SHARES),
            )
        )
    columns = ("placement", "busy while jobs wait", "backlog done", "long jobs have", "short jobs")
    note = (
        "busy: share of slot time in which a guest ran, from the first start to the last start of the backlog. "
        "long jobs have: share of slot time in the tail. p50 …: from the time when a short job was due to its result, "
        f"less its own sleep: its way there and back, each queue that it waits in. {plan.rate:g} short jobs a second."
    )
    title = f"{plan.nodes} workers of one slot, the same jobs placed in three ways"
    return Table(title, (*columns, "p50", "p99", "p99.9"), rows, note)


def _quantile(values: list[float], share: float) -> str:
    """In parentheses where there are so few values that it is the largest of them."""
    text = f"{milliseconds(harness.quantile(values, share))} ms"
    return text if len(values) * (1 - share) >= 1 else f"({text})"


def _answers(found: dict[str, Figures]) -> list[Answer]:
    ours = found["minilambda"]
    answers = [Answer("slots busy while jobs wait", f"{statistics.median(ours.busy):.1%}")]
    for name in ("random", "round-robin"):
        theirs = found[name]
        busy = statistics.median(theirs.busy)
        answers.append(Answer(f"… against {name} placement", f"{busy:.1%}", statistics.median(ours.busy) / busy))
        for share in SHARES:
            mine, other = harness.quantile(ours.short_ms, share), harness.quantile(theirs.short_ms, share)
            figure = f"{_quantile(ours.short_ms, share)}, {_quantile(theirs.short_ms, share)}"
            answers.append(Answer(f"p{share * 100:g} of short jobs against {name}", figure, mine / other))
    return answers


def measure(args: dict[str, Any]) -> dict[str, Any]:
    """Run it; the document."""
    begun, described = time.monotonic(), harness.machine()
    plan = Plan.of(args["--quick"], int(args["--nodes"]) if args["--nodes"] else None)
    seed = int(args["--seed"] or random.randrange(10**6))
    reason = own_network()  # does not return where it can start this program again in one
    place = f"processes in one network ({reason})" if reason else "a network namespace each"
    with (
        TemporaryDirectory(prefix="mlb-", ignore_cleanup_errors=True) as folder,
        Nodes(Path(folder), plan.nodes) as nodes,
    ):
        with command.console.status("starting") as status:
            found, ready_s = rounds(nodes, plan, seed, lambda text: status.update(f"nodes: {text}"))
        processes, memory = nodes.memory()
    facts = {"seed": seed, "place": place, "ready_s": round(ready_s, 1), "processes": processes, "memory_bytes": memory}
    ready = Answer(f"{plan.nodes} workers ready, {place}", f"{ready_s:.1f} s, {size(memory)} in {processes} processes")
    return harness.document(
        "nodes",
        args["--quick"],
        begun,
        described,
        answers=[ready, *_answers(found)],
        tables=[_table(found, plan)],
        not_measured=NOT_MEASURED,
        results={name: asdict(each) for name, each in found.items()},
        plan=asdict(plan),
        **facts,
    )


if __name__ == "__main__":
    command.main(USAGE, measure)
