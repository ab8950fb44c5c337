"""Processes die, stop and go on, peers talk nonsense: each job has one end, and every answer for it is the same."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from minilambda import Client
from minilambda.client.results import RunResult
from tests.cluster import Cluster, descendants, living, running_cluster, wait_for
from tests.integration.guests import LOOP, slow_cat, slow_to_compile

QUICK = ("--heartbeat", "0.4s", "--liveness", "1.5s")


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker that notices quickly that a worker is lost, and three workers of two slots."""
    with running_cluster(tmp_path_factory.mktemp("trio"), QUICK, [("--slots", "2")] * 3) as cluster:
        yield cluster


@pytest.fixture
def client(trio: Cluster) -> Iterator[Client]:
    with trio.connect() as connected:
        yield connected


def ledger_of(cluster: Cluster, count: int, ms: int = 20) -> tuple[list[RunResult], list[RunResult]]:
    """The first answers to ``count`` jobs, and what the broker says when each is asked after again."""
    with cluster.connect() as client:
        answers = list(client.map(slow_cat(ms), ({"stdin": f"{n}"} for n in range(count)), check=False))
        again = [client.job(answer.job_id).result(0, check=False) for answer in answers]
    return answers, again


def assert_balanced(answers: list[RunResult], again: list[RunResult]) -> None:
    """Every job completed, once, with its own output, and is told the same each time."""
    assert [answer.stdout for answer in answers] == [f"{n}".encode() for n in range(len(answers))]
    assert all(answer.state == "completed" for answer in answers)
    plain = [(a.job_id, a.state, a.stdout, a.worker, a.attempt, a.usage) for a in answers]
    assert plain == [(a.job_id, a.state, a.stdout, a.worker, a.attempt, a.usage) for a in again]


