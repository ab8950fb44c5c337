"""Measure jobs per second, and what bounds them."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command
import harness
import procs
import wasmtime
from harness import ROOT, Answer, Table
from lines import Lines
from local_cluster import LocalCluster
from report import micros, rate, size

from minilambda import Client

USAGE = """Measure jobs per second by number of clients, window and size of input and output, and what bounds them.

Usage:
  throughput.py [--quick] [--json=<path>]
  throughput.py (-h | --help)

Options:
  --quick        Few jobs, about half a minute. Without it: about three minutes.
  --json=<path>  Write machine, figures and tables to this file.
  -h --help      Show this.

A broker and a worker with two slots on this machine; each client is a process of its own. The jobs run
examples/hello.wasm, or modules that read, or write, 1 MB.
"""

HELLO = ROOT / "examples" / "hello.wasm"
SLOTS = 2
MEGABYTE = 1_000_000
READER = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\\10\\00\\00\\00\\00\\00\\01\\00")
  (func (export "_start")
    (loop $more
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $more (i32.load (i32.const 8))))))"""
WRITER = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 2)
  (data (i32.const 0) "\\10\\00\\00\\00\\50\\c3\\00\\00")
  (func (export "_start") (local $left i32)
    (local.set $left (i32.const 20))
    (loop $more
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"""
"""20 times 50,000 bytes."""

NOT_MEASURED = [
    "a network: all processes are on this machine, and share its cores; more cores or machines change what bounds",
    "more than one broker or worker, more than two slots",
    "long jobs: they hide every cost of the way",
    "other outputs than 19 bytes and 1 MB",
]


@dataclass(frozen=True)
class Case:
    """One row: who sends what, and how."""

    way: str  # an order of ``load.py``
    clients: int
    window: int  # jobs under way at a time, of each client
    module: str = "hello"
    stdin: int = 0  # bytes
    durable: bool = False  # the broker has a state directory

    @property
    def title(self) -> str:
        return self.way.replace("_", " ") + (", durable" if self.durable else "")

    def count(self, quick: bool) -> int:
        """Jobs of each client."""
        jobs = 100 if self.module != "hello" else 1500
        return max(20, (jobs if quick else 6 * jobs) // self.clients)


EPHEMERAL = (
    Case("one_by_one", 1, 1),
    Case("one_by_one", 4, 1),
    *(Case("pipelined", 1, window) for window in (2, 8, 64, 512)),
    *(Case("pipelined", 4, window) for window in (8, 64)),
    Case("detached", 1, 64),
    Case("detached", 4, 64),
    Case("pipelined", 1, 8, "reader", MEGABYTE),
    Case("pipelined", 1, 8, "writer"),
)
DURABLE = (
    Case("pipelined", 1, 64, durable=True),
    Case("detached", 1, 1, durable=True),
    Case("detached", 1, 64, durable=True),
    Case("detached", 4, 64, durable=True),
)


@dataclass
class Row:
    """What was measured of one case."""

    case: Case
    rates: list[float]  # jobs per second of all clients together, one for each round
    cpu: dict[tuple[str, str], float]  # microseconds per job, by process and thread, of the last round
    busiest: tuple[str, str]  # process and thread
    share: float  # of one core that the busiest thread had, 0 to 1
    cores: float  # that all of it had, of the cores of this machine

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


class Rig:
    """A broker, a worker and clients."""

    def __init__(self, folder: Path, durable: bool, modules: dict[str, Path], stack: ExitStack) -> None:
        folder.mkdir()
        self._folder = folder
        self._modules = modules
        self._stack = stack
        self._clients: list[Lines] = []
        self._cluster = stack.enter_context(LocalCluster(folder, SLOTS, durable=durable))
        with Client(f"tcp://{self._cluster.address}") as client:
            name = self._cluster.start_worker(client)
            for path in modules.values():
                for _ in range(20):
                    client.run(path)
        agent = self._cluster.pid(name)
        self._labels = {self._cluster.pid("broker"): "broker", agent: "agent"}
        for pid in procs.family([agent]):
            self._labels.setdefault(pid, procs.name(pid).removeprefix("ml-"))

    def measure(self, case: Case, quick: bool, repeat: int) -> Row:
        clients = self._some(case.clients)
        rates: list[float] = []
        for _ in range(repeat):
            self._cluster.settle()
            labels = {**self._labels, **{pid: "client" for each in clients for pid in each.pids()}}
            before = {pid: procs.spent(pid) for pid in labels}
            begun = time.perf_counter()
            for each in clients:
                each.begin(**self._order(case, quick))
            for each in clients:
                each.answer()
            took = time.perf_counter() - begun
            jobs = case.count(quick) * case.clients
            rates.append(jobs / took)
        return _row(case, rates, labels, before, took, jobs)

    def _order(self, case: Case, quick: bool) -> dict[str, Any]:
        order: dict[str, Any] = {"do": case.way, "module": str(self._modules[case.module]), "count": case.count(quick)}
        if case.way != "one_by_one":
            order["window"] = case.window
        if case.way != "detached":
            order |= {"stdin": case.stdin, "expected": {"hello": 19, "reader": 0, "writer": MEGABYTE}[case.module]}
        return order

    def _some(self, count: int) -> list[Lines]:
        script = str(Path(__file__).with_name("load.py"))
        while len(self._clients) < count:
            log = self._folder / f"client-{len(self._clients)}.log"
            command_ = [sys.executable, script, self._cluster.address]
            self._clients.append(self._stack.enter_context(Lines(command_, log)))
        return self._clients[:count]


def _row(case: Case, rates: list[float], labels: dict[int, str], before: Any, took: float, jobs: int) -> Row:
    cpu: dict[tuple[str, str], float] = {}
    single: dict[tuple[str, str], float] = {}  # the busiest one thread of each role
    for pid, label in labels.items():
        for key, now in procs.spent(pid).items():
            used = now - before[pid].get(key, 0.0)
            role = (label, key[1])
            cpu[role] = cpu.get(role, 0.0) + used / jobs
            single[role] = max(single.get(role, 0.0), used)
    busiest = max(single, key=lambda role: single[role])
    return Row(case, rates, cpu, busiest, single[busiest] / took / 1e6, sum(cpu.values()) * jobs / took / 1e6)


def measure(args: dict[str, Any]) -> dict[str, Any]:
    begun, described = time.monotonic(), harness.machine()
    quick = args["--quick"]
    rows: list[Row] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minilambda-bench-")))
        status = stack.enter_context(command.console.status("starting"))
        modules = {"hello": HELLO}
        for name, text in (("reader", READER), ("writer", WRITER)):
            modules[name] = folder / f"{name}.wasm"
            modules[name].write_bytes(wasmtime.wat2wasm(text))
        for durable, cases in ((False, EPHEMERAL), (True, DURABLE)):
            with ExitStack() as inner:
                rig = Rig(folder / ("durable" if durable else "ephemeral"), durable, modules, inner)
                for case in cases:
                    status.update(f"{case.title}, {case.clients} clients, window {case.window}, {case.module}")
                    rows.append(rig.measure(case, quick, 1 if quick else 3))
    return harness.document(
        "throughput",
        quick,
        begun,
        described,
        answers=_answers(rows),
        tables=[_rates(rows), _spent(rows)],
        not_measured=NOT_MEASURED,
        results=[_result(row) for row in rows],
    )


def _rates(rows: Sequence[Row]) -> Table:
    columns = (
        "jobs are sent",
        "job",
        "clients",
        "window",
        "throughput",
        "busiest thread",
        "its core",
        "cores",
        "CPU/job",
    )
    cells = []
    for row in rows:
        case = row.case
        job = {"hello": "hello", "reader": f"{size(MEGABYTE)} of stdin", "writer": f"{size(MEGABYTE)} of stdout"}
        cells.append(
            [
                case.title,
                job[case.module],
                str(case.clients),
                str(case.window),
                rate(row.rate),
                " ".join(row.busiest),
                f"{100 * row.share:.0f} %",
                f"{row.cores:.1f}",
                micros(sum(row.cpu.values())),
            ]
        )
    note = (
        "window: jobs under way of each client. durable: the broker has a state directory. detached: accepted "
        "(durable: once it is on the disk), run, and the result fetched, by one connection that pipelines. busiest "
        "thread, its core: what it is nearest to being bound by. cores: what all processes had of the "
        f"{os.cpu_count()} cores; where that is all of them, the machine is the bound, and the processor time per job "
        "says how far."
    )
    return Table("Jobs per second, two slots", columns, cells, note, 2)


def _spent(rows: Sequence[Row]) -> Table:
    """Processor time by thread in the case of most interest of each kind."""
    chosen = [row for row in rows if row.case.window == 64 or row.case.module != "hello"]
    names = sorted({key for row in chosen for key, used in row.cpu.items() if used >= 2.0})
    titles = [f"{row.case.title}, {row.case.clients} ×, {row.case.module}" for row in chosen]
    cells = [[" ".join(name), *(micros(row.cpu.get(name, 0.0)) for row in chosen)] for name in names]
    columns = ["thread", *(str(number) for number in range(1, len(chosen) + 1))]
    note = "Processor time per job. " + "; ".join(f"{number}: {title}" for number, title in enumerate(titles, 1)) + "."
    return Table("What each thread spends on a job", columns, cells, note)


def _answers(rows: Sequence[Row]) -> list[Answer]:
    best = max((row for row in rows if row.case.module == "hello"), key=lambda row: row.rate)
    durable = max((row for row in rows if row.case.durable and row.case.way == "detached"), key=lambda row: row.rate)
    return [
        Answer(
            "most jobs per second, hello, two slots",
            f"{rate(best.rate)}: {best.case.title}, {best.case.clients} clients, window {best.case.window}",
        ),
        Answer("most detached jobs per second, each on the disk first", rate(durable.rate)),
    ]


def _result(row: Row) -> dict[str, Any]:
    return {
        "case": vars(row.case) | {"title": row.case.title},
        "rates": [round(each, 1) for each in row.rates],
        "busiest": [*row.busiest, round(row.share, 3)],
        "cores": round(row.cores, 3),
        "cpu_us": [[*key, round(used, 2)] for key, used in row.cpu.items()],
    }


if __name__ == "__main__":
    command.main(USAGE, measure)
