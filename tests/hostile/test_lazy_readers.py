"""Crowds of clients that ask and never read: what they cost the broker all together, and what others notice of it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.broker_peers import WASM, Net, Peer, Worker, frames, run_fields
from tests.cluster import Cluster
from tests.fuzz.broker import GREETING, resident

pytestmark = pytest.mark.timeout(60)

MIB = 2**20
CROWD, TIMES = 16, 200
READY = b"\x04\x1c\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
BOUND = 96 * MIB  # of what such clients hold together, with what the allocator wastes


@pytest.fixture
def crowd(broker_alone: Cluster) -> Iterator[list[socket.socket]]:
    """Connections of clients that will not read a byte. Bare ZMTP: libzmq reads some messages ahead."""
    host, port = broker_alone.address.split(":")
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(CROWD)]
        for each in made:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.connect((host, int(port)))
            each.sendall(GREETING + READY)
        yield made


def question(number: int) -> bytes:
    """Asks for the result of ``job``."""
    (header,) = frames("get_result", request=number, job="job")
    return b"\x01\x00\x00" + bytes([len(header)]) + header


def finished(net: Net, address: str, size: int) -> None:
    """The job ``job`` has run, with so many bytes of output."""
    worker, client = Worker(net, address), Peer(net, address)
    client.send("run", {"wasm": WASM}, request=1, **run_fields("job"))
    worker.done(worker.job(), {"stdout": bytes(size)})
    assert client.hear("result")["job"] == "job"


def served(peer: Peer, times: int) -> None:
    """Somebody is answered so often: connections take turns, so each of the crowd has been heard as often."""
    for _ in range(times):
        assert peer.ask("hello")["type"] == "welcome"


def test_a_crowd_that_asks_for_results_and_never_reads_holds_a_bounded_amount(
    broker_alone: Cluster, crowd: list[socket.socket], net: Net, address: str
) -> None:
    # given a result
    finished(net, address, 60_000)
    broker, other = broker_alone.service("broker"), Peer(net, address)
    before = resident(broker)
    # when each asks for it again and again, for 180 MB in all
    for peer in crowd:
        peer.sendall(b"".join(map(question, range(TIMES))))
    served(other, TIMES)
    # then
    assert resident(broker) - before < BOUND
    assert len(other.ask("get_result", job="job")["stdout"]) == 60_000


def test_a_crowd_that_holds_all_the_room_gives_it_up_to_one_who_reads(
    broker_alone: Cluster, crowd: list[socket.socket], net: Net, address: str
) -> None:
    # given a crowd that has all the room there is for large answers, and keeps it
    finished(net, address, 6 * MIB)
    for peer in crowd:
        peer.sendall(b"".join(map(question, range(8))))
    other, end = Peer(net, address), time.monotonic() + 20
    served(other, 8)
    # when another one asks, as often as it is told to ask again later
    while (answer := other.ask("get_result", job="job"))["type"] == "error":
        assert answer["code"] == "busy" and answer["retry_after_ms"] and time.monotonic() < end, answer
        other.socket.poll(answer["retry_after_ms"])
    # then it gets the answer
    assert len(answer["stdout"]) == 6 * MIB