def meanwhile(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def done_jobs(client: Client) -> int:
    return sum(worker.done for worker in client.workers())


# --- workers ------------------------------------------------------------------------------------------------


def test_a_worker_killed_under_load_costs_no_job(trio: Cluster, client: Client) -> None:
    # given
    broker = trio.service("broker")
    ledger_of(trio, 3)
    before, files = done_jobs(client), broker.descriptors()
    load, ledger = meanwhile(lambda: ledger_of(trio, 400))
    wait_for(lambda: done_jobs(client) > before + 60, "the load is on")
    # when
    trio.lose(next(service for service in trio.services if service.name.startswith("worker")))
    # then
    load.join(40)
    answers, again = ledger[0]
    assert_balanced(answers, again)
    assert {answer.attempt for answer in answers} == {1, 2}
    # two slots and two prefetched, and those that were recalled from it for another worker meanwhile
    assert 0 < sum(answer.attempt == 2 for answer in answers) <= 12
    trio.start_worker("--slots", "2")
    trio.wait_workers(3)
    wait_for(lambda: broker.descriptors() <= files, "the broker has closed what it had for the dead")


def test_a_worker_that_was_frozen_comes_back_and_its_late_result_is_dropped(trio: Cluster, client: Client) -> None:
    # given a job that runs on a worker whose agent is frozen, and ends there meanwhile
    job = client.submit(slow_cat(700), stdin="zombie")
    wait_for(lambda: job.status().state == "running", "the job runs")
    frozen = trio.service(job.status().worker)
    frozen.signal(signal.SIGSTOP)
    try:
        # when
        wait_for(lambda: job.status().attempt == 2, "the job is given to another worker")
        result = job.result(20)
    finally:
        frozen.signal(signal.SIGCONT)
    # then
    assert (result.stdout, result.attempt) == (b"zombie", 2) and result.worker != frozen.name
    wait_for(lambda: frozen.name in [worker.name for worker in client.workers()], "it registers again")
    wait_for(lambda: not any(worker.queue for worker in client.workers()), "it holds nothing")
    assert job.result(0) == result
    assert_balanced(*ledger_of(trio, 60, 5))
    assert len(client.workers()) == 3


def test_a_busy_worker_is_never_taken_for_dead(trio: Cluster, client: Client) -> None:
    # when all slots and all cores are busy for longer than the liveness bound
    results = list(client.map(LOOP, [[]] * 6, timeout=2.5, check=False))
    # then
    assert [(result.error and result.error.code, result.attempt) for result in results] == [
        ("deadline_exceeded", 1)
    ] * 6
    assert len(client.workers()) == 3


@pytest.mark.parametrize("name", ["ml-template", "ml-runner", "ml-compiler"])
def test_a_killed_process_of_a_worker_is_replaced(trio: Cluster, client: Client, name: str) -> None:
    # given
    worker = next(service for service in trio.services if service.name.startswith("worker"))
    bombs = [client.submit(slow_to_compile(300 + n)) for n in range(3)] if name == "ml-compiler" else []
    (victim, *_) = wait_for(lambda: worker.pids(name), f"{name} runs")
    # when
    os.kill(victim, signal.SIGKILL)
    # then
    for bomb in bombs:
        bomb.cancel()
    wait_for(lambda: victim not in worker.pids(name), f"{name} is gone")
    wait_for(lambda: len(worker.pids("ml-runner")) == 2 and worker.pids("ml-template"), "the runners are there again")
    for bomb in bombs:
        assert bomb.result(20, check=False).error is not None
    assert_balanced(*ledger_of(trio, 30, 5))


def test_nothing_outlives_a_killed_worker(trio: Cluster, client: Client) -> None:
    # given a worker that runs a guest, and one that compiles
    spin = client.submit(LOOP, timeout=60)
    bomb = client.submit(slow_to_compile(310))
    workers = [service for service in trio.services if service.name.startswith("worker")]
    wait_for(lambda: any(worker.pids("ml-compiler") for worker in workers), "a compiler runs")
    compiling = next(worker for worker in workers if worker.pids("ml-compiler"))
    family = descendants(compiling.process.pid)
    # when
    trio.lose(compiling)
    # then
    assert not living(family)
    bomb.cancel()
    spin.cancel()
    for job in (bomb, spin):
        wait_for(lambda job=job: job.status().done, "the job has ended")
    trio.start_worker("--slots", "2")
    trio.wait_workers(3)


# --- the broker ---------------------------------------------------------------------------------------------


def test_a_frozen_broker_drains_its_sockets_before_it_declares_anyone_lost(trio: Cluster, client: Client) -> None:
    # given
    jobs = [client.submit(slow_cat(2500), stdin=f"{n}") for n in range(4)]
    for job in jobs:
        wait_for(lambda job=job: job.status().state == "running", f"{job} runs")
    broker = trio.service("broker")
    workers = [service for service in trio.services if service.name.startswith("worker")]
    # when it stands still until each worker has found it silent for the liveness bound, and has called again
    broker.signal(signal.SIGSTOP)
    for worker in workers:
        worker.wait_printed(re.compile("the broker is silent"))
    broker.signal(signal.SIGCONT)
    # then
    results = [job.result(20) for job in jobs]
    assert [(result.stdout, result.attempt) for result in results] == [(f"{n}".encode(), 1) for n in range(4)]
    assert len(client.workers()) == 3


# --- clients ------------------------------------------------------------------------------------------------


def test_a_result_waits_for_a_client_that_went_away(trio: Cluster, tmp_path: Path) -> None:
    # given
    path = tmp_path / "cat.wasm"
    path.write_bytes(slow_cat(300))
    # when one client submits and is gone
    detached = trio.client("--detach", "--stdin", "-", path, stdin=b"kept")
    job = detached.stdout.decode().strip()
    # then another fetches, as often as it likes
    assert detached.code == 0
    for _ in range(2):
        ended = trio.client("result", job)
        assert (ended.code, ended.stdout) == (0, b"kept")


def test_the_same_id_again_is_the_same_job(trio: Cluster, client: Client) -> None:
    first = client.run(slow_cat(50), stdin="once", job_id="the-same")
    with trio.connect() as other:
        assert other.run(slow_cat(50), stdin="once", job_id="the-same") == first


def test_one_job_does_not_wait_behind_the_many_of_another(trio: Cluster, client: Client) -> None:
    # given
    many = [client.submit(slow_cat(30), group="many") for _ in range(300)]
    before = done_jobs(client)
    # when
    client.run(slow_cat(30), group="one")
    # then it waits for the six slots and the two more jobs that each worker may hold, and not for the rest; the count
    # is taken a little later than the job ended, so it is allowed some more
    assert done_jobs(client) - before <= 5 * (6 + 6)
    assert not many[-1].status().done
    for job in many:
        job.result(30)


# --- nonsense -----------------------------------------------------------------------------------------------


def greeted(data: bytes) -> bytes:
    """Bytes behind a sound ZMTP 3.1 greeting."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16 + 1 + 31) + data


RAW = {
    "random bytes": os.urandom(4096),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "half a greeting": greeted(b"")[:20],
    "a broken handshake": greeted(b"\x04\x26\x05READY" + os.urandom(32)),
    "a huge frame": greeted(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03REQ" + b"\x02" + b"\x7f" * 8),
}

DEEP = b"\x91" * 200_000
FRAMES: dict[str, list[bytes]] = {
    "nothing": [b""],
    "no delimiter": [b"x", b"y"],
    "an empty header": [b"", b""],
    "deep msgpack": [b"", DEEP],
    "a map that claims to be huge": [b"", b"\xdf\xff\xff\xff\xff"],
    "a text that claims to be huge": [b"", b"\x81\xa4type\xdb\xff\xff\xff\xff"],
    "a header that is no map": [b"", msgpack.packb([1, 2])],
    "keys that are no texts": [b"", msgpack.packb({1: 2})],
    "another version": [b"", msgpack.packb({"v": 999, "type": "hello", "request": 1})],
    "another protocol": [b"", b"MDPC01", b"echo", b"x"],
    "bodies that are not there": [
        b"",
        msgpack.packb(
            {"v": 1, "type": "put", "request": 1, "module": "sha256:" + "0" * 64, "size": 9, "bodies": [["data", 9]]}
        ),
    ],
    "frames that nobody named": [b"", msgpack.packb({"v": 1, "type": "hello", "request": 1}), b"x", b"y"],
    "a thousand frames": [b"", *[b"x"] * 1000],
    "a worker's word out of the blue": [b"", msgpack.packb({"v": 1, "type": "goodbye", "session": 12345})],
}


def test_nonsense_on_the_brokers_port_disturbs_nobody(trio: Cluster, client: Client) -> None:
    # given
    broker = trio.service("broker")
    host, port = trio.address.split(":")
    load, ledger = meanwhile(lambda: ledger_of(trio, 150, 5))
    # when
    with contextlib.ExitStack() as sockets:
        for data in RAW.values():
            raw = sockets.enter_context(socket.create_connection((host, int(port))))
            with contextlib.suppress(ConnectionError):
                raw.sendall(data)
        context = sockets.enter_context(zmq.Context())
        dealer = sockets.enter_context(context.socket(zmq.DEALER))
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"tcp://{trio.address}")
        for frames in FRAMES.values():
            dealer.send_multipart(frames)
        # then all get an answer but the one without a delimiter
        codes = answers(dealer, len(FRAMES) - 1)
    load.join(40)
    assert_balanced(*ledger[0])
    assert codes.count("unsupported_version") == 1 and codes.count("register_again") == 1
    assert set(codes) == {"bad_request", "unsupported_version", "register_again"}
    assert broker.process.poll() is None and "Traceback" not in broker.printed()
    assert len(client.workers()) == 3


def answers(dealer: zmq.Socket[bytes], count: int) -> list[str]:
    """What the broker answers to so many messages: the code of a refusal, or the type."""
    dealer.setsockopt(zmq.RCVTIMEO, 10_000)
    found = []
    for _ in range(count):
        frames = dealer.recv_multipart()
        header = msgpack.unpackb(frames[1])
        found.append(header.get("code", header["type"]))
    return found


UNKNOWN = {
    "report": {"queue": 0, "seen": 0},
    "done": {"ref": ["local", "a", 1], "queue": 0, "seen": 0, "result": {"state": "completed"}},
    "returned": {"ref": ["local", "a", 1], "queue": 0, "seen": 0},
    "goodbye": {},
    "fetch": {"handle": "x", "offset": 0, "size": 1},
    "chunk": {"handle": "x", "offset": 0, "total": 0},
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_worker_that_the_broker_does_not_know_is_told_to_register_again(trio: Cluster, kind: str) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"tcp://{trio.address}")
        dealer.send_multipart([b"", msgpack.packb({"v": 1, "type": kind, "session": 7, **UNKNOWN[kind]})])
        assert answers(dealer, 1) == ["register_again"]
