"""Measure where each microsecond of a warm round trip goes."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import command
import harness
from harness import Answer, Table
from hop_stages import MODULE, SLOTS, WARM_UP, Whole, bare_zmq, broker_alone, wake_up, worker_alone
from local_cluster import LocalCluster
from report import micros

from minilambda import Client

USAGE = """Measure where each microsecond of a warm round trip goes, hop by hop, from outside the product.

Usage:
  hops.py [--quick] [--json=<path>]
  hops.py (-h | --help)

Options:
  --quick        Few samples, about ten seconds. Without it: about a minute.
  --json=<path>  Write machine, figures and tables to this file.
  -h --help      Show this.

Wall time: one process at a time is real, between ends that speak the protocol by hand and cost next to nothing.
Processor time: of every thread of every process, from /proc, in a run where all are real.
`taskset -c 0 .venv/bin/python benchmarks/hops.py` puts everything on one core: then nothing overlaps and no idle core
must wake up.
"""

NOT_MEASURED = [
    "a network: all processes are on this machine, over its loopback interface",
    "contention: one job at a time, but in the column `pipelined`",
    "the work of the ends that speak by hand: some ten microseconds a message",
    "interrupts and what the kernel does on nobody's account",
]


def measure(args: dict[str, Any]) -> dict[str, Any]:
    begun, described = time.monotonic(), harness.machine()
    count = 1000 if args["--quick"] else 10_000
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minilambda-bench-")))
        status = stack.enter_context(command.console.status("a wake-up, bare ZeroMQ"))
        found: dict[str, Any] = {"wake": wake_up(count), "bare": bare_zmq(count, folder)}
        status.update("the broker alone")
        with LocalCluster(folder, SLOTS) as cluster:
            found["broker"] = broker_alone(count, cluster)
        status.update("the worker alone")
        found["worker"] = worker_alone(count, folder)
        status.update("everything real")
        with LocalCluster(folder, SLOTS) as cluster, Client(f"tcp://{cluster.address}") as client:
            whole = Whole(cluster, client, cluster.start_worker(client))
            for _ in range(WARM_UP):
                client.run(MODULE)
            found["by hand"] = whole.by_hand(count)
            found["whole"], found["cpu"] = whole.one_by_one(count)
            found["rate"], found["cpu pipelined"] = whole.pipelined(2 * count)
    return harness.document(
        "hops",
        args["--quick"],
        begun,
        described,
        answers=_answers(found),
        tables=[_hops(found), _cpu(found)],
        not_measured=NOT_MEASURED,
        results=_results(found),
    )


def _hops(found: dict[str, Any]) -> Table:
    there, back = _middle(found["broker"]["there"]), _middle(found["broker"]["back"])
    bare_there, bare_back = _middle(found["bare"]["there"]), _middle(found["bare"]["back"])
    worker, guest = _middle(found["worker"]["whole"]), _middle(found["worker"]["guest"])
    whole, by_hand = _middle(found["whole"]), _middle(found["by hand"])
    ways = (bare_there + bare_back) / 2  # between broker and worker, there and back
    inside = worker - ways - guest
    rows = [
        ["the client's library", "`Client.run` less a client that only sends", micros(whole - by_hand), ""],
        ["client → broker → worker", "the broker alone, both ends by hand", micros(there), micros(bare_there)],
        ["agent → runner → agent", "the worker alone, less its ZeroMQ and the guest", micros(inside), ""],
        ["the guest", "`usage.run_ms`: instantiation and run", micros(guest), ""],
        ["worker → broker → client", "the broker alone, both ends by hand", micros(back), micros(bare_back)],
        ["sum of these", "", micros(whole - by_hand + there + inside + guest + back), ""],
        ["measured in one piece", "`Client.run`, everything real", micros(whole), ""],
        ["a byte to a process and back", "pipes: two wake-ups, to compare", micros(_middle(found["wake"])), ""],
    ]
    note = (
        "Medians of wall time, one job at a time. bare ZeroMQ: the same way through a process that only passes "
        "messages on, which is what the transport costs in Python."
    )
    columns = ("hop", "how it is measured", "time", "bare ZeroMQ")
    return Table("Hop by hop, a warm hello", columns, rows, note, 2)


def _cpu(found: dict[str, Any]) -> Table:
    single, piped = found["cpu"], found["cpu pipelined"]
    rows = []
    for name, spent in sorted(single.items(), key=lambda item: -item[1]):
        if max(spent, piped.get(name, 0.0)) >= 0.5:
            rows.append([*name, micros(spent), micros(piped.get(name, 0.0))])
    rows.append(["all", "", micros(sum(single.values())), micros(sum(piped.values()))])
    note = (
        "Processor time per job. one by one: `Client.run` in a loop. "
        f"pipelined: `Client.map`, {found['rate']:,.0f} jobs a second."
    )
    return Table("Who works", ("process", "thread", "one by one", "pipelined"), rows, note, 2)


def _answers(found: dict[str, Any]) -> list[Answer]:
    single, piped = (sum(found[key].values()) for key in ("cpu", "cpu pipelined"))
    figure = f"{micros(single)} one by one, {micros(piped)} pipelined"
    return [Answer("processor time of a warm hello, all processes", figure)]


def _results(found: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"rate": round(found["rate"], 1)}
    for key, value in found.items():
        if key.startswith("cpu"):
            result[key] = [[*name, round(each, 2)] for name, each in value.items()]
        elif isinstance(value, dict):
            result[key] = {part: round(_middle(times), 2) for part, times in value.items()}
        elif isinstance(value, list):
            result[key] = {"median": round(_middle(value), 2), "p99": round(harness.quantile(value, 0.99), 2)}
    return result


def _middle(times: list[float]) -> float:
    return statistics.median(times)


if __name__ == "__main__":
    command.main(USAGE, measure)
