"""The parts of ``hops.py`` that measure: one process real and the others by hand, then everything real."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import procs
import zmq
from by_hand import HandBroker, HandClient, HandWorker, Socket
from harness import ROOT
from lines import Lines
from local_cluster import LocalCluster, wait

from minilambda import Client

MODULE = ROOT / "examples" / "hello.wasm"
SLOTS = 2
WARM_UP = 200  # jobs before each measurement
Times = dict[str, list[float]]
Spent = dict[tuple[str, str], float]
"""Processor time per job by process and thread, microseconds."""


def bare_zmq(count: int, folder: Path) -> Times:
    """Both halves of a round trip through a process that only passes on, microseconds."""
    payload = bytes(200)
    with Lines([sys.executable, str(Path(__file__).with_name("bare_zmq.py"))], folder / "bare.log") as helper:
        context = zmq.Context()
        ends = [Socket(context, helper.ready["address"]) for _ in range(2)]
        helper.begin(do="forward", count=2 * (count + WARM_UP))
        for end in ends:
            end.zmq.send_multipart([b"", b"hello"])
        for end in ends:
            end.zmq.recv_multipart()
        client, worker = ends
        times = _halves(
            count,
            lambda: client.zmq.send_multipart([b"", payload]),
            worker.zmq.recv_multipart,
            lambda _: worker.zmq.send_multipart([b"", payload]),
            client.zmq.recv_multipart,
        )
        helper.answer()
        context.destroy(linger=0)
    return times


def broker_alone(count: int, cluster: LocalCluster) -> Times:
    """Both halves through a real broker, microseconds."""
    context = zmq.Context()
    client = HandClient(context, f"tcp://{cluster.address}", MODULE.read_bytes())
    worker = HandWorker(context, f"tcp://{cluster.address}", SLOTS)
    client.upload()
    times = _halves(count, client.send, worker.take, worker.finish, client.receive)
    worker.close()
    client.close()
    context.term()
    return times


def _halves(
    count: int, ask: Callable[[], Any], take: Callable[[], Any], give: Callable[[Any], Any], get: Callable[[], Any]
) -> Times:
    there, back = [], []
    for number in range(count + WARM_UP):
        begun = time.perf_counter()
        ask()
        job = take()
        middle = time.perf_counter()
        give(job)
        get()
        if number >= WARM_UP:
            there.append((middle - begun) * 1e6)
            back.append((time.perf_counter() - middle) * 1e6)
    return {"there": there, "back": back}


def worker_alone(count: int, folder: Path) -> Times:
    """From dispatch to done in a real worker, and the guest's part of it by its usage, microseconds."""
    context = zmq.Context()
    broker = HandBroker(context)
    module = MODULE.read_bytes()
    with LocalCluster(folder, SLOTS, with_broker=False) as cluster:
        name = cluster.spawn_worker(broker.address)
        broker.welcome()
        wait(lambda: cluster.ready(name), "the worker has its runners")
        cluster.settle()
        whole, guest = [], []
        for number in range(count + WARM_UP):
            begun = time.perf_counter()
            broker.dispatch(module, with_module=number == 0)
            done = broker.result()
            if number >= WARM_UP:
                whole.append((time.perf_counter() - begun) * 1e6)
                guest.append(done["result"]["usage"]["run_ms"] * 1e3)
            elif done["result"]["state"] != "completed":
                raise ValueError(f"the job ended as {done['result']}")
        broker.part()
    broker.close()
    context.term()
    return {"whole": whole, "guest": guest}


def wake_up(count: int) -> list[float]:
    """A byte to another process and back by pipes, microseconds: what it costs to wake a sleeper, twice."""
    there, back = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        while os.read(there[0], 1) == b".":
            os.write(back[1], b".")
        os._exit(0)
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        os.write(there[1], b".")
        os.read(back[0], 1)
        times.append((time.perf_counter() - begun) * 1e6)
    os.write(there[1], b"x")
    os.waitpid(child, 0)
    for end in (*there, *back):
        os.close(end)
    return times


class Whole:
    """Everything real: a client in this process, a broker, a worker."""

    def __init__(self, cluster: LocalCluster, client: Client, name: str) -> None:
        self._cluster = cluster
        self._client = client
        agent = cluster.pid(name)
        self._labels = {os.getpid(): "client", cluster.pid("broker"): "broker", agent: "worker's agent"}
        for pid in procs.family([agent]):
            self._labels.setdefault(pid, procs.name(pid).removeprefix("ml-"))

    def one_by_one(self, count: int) -> tuple[list[float], Spent]:
        """Round trips by ``Client.run``, microseconds, and processor time per job by process and thread."""
        times: list[float] = []

        def job() -> None:
            begun = time.perf_counter()
            self._client.run(MODULE)
            times.append((time.perf_counter() - begun) * 1e6)

        return times, self._spent(count, lambda: [job() for _ in range(count)])

    def by_hand(self, count: int) -> list[float]:
        """Round trips of a client that does nothing but send and receive, microseconds."""
        context = zmq.Context()
        client = HandClient(context, f"tcp://{self._cluster.address}", MODULE.read_bytes())
        times = []
        for _ in range(count):
            begun = time.perf_counter()
            client.send()
            client.receive()
            times.append((time.perf_counter() - begun) * 1e6)
        client.close()
        context.term()
        return times

    def pipelined(self, count: int) -> tuple[float, Spent]:
        """Jobs per second by ``Client.map``, and processor time per job."""
        begun = time.perf_counter()
        spent = self._spent(count, lambda: list(self._client.map(MODULE, [()] * count)))
        return count / (time.perf_counter() - begun), spent

    def _spent(self, count: int, work: Callable[[], Any]) -> Spent:
        before = {pid: procs.spent(pid) for pid in self._labels}
        work()
        found: Spent = {}
        for pid, label in self._labels.items():
            for key, now in procs.spent(pid).items():
                used = now - before[pid].get(key, 0.0)
                found[label, key[1]] = found.get((label, key[1]), 0.0) + used / count
        return found
