"""Peers that take and never read, send and never end, or go away in the middle: others notice nothing of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from minilambda import Client
from tests.broker_peers import Net, Peer
from tests.cluster import ROOT, Cluster, Service, running_cluster, wait_for
from tests.integration.guests import CAT, slow_cat

MIB = 1024 * 1024
CAP = 600 * MIB  # of the broker's memory, as an operator sets it
OUTPUT = 512 * 1024  # bytes of the result that nobody reads


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    state = ("--state-dir", str(tmp_path / "state"))
    with running_cluster(tmp_path, ("--heartbeat", "0.4s", "--liveness", "2s", *state), [("--slots", "1")]) as made:
        yield made


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.connect() as connected:
        yield connected


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    made.close()


def resident(service: Service) -> int:
    """Bytes of a service's memory."""
    fields = Path(f"/proc/{service.process.pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_client_that_never_reads_costs_the_broker_a_bounded_amount_of_memory(
    cluster: Cluster, client: Client, net: Net
) -> None:
    # given a result, and a client that asks for it 2,000 times, a gigabyte in all
    kept = client.submit(CAT, stdin=bytes(OUTPUT))
    assert len(kept.result(20).stdout) == OUTPUT
    broker = cluster.service("broker")
    before = resident(broker)
    lazy = Peer(net, f"tcp://{cluster.address}", zmq.DEALER, RCVHWM=1)
    # when
    for number in range(2000):
        lazy.send("get_result", request=number, job=kept.id)
    most = 0
    for number in range(100):
        assert client.run(CAT, stdin=f"{number}").stdout == f"{number}".encode()  # others are served meanwhile
        most = max(most, resident(broker))
    # then: what is with libzmq (4 MiB), and what waits (32 MiB), with what the allocator wastes
    assert most - before < (4 + 32 + 28) * MIB
    assert "Traceback" not in broker.printed()


@pytest.mark.timeout(120)
def test_a_message_without_end_meets_the_cap_on_memory_and_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    # given a broker whose memory somebody has capped, with acknowledged jobs
    cluster = Cluster(tmp_path)
    options = ("--heartbeat", "0.4s", "--liveness", "2s", "--state-dir", str(tmp_path / "state"))
    try:
        broker = cluster.start_broker(*options)
        subprocess.run(["prlimit", f"--pid={broker.process.pid}", f"--as={CAP}"], check=True)
        with cluster.connect() as client:
            jobs = [client.submit(CAT, stdin=f"{number}") for number in range(20)]
            # when a stranger sends frame after frame of one message, until it is cut off
            with pytest.raises(ConnectionError):
                endless(cluster.address)
            # then the broker lives, as libzmq gives up the connection for which it finds no memory, or it died of it
            with contextlib.suppress(subprocess.TimeoutExpired):
                broker.process.wait(0.5)
                cluster.services.remove(broker)
                cluster.restart_broker(*options)
            cluster.start_worker("--slots", "1")
            assert [job.result(20).stdout for job in jobs] == [f"{number}".encode() for number in range(20)]
        cluster.stop()
    finally:
        cluster.kill()


def endless(address: str) -> None:
    """Send much more than the cap; raises ``ConnectionError`` when it is cut off.

    Bare ZMTP: libzmq itself sends no message before it has its end.
    """
    host, port = address.split(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31)
    ready = b"\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
    piece = b"\x03" + (128 * 1024).to_bytes(8, "big") + bytes(128 * 1024)  # a long frame, and more to come
    with socket.create_connection((host, int(port)), timeout=20) as stranger:
        stranger.sendall(greeting + b"\x04" + bytes([len(ready)]) + ready)
        for _ in range(8 * CAP // len(piece)):
            stranger.sendall(piece)


WAITING = """
import sys
from pathlib import Path
from minilambda import Client
with Client(sys.argv[1]) as client:
    client.run(Path(sys.argv[2]), stdin="kept", job_id="waited-for")
"""


def test_a_waiting_client_that_dies_leaves_a_job_that_ends_and_can_be_asked_for(
    cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    # given a client that waits for a job
    path = tmp_path / "cat.wasm"
    path.write_bytes(slow_cat(1000))
    env = {**cluster.env, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", WAITING, cluster.address, str(path)], env=env) as waiting:
        job = client.job("waited-for")
        wait_for(lambda: running(client, "waited-for"), "the job runs")
        # when
        waiting.send_signal(signal.SIGKILL)
        waiting.wait()
    # then
    result = job.result(20)
    assert (result.stdout, result.attempt) == (b"kept", 1)
    assert client.run(CAT, stdin="next").stdout == b"next"


def running(client: Client, job: str) -> bool:
    from minilambda.errors import NotFound

    try:
        return client.job(job).status().state == "running"
    except NotFound:
        return False


def test_a_result_that_the_client_has_stopped_reading_is_there_when_it_asks_again(
    cluster: Cluster, client: Client, net: Net
) -> None:
    # given a client that was sent a large result and went away in the middle of it
    kept = client.submit(CAT, stdin=bytes(3 * MIB))
    kept.result(20)
    leaver = Peer(net, f"tcp://{cluster.address}", zmq.DEALER, RCVHWM=1, RCVBUF=4096)
    leaver.send("get_result", request=1, job=kept.id)
    assert leaver.socket.poll(10_000)
    leaver.socket.close()
    # then
    assert len(kept.result(20).stdout) == 3 * MIB
