"""Measure what an idle slot, a queued job, a kept result and a job under way cost in memory."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import command
import harness
import procs
import zmq
from by_hand import HandClient, HandWorker
from harness import ROOT, Answer, Table
from lines import Lines
from local_cluster import LocalCluster, wait
from report import size

from minilambda import Client

USAGE = """Measure memory: of an idle slot, of a broker's queued jobs and kept results, of a client's jobs under way.

Usage:
  memory.py [--quick] [--json=<path>]
  memory.py (-h | --help)

Options:
  --quick        Few jobs, about half a minute. Without it: about two minutes.
  --json=<path>  Write machine, figures and tables to this file.
  -h --help      Show this.

All figures are private memory, which no other process shares: what would be free again without it. Those per job are
differences, divided by the jobs that came between, after some thousand jobs have filled what is filled only once.
"""

MODULE = ROOT / "examples" / "hello.wasm"
SLOTS = (2, 10)  # of two workers; what they differ by is what slots cost
FIRST = 4000  # jobs before the first look
BATCH = 50  # jobs under way at a time
NOT_MEASURED = [
    "memory that is shared: the interpreter and wasmtime, once for a machine",
    "guests: a job has its own memory, up to its limit, while it runs",
    "jobs with arguments, environment or stdin: they cost what they hold in addition",
    "the page cache, which holds artifacts and the journal and is free for others",
]


def idle(slots: int, folder: Path) -> dict[str, Any]:
    """Private bytes of each process of a worker that waits, and of its broker, by role; after a first job too."""
    with LocalCluster(folder, slots) as cluster, Client(f"tcp://{cluster.address}") as client:
        agent = cluster.pid(cluster.start_worker(client))
        found: dict[str, Any] = {"broker": procs.private_bytes(cluster.pid("broker"))}
        found |= _worker(agent)
        list(client.map(MODULE, [()] * 20 * slots))
        cluster.settle()
        found["runners after jobs"] = _worker(agent)["runner"]
    return found


def _worker(agent: int) -> dict[str, Any]:
    found: dict[str, Any] = {"agent": procs.private_bytes(agent), "runner": []}
    for pid in procs.family([agent]):
        name = procs.name(pid).removeprefix("ml-")
        if name == "runner":
            found["runner"].append(procs.private_bytes(pid))
        elif pid != agent:
            found[name] = found.get(name, 0) + procs.private_bytes(pid)
    return found


class Broker:
    """A broker with no worker but one by hand, so that nothing else is in its memory."""

    def __init__(self, folder: Path, durable: bool, jobs: int, stack: ExitStack) -> None:
        folder.mkdir()
        self._jobs = jobs
        self._context = zmq.Context()
        stack.callback(self._context.destroy, linger=0)
        limits = ("--max-queued", str(2 * (jobs + FIRST)))
        self._cluster = stack.enter_context(LocalCluster(folder, 2, durable=durable, broker_options=limits))
        self.address = self._cluster.address
        self._watch = stack.enter_context(Client(f"tcp://{self.address}"))
        self._hand = HandClient(self._context, f"tcp://{self.address}", MODULE.read_bytes())
        self._hand.upload()

    def per_queued(self, detach: bool) -> float:
        """Bytes per job that waits in the queue."""

        def more(count: int, before: int) -> None:
            for number in range(count):
                self._hand.send(detach)
                if detach and number >= BATCH:
                    self._hand.receive()
            for _ in range(min(BATCH, count) if detach else 0):
                self._hand.receive()
            wait(lambda: self._watch.cluster().queued == before + count, "all jobs are in the queue")

        return self._per_job(more)

    def per_result(self, detach: bool) -> float:
        """Bytes per job that has ended and whose result is kept."""
        worker = HandWorker(self._context, f"tcp://{self.address}", BATCH)

        def more(count: int, before: int) -> None:
            for _ in range(count // BATCH):
                for _ in range(BATCH):
                    self._hand.send(detach)
                for _ in range(BATCH):
                    worker.finish(worker.take())
                for _ in range(BATCH):
                    self._hand.receive()

        found = self._per_job(more)
        worker.close()
        return found

    def _per_job(self, more: Callable[[int, int], None]) -> float:
        """``more`` gets how many jobs to add, and how many there are."""
        more(FIRST, 0)
        self._cluster.settle()
        before = self._private()
        more(self._jobs, FIRST)
        self._cluster.settle()
        return (self._private() - before) / self._jobs

    def _private(self) -> int:
        return procs.private_bytes(self._cluster.pid("broker"))


def per_job_of_client(address: str, count: int, folder: Path) -> float:
    """Bytes of a client per job under way by ``Client.map``."""
    with Lines([sys.executable, str(Path(__file__).with_name("load.py")), address], folder / "load.log") as helper:
        pid = helper.pids()[0]
        with Client(f"tcp://{address}") as watch:

            def hold(jobs: int) -> int:
                queued = watch.cluster().queued
                helper.order(do="hold", module=str(MODULE), count=jobs)
                wait(lambda: watch.cluster().queued == queued + jobs, "all jobs are in the queue")
                return procs.private_bytes(pid)

            first = hold(FIRST)
            return (hold(count) - first) / count


def measure(args: dict[str, Any]) -> dict[str, Any]:
    begun, described = time.monotonic(), harness.machine()
    jobs = 20_000 if args["--quick"] else 200_000
    per_job: dict[str, float] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minilambda-bench-")))
        status = stack.enter_context(command.console.status("idle processes"))
        workers = {slots: idle(slots, folder) for slots in SLOTS}
        for name, durable, detach in (
            ("waiting client", False, False),
            ("detached, ephemeral", False, True),
            ("detached, durable", True, True),
        ):
            for what in ("queued", "result"):
                status.update(f"{what}: {name}")
                with ExitStack() as inner:
                    broker = Broker(folder / f"{what}, {name}", durable, jobs, inner)
                    count = broker.per_queued if what == "queued" else broker.per_result
                    per_job[f"{what}, {name}"] = count(detach)
        status.update("a client's jobs")
        with ExitStack() as inner:
            broker = Broker(folder / "client", False, jobs, inner)
            per_job["client"] = per_job_of_client(broker.address, jobs // 4, folder)
    return harness.document(
        "memory",
        args["--quick"],
        begun,
        described,
        answers=_answers(workers, per_job),
        tables=[_idle(workers), _per_job(per_job, jobs)],
        not_measured=NOT_MEASURED,
        results={"workers": {str(slots): found for slots, found in workers.items()}, "per_job": per_job},
    )


def _slot(workers: dict[int, Any]) -> float:
    """What one slot more costs all processes of a worker, bytes."""
    few, many = (workers[slots] for slots in SLOTS)
    total = [sum(sum(each) if isinstance(each, list) else each for each in _parts(found)) for found in (few, many)]
    return (total[1] - total[0]) / (SLOTS[1] - SLOTS[0])


def _parts(found: dict[str, Any]) -> list[Any]:
    return [each for name, each in found.items() if name not in ("broker", "runners after jobs")]


def _idle(workers: dict[int, Any]) -> Table:
    many = workers[SLOTS[1]]
    rows = [["broker", "no jobs", size(many["broker"])]]
    for name, each in many.items():
        if name == "runner":
            rows.append([name, "primed, before its first job", size(statistics.median(each))])
        elif name == "runners after jobs":
            rows.append(["runner", "after some jobs of hello", size(statistics.median(each))])
        elif name != "broker":
            meaning = {"agent": "one for a worker", "template": "one for a worker", "spare": "waits to compile"}
            rows.append([name, meaning.get(name, ""), size(each)])
    rows.append(
        ["one slot more", f"a worker of {SLOTS[1]} slots against one of {SLOTS[0]}, per slot", size(_slot(workers))]
    )
    return Table("Idle processes, private memory", ("process", "when", "memory"), rows, "", 2)


def _per_job(found: dict[str, float], jobs: int) -> Table:
    rows = [
        ["waits in the queue", name.partition(", ")[2], size(each)]
        for name, each in found.items()
        if name.startswith("queued")
    ]
    rows += [
        ["has ended, its result is kept", name.partition(", ")[2], size(each)]
        for name, each in found.items()
        if name.startswith("result")
    ]
    rows.append(["is under way, at the client", "`Client.map`", size(found["client"])])
    note = f"Of the broker, but for the last row. hello.wasm; the result is a line. Over {jobs:,} jobs."
    return Table("Memory per job", ("a job that", "sent", "memory"), rows, note, 2)


def _answers(workers: dict[int, Any], per_job: dict[str, float]) -> list[Answer]:
    runner = statistics.median(workers[SLOTS[1]]["runner"])
    slot = _slot(workers)
    queued = max(each for name, each in per_job.items() if name.startswith("queued"))
    figure = f"{size(runner)}; all that one slot more costs: {size(slot)}"
    return [
        Answer("an idle slot, private memory", figure, None, "≤ 4 MB", max(runner, slot) <= 4e6),
        Answer("a queued job in the broker, at most", size(queued), None, "≤ 1.5 kB", queued <= 1500),
    ]


if __name__ == "__main__":
    command.main(USAGE, measure)
