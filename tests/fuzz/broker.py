"""A real broker over real sockets: messages of all kinds from many connections, and bytes that are no ZeroMQ at all."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import zmq

from tests.broker_peers import Net, Peer
from tests.cluster import Cluster, Service, wait_for
from tests.fuzz.decoder import SIDES
from tests.fuzz.mutation import Frames, Mutator
from tests.fuzz.pools import pools

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31)
READY = b"\x04\x26\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
IDENTITY = b"\x04\x35\x05READY\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER\x08Identity" + bytes(4)
STREAMS = (
    b"",
    GREETING,
    GREETING + READY,
    GREETING + IDENTITY,
    GREETING + READY + b"\x01\x00\x00\x05hello",  # an empty frame, and a header
    GREETING.replace(b"NULL", b"PLAIN") + READY,
    GREETING.replace(b"NULL", b"CURVE") + b"\x04\xc8\x05HELLO" + bytes(194),
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f",
    b"\x01\x00",  # as the first ZMTP began
)
GROWTH = 192 << 20  # of the broker's memory, at most, bytes
PEERS = 24
SPARE_FILES = 8  # what the broker may open in the course of its life


class Fuzzed:
    """A broker process with a crowd of connections."""

    def __init__(self, folder: Path, mutator: Mutator, *options: str) -> None:
        self.mutator = mutator
        mutator.pools.update(pools())
        self.cluster = Cluster(folder)
        self.broker = self.cluster.start_broker("--heartbeat", "0.4s", "--liveness", "2s", "--store", "64M", *options)
        self.net = Net()
        self.peers = [self._peer() for _ in range(PEERS)]
        self.past: list[Frames] = []
        self.healthy()
        self.before = resident(self.broker), self.broker.descriptors()

    def _peer(self) -> zmq.Socket:
        made = self.net.socket(self.mutator.random.choice((zmq.DEALER, zmq.DEALER, zmq.DEALER, zmq.REQ)))
        made.setsockopt(zmq.SNDTIMEO, 100)
        # libzmq aborts (session_base.cpp) where a connection is cut whose socket was closed without lingering.
        made.setsockopt(zmq.LINGER, 2000)
        if made.type == zmq.REQ:
            made.setsockopt(zmq.REQ_RELAXED, 1)
        made.connect(f"tcp://{self.cluster.address}")
        return made

    def step(self) -> None:
        draw = self.mutator.random.random()
        if draw < 0.9:
            self._say()
        elif draw < 0.97:
            self._stream()
        else:
            at = self.mutator.random.randrange(PEERS)
            self.peers[at].close()
            self.peers[at] = self._peer()

    def _say(self) -> None:
        mutator, peer = self.mutator, self.mutator.random.choice(self.peers)
        frames = mutator.message(mutator.random.choice(list(SIDES[0].values())))
        if mutator.random.random() < 0.2 and self.past:
            frames = mutator.random.choice(self.past)
        if mutator.random.random() < 0.5:
            frames = mutator.frames(frames, self.past[-20:])
        self.past = [*self.past[-200:], frames]
        envelope: Frames = (
            []
            if peer.type == zmq.REQ
            else [[b""], [b""], [b"id", b""], [], [b"x"] * 9][min(4, int(mutator.random.expovariate(1.0)))]
        )
        with contextlib.suppress(zmq.Again):
            peer.send_multipart([*envelope, *(frames or [b""])])
        with contextlib.suppress(zmq.ZMQError):  # sometimes it reads, and learns the session that it may lie about
            for _ in range(mutator.random.choice((0, 1, 5))):
                self._learn(peer.recv_multipart(zmq.NOBLOCK))

    def _learn(self, frames: Frames) -> None:
        import msgpack

        with contextlib.suppress(Exception):
            header = msgpack.unpackb(frames[-1 if len(frames) < 3 else 1])
            if type(header) is dict and "session" in header:
                self.mutator.pools["session"] = [*self.mutator.pools["session"][-6:], header["session"]]
            if type(header) is dict and "ref" in header:
                self.mutator.pools["ref"] = [*self.mutator.pools.get("ref", [])[-6:], header["ref"]]

    def _stream(self) -> None:
        """Bytes on a connection of their own, which ends in the middle of anything."""
        data = self.mutator.random.choice(STREAMS)
        for _ in range(self.mutator.random.choice((0, 1, 3))):
            data = self.mutator.bytes(data)
        host, port = self.cluster.address.split(":")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as stranger:
            stranger.sendall(data)

    def healthy(self) -> None:
        """Somebody who comes now is served."""
        net = Net()
        try:
            assert Peer(net, f"tcp://{self.cluster.address}").ask("hello")["type"] == "welcome"
        finally:
            net.close()
        assert "Traceback" not in self.broker.printed(), self.broker.printed()[-3000:]

    def end(self) -> None:
        """When all have left, the broker has given back what they took, and stops when it is told to."""
        self.net.close()
        self.healthy()
        wait_for(lambda: self.broker.descriptors() <= self.before[1] + SPARE_FILES, "descriptors come back")
        assert resident(self.broker) - self.before[0] < GROWTH
        self.cluster.stop()


def resident(service: Service) -> int:
    """Bytes of a service's memory."""
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def fuzzed(folder: Path, mutator: Mutator, *options: str) -> Iterator[Fuzzed]:
    made = Fuzzed(folder, mutator, *options)
    try:
        yield made
        made.end()
    finally:
        made.net.close()
        made.cluster.kill()


def fuzz(folder: Path, mutator: Mutator, steps: int, seconds: float, *options: str) -> int:
    """So many steps, or for so long; answers how many there were."""
    end, done = time.monotonic() + seconds, 0
    with fuzzed(folder, mutator, *options) as made:
        while done < steps and time.monotonic() < end:
            made.step()
            done += 1
            if done % 500 == 0:
                made.healthy()
    return done
