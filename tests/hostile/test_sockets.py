"""Strangers on the port of a real broker: connections that stall, crowds of them, and peers that lie."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import time
from pathlib import Path

import pytest

from minilambda.errors import MinilambdaError
from tests.broker_peers import Net, Peer
from tests.cluster import Cluster, wait_for
from tests.fuzz.broker import GREETING, READY, resident
from tests.integration.guests import CAT
from tests.integration.test_greedy_peers import endless

pytestmark = pytest.mark.timeout(120)

STALLED = 300  # connections that begin a handshake and do not go on
CROWD = 3_000  # that come and go, in waves
WAVE = 250
HANDSHAKE_S = 5.0  # after so long the broker gives up a handshake
SPARE = 8 * 2**20


def connect(cluster: Cluster) -> socket.socket:
    host, port = cluster.address.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def served(net: Net, address: str) -> bool:
    """Somebody who comes now gets an answer."""
    return Peer(net, address).ask("hello")["type"] == "welcome"


# --- connections that go nowhere ---------------------------------------------------------------------


def test_half_open_handshakes_are_given_up_and_keep_nobody_out(broker_alone: Cluster, net: Net, address: str) -> None:
    # given
    broker = broker_alone.service("broker")
    assert served(net, address)
    before = broker.descriptors()
    with contextlib.ExitStack() as stack:
        # when each stops at another place of the handshake, and none hangs up
        for number in range(STALLED):
            stranger = stack.enter_context(connect(broker_alone))
            stranger.sendall((GREETING + READY)[: number % (len(GREETING) + len(READY) - 1)])
        # then
        assert served(net, address)
        assert broker.descriptors() > before + STALLED // 2
        wait_for(lambda: broker.descriptors() <= before + 2, "the broker has hung up", 4 * HANDSHAKE_S)


def test_a_slow_loris_does_not_live_beyond_the_time_for_a_handshake(
    broker_alone: Cluster, net: Net, address: str
) -> None:
    with connect(broker_alone) as loris:
        end, sent = time.monotonic() + 4 * HANDSHAKE_S, 0
        loris.settimeout(0.05)
        while time.monotonic() < end:  # one byte at a time, of a greeting that is right
            try:
                if sent < len(GREETING) - 1:
                    loris.sendall(GREETING[sent : sent + 1])
                    sent += 1
                if sent % 10 == 0:
                    assert served(net, address)
                while loris.recv(1000):
                    pass
                break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            raise AssertionError("the broker still waits for the rest of the greeting")
    assert served(net, address)


def test_a_crowd_of_handshakes_is_served_and_forgotten(broker_alone: Cluster, net: Net, address: str) -> None:
    # given
    broker = broker_alone.service("broker")
    assert served(net, address)
    files, memory = broker.descriptors(), resident(broker)
    # when
    for _ in range(CROWD // WAVE):
        with contextlib.ExitStack() as stack:
            wave = [stack.enter_context(connect(broker_alone)) for _ in range(WAVE)]
            for stranger in wave:
                stranger.sendall(GREETING + READY)
            assert wave[-1].recv(1) == b"\xff"  # all the way: the broker greets the last one too
        assert served(net, address)
    # then
    served_since = CROWD // WAVE  # which are still connected
    wait_for(lambda: broker.descriptors() <= files + served_since + 2, "descriptors come back")
    assert resident(broker) - memory < 4 * SPARE


def test_connections_beyond_the_limit_on_files_keep_out_newcomers_only_for_as_long_as_they_last(tmp_path: Path) -> None:
    # given a broker that may have 200 files
    cluster, net = Cluster(tmp_path), Net()
    try:
        broker = cluster.start_broker("--ephemeral")
        address = f"tcp://{cluster.address}"
        old = Peer(net, address)
        assert old.ask("hello")["type"] == "welcome"
        resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, (200, 200))
        with contextlib.ExitStack() as stack:
            for _ in range(400):  # when
                stack.enter_context(connect(cluster))
            assert old.ask("hello")["type"] == "welcome"  # who is there is served
        wait_for(lambda: broker.descriptors() < 100, "descriptors come back")
        assert served(net, address)  # then
        assert broker.process.poll() is None
        net.close()
        cluster.stop()
    finally:
        net.close()
        cluster.kill()


# --- memory ------------------------------------------------------------------------------------------


def test_a_broker_at_its_limit_on_memory_refuses_or_ends_and_loses_nothing_that_was_acknowledged(
    tmp_path: Path,
) -> None:
    # given a broker with a limit far below what it lets clients queue
    cluster, options = Cluster(tmp_path), ("--state-dir", str(tmp_path / "state"), "--heartbeat", "0.4s")
    try:
        broker = cluster.start_broker("--memory-limit", "160M", *options)
        with cluster.connect() as client:
            # when a client queues more
            jobs, filler = [], bytes(8 << 20)
            with pytest.raises((MinilambdaError, TimeoutError)):
                for number in range(100):
                    jobs.append(client.submit(CAT, stdin=str(number).encode() + filler, timeout=60))
        assert resident(broker) < 200 << 20 or broker.process.poll() is not None
        # then the next one, whatever became of this one, has every job that was acknowledged
        broker.kill()
        cluster.services.remove(broker)
        cluster.restart_broker(*options)
        cluster.start_worker("--slots", "1", "--output-limit", "16M")
        with cluster.connect() as client:
            assert len(jobs) > 3
            for number, job in enumerate(jobs):
                stdout = client.job(job.id).result(40).stdout
                assert stdout == str(number).encode() + filler
        cluster.stop()
    finally:
        cluster.kill()


def test_a_broker_whose_memory_is_limited_works(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        cluster.start_broker("--memory-limit", "512M", "--ephemeral")
        cluster.start_worker()
        with cluster.connect() as client:
            assert client.run(CAT, stdin=b"in").stdout == b"in"
        limits = Path(f"/proc/{cluster.service('broker').process.pid}/limits").read_text()
        assert f"Max data size             {512 << 20}" in limits
        cluster.stop()
    finally:
        cluster.kill()


def test_a_message_without_end_meets_the_brokers_own_limit_on_memory(tmp_path: Path) -> None:
    # given a broker with acknowledged jobs
    cluster, options = Cluster(tmp_path), ("--state-dir", str(tmp_path / "state"), "--heartbeat", "0.4s")
    try:
        broker = cluster.start_broker("--memory-limit", "256M", *options)
        with cluster.connect() as client:
            jobs = [client.submit(CAT, stdin=str(number)) for number in range(5)]
            # when
            with pytest.raises(ConnectionError):
                endless(cluster.address)
            # then libzmq has given up the connection, or the broker with it; either way every job is there
            with contextlib.suppress(subprocess.TimeoutExpired):
                broker.process.wait(0.5)
                cluster.services.remove(broker)
                cluster.restart_broker(*options)
            cluster.start_worker("--slots", "1")
            assert [job.result(20).stdout for job in jobs] == [str(number).encode() for number in range(5)]
        cluster.stop()
    finally:
        cluster.kill()
