"""Compare the ways in which a Python program can have many jobs under way."""

from __future__ import annotations

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
from lines import Lines
from local_cluster import LocalCluster
from report import micros, rate, size

from minilambda import Client

USAGE = """Compare Client.map, AsyncClient and Executor: jobs per second, processor time, memory.

Usage:
  clients.py [--quick] [--json=<path>]
  clients.py (-h | --help)

Options:
  --quick        One round. Without it: five, each way once in each, about three minutes.
  --json=<path>  Write machine, figures and tables to this file.
  -h --help      Show this.

A broker and a worker with two slots on this machine; each client is a process of its own, new for each figure. The
jobs run examples/hello.wasm.
"""

HELLO = ROOT / "examples" / "hello.wasm"
SLOTS = 2
MANY = 20_000

WAYS = {
    "client_map": "Client.map",
    "async_map": "AsyncClient.map",
    "async_tasks": "AsyncClient.run, a task for each",
    "executor_map": "Executor.map",
    "executor_submit": "Executor.submit, as_completed",
}

NOT_MEASURED = [
    "a network, and a machine of its own for the client: here all processes share the cores",
    "large inputs and outputs: the way through the client's own code is the same",
]


@dataclass
class Row:
    """One way with one number of jobs at a time."""

    way: str
    window: int  # jobs under way at a time
    rates: list[float] = field(default_factory=list)  # jobs per second, one a round
    cpu_us: list[float] = field(default_factory=list)  # processor time of the client's process per job, one a round
    grown: list[float] = field(default_factory=list)  # memory that the jobs took at their most, bytes, one a round

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def measure(args: dict[str, Any]) -> dict[str, Any]:
    begun, described = time.monotonic(), harness.machine()
    quick = args["--quick"]
    rows = [Row(way, window) for window in (64, MANY) for way in WAYS]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minilambda-bench-")))
        status = stack.enter_context(command.console.status("starting"))
        cluster = stack.enter_context(LocalCluster(folder, SLOTS))
        with Client(cluster.address) as client:
            cluster.start_worker(client)
            client.run(HELLO)
        for number in range(1 if quick else 5):
            for row in rows:
                status.update(f"round {number + 1}: {WAYS[row.way]}, {row.window} at a time")
                _measure(row, cluster, folder, MANY if row.window == MANY else 4_000 if quick else MANY)
    return harness.document(
        "clients",
        quick,
        begun,
        described,
        answers=_answers(rows),
        tables=[_table(rows)],
        not_measured=NOT_MEASURED,
        results=[vars(row) for row in rows],
    )


def _measure(row: Row, cluster: LocalCluster, folder: Path, count: int) -> None:
    line = [sys.executable, str(Path(__file__).with_name("clients_load.py")), cluster.address]
    with Lines(line, folder / "client.log") as helper:
        cluster.settle()
        before = sum(procs.process_us(pid) for pid in helper.pids())
        found = helper.order(do="measure", way=row.way, module=str(HELLO), count=count, window=row.window)
        row.cpu_us.append((sum(procs.process_us(pid) for pid in helper.pids()) - before) / count)
    row.rates.append(count / found["seconds"])
    row.grown.append(found["bytes"])


def _answers(rows: Sequence[Row]) -> list[Answer]:
    by = {(row.way, row.window): row for row in rows}
    answers = []
    for way, window in (("async_tasks", 64), ("async_tasks", MANY), ("executor_map", 64), ("executor_submit", MANY)):
        row, base = by[way, window], by["client_map", window]
        figure = f"{rate(row.rate)} to {rate(base.rate)}"
        answers.append(
            harness.at_least(f"{WAYS[way]} over Client.map, {window} at a time", figure, row.rate / base.rate, 0.8)
        )
    return answers


def _table(rows: Sequence[Row]) -> Table:
    columns = ("jobs are sent by", "at a time", "throughput", "client's CPU/job", "memory", "memory/job")
    cells = []
    for row in rows:
        grown = statistics.median(row.grown)
        each = size(grown / row.window) if row.window == MANY else ""
        cpu = micros(statistics.median(row.cpu_us))
        cells.append([WAYS[row.way], str(row.window), rate(row.rate), cpu, size(grown), each])
    note = (
        "Medians over the rounds. CPU: processor time of the client's process, all threads, with the start of the "
        f"client. memory: what its process grew by at the most. With {MANY} at a time, all {MANY} jobs are under way."
    )
    return Table("Many jobs from one Python program, two slots", columns, cells, note)


if __name__ == "__main__":
    command.main(USAGE, measure)
