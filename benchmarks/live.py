"""Measure how soon a client hears what a running guest writes, and what it costs to listen."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command
import harness
import procs
import wasmtime
from harness import ROOT, Answer, Table
from local_cluster import LocalCluster
from report import micros

from minilambda import Client

USAGE = """Measure the time from a guest's write to the client's first byte, and what a follower costs.

Usage:
  live.py [--quick] [--json=<path>]
  live.py (-h | --help)

Options:
  --quick        Few samples, about ten seconds. Without it: about forty.
  --json=<path>  Write machine, figures and tables to this file.
  -h --help      Show this.

A guest reads a byte, takes the time from its host's clock and writes it. The client, on the same machine, compares it
with its own clock at the moment when it has the bytes. Pauses between the samples are drawn anew, so that the samples
come at any moment of the worker's rhythm.
"""

NOT_MEASURED = [
    "a network: all processes are on this machine, over its loopback interface",
    "a terminal: what it takes to show the bytes",
    "other jobs: the worker has nothing else to do",
]

LIMIT_MS = 50.0
PAUSES = (0.0, 0.03)  # between two samples, seconds
CLOCK = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\20\\00\\00\\00\\01\\00\\00\\00" "\\28\\00\\00\\00\\08\\00\\00\\00")
  (func (export "_start")
    (block $end (loop $more
      (br_if $end (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
      (br_if $end (i32.eqz (i32.load (i32.const 16))))
      (drop (call $time (i32.const 0) (i64.const 1) (i32.const 40)))
      (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
      (br $more)))))"""
"""Answers each byte with the time, eight bytes of nanoseconds."""


class Delays:
    """Samples of one way to listen."""

    def __init__(self) -> None:
        self.heard: list[float] = []  # from the guest's write to the bytes at hand, microseconds
        self.answered: list[float] = []  # from the byte that was sent to its answer, microseconds

    def take(self, count: int, ask: Callable[[], None], answer: Callable[[], bytes]) -> None:
        """Ask and hear so many times, after a few that do not count."""
        chance = random.Random(1)
        for number in range(count + 10):
            time.sleep(chance.uniform(*PAUSES))
            asked = time.time_ns()
            ask()
            data = answer()
            now = time.time_ns()
            if len(data) != 8:
                raise ValueError(f"The guest answered {data!r}.")
            if number >= 10:
                self.heard.append((now - int.from_bytes(data, "little")) / 1e3)
                self.answered.append((now - asked) / 1e3)


def by_python(client: Client, module: Path, count: int) -> Delays:
    """``Job.write`` and ``Job.output``."""
    job, found = client.submit(module, interactive=True, timeout=600), Delays()
    chunks = job.output()
    found.take(count, lambda: job.write(b"?"), lambda: next(chunks).data)
    job.close_stdin()
    job.result()
    return found


def by_command(address: str, module: Path, count: int) -> Delays:
    """``minilambda-client --interactive`` between two pipes."""
    line = [sys.executable, str(ROOT / "bin" / "minilambda-client"), "--server", address, "--interactive", str(module)]
    found = Delays()
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None and process.stdout is not None
        ask, answer = process.stdin, process.stdout
        found.take(count, lambda: bool(ask.write(b"?")) or None, lambda: answer.read(8) or b"")
        ask.close()
    return found


def cost(
    cluster: LocalCluster, client: Client, worker: str, module: Path, seconds: float
) -> dict[int, dict[str, float]]:
    """Processor time of agent and broker while a job is silent and so many follow it, microseconds in a second."""
    job = client.submit(module, interactive=True, timeout=600)
    job.write(b"?")
    next(job.output())
    found: dict[int, dict[str, float]] = {}
    pids = {"agent": cluster.pid(worker), "broker": cluster.pid("broker")}
    followers = []
    for count in (0, 1, 32):
        while len(followers) < count:
            chunks = job.output()
            next(chunks)
            followers.append(chunks)
        before = {name: procs.process_us(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        found[count] = {name: (procs.process_us(pid) - before[name]) / seconds for name, pid in pids.items()}
    for chunks in followers:
        chunks.close()
    job.cancel()
    return found


def measure(args: dict[str, Any]) -> dict[str, Any]:
    begun, described = time.monotonic(), harness.machine()
    count, seconds = (100, 1.0) if args["--quick"] else (500, 5.0)
    with tempfile.TemporaryDirectory(prefix="minilambda-bench-") as name:
        folder = Path(name)
        module = folder / "clock.wasm"
        module.write_bytes(wasmtime.wat2wasm(CLOCK))
        with LocalCluster(folder, 2) as cluster, Client(f"tcp://{cluster.address}") as client:
            worker = cluster.start_worker(client)
            with command.console.status("Job.output"):
                python = by_python(client, module, count)
            with command.console.status("minilambda-client --interactive"):
                shell = by_command(cluster.address, module, count)
            with command.console.status("what a follower costs"):
                costs = cost(cluster, client, worker, module, seconds)
    return harness.document(
        "live",
        args["--quick"],
        begun,
        described,
        answers=[_answer(python)],
        tables=[_delays({"`Job.output`": python, "`minilambda-client --interactive`": shell}), _costs(costs)],
        not_measured=NOT_MEASURED,
        results={
            "python": _result(python),
            "command": _result(shell),
            "cost_us_per_second": {str(number): each for number, each in costs.items()},
        },
    )


def _answer(found: Delays) -> Answer:
    late = harness.quantile(found.heard, 0.99) / 1e3
    figure = f"{micros(statistics.median(found.heard))}, p99 {micros(late * 1e3)}"
    return Answer("from a guest's write to the client's first byte, warm", figure, None, "< 50 ms", late < LIMIT_MS)


def _delays(ways: dict[str, Delays]) -> Table:
    rows = []
    for name, found in ways.items():
        for what, times in (("write → heard", found.heard), ("byte sent → answer heard", found.answered)):
            figures = (statistics.median(times), harness.quantile(times, 0.99), max(times))
            rows.append([name, what, *(micros(each) for each in figures)])
    return Table("From guest to client", ("by", "from → to", "median", "p99", "max"), rows, "", 2)


def _costs(costs: dict[int, dict[str, float]]) -> Table:
    rows = [[str(number), *(f"{each / 1e4:.2f}%" for each in found.values())] for number, found in costs.items()]
    note = "Processor time of the process while one job runs and writes nothing, as a share of one core."
    return Table("What it costs to listen", ("followers", "worker's agent", "broker"), rows, note)


def _result(found: Delays) -> dict[str, Any]:
    return {
        name: {"median": round(statistics.median(times), 1), "p99": round(harness.quantile(times, 0.99), 1)}
        for name, times in (("heard_us", found.heard), ("answered_us", found.answered))
    }


if __name__ == "__main__":
    command.main(USAGE, measure)
