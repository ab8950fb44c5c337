"""Peers of a real broker made of bare pyzmq and msgpack: they share no code with it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from typing import Any

import msgpack
import zmq

VERSION = 1
WASM = b"\0asm any bytes"
DIGEST = "sha256:" + hashlib.sha256(WASM).hexdigest()
LARGE = bytes(range(256)) * 4096  # 1 MiB
FRAME = 256 * 1024
PATIENCE_MS = 10_000

Header = dict[str, Any]


def frames(kind: str, bodies: dict[str, bytes] | None = None, **fields: Any) -> list[bytes]:
    bodies = {name: data for name, data in (bodies or {}).items() if data}
    header = {"v": VERSION, "type": kind, **fields, "bodies": [(name, len(data)) for name, data in bodies.items()]}
    cut = [data[at : at + FRAME] for data in bodies.values() for at in range(0, len(data), FRAME)]
    return [msgpack.packb(header), *cut]


def parse(parts: list[bytes]) -> Header:
    """The header, its bodies in place."""
    header, rest = msgpack.unpackb(parts[0]), parts[1:]
    assert header.pop("v") == VERSION
    for name, size in header.pop("bodies", ()):
        if isinstance(size, bytes):
            header[name] = size
            continue
        data = b""
        while len(data) < size:
            data += rest.pop(0)
        assert len(data) == size
        header[name] = data
    assert rest == []
    return header


class Net:
    """The sockets of one test, all closed at its end."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._sockets: list[zmq.Socket] = []

    def socket(self, kind: int) -> zmq.Socket:
        made = self._context.socket(kind)
        made.setsockopt(zmq.LINGER, 0)
        self._sockets.append(made)
        return made

    def close(self) -> None:
        for made in self._sockets:
            made.close()
        self._context.term()


class Peer:
    """A socket with a deadline for every answer."""

    def __init__(self, net: Net, address: str, kind: int = zmq.REQ, **options: int) -> None:
        self.socket = net.socket(kind)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.delimiter = [] if kind == zmq.REQ else [b""]
        self.socket.connect(address)

    def send(self, kind: str, bodies: dict[str, bytes] | None = None, **fields: Any) -> None:
        self.socket.send_multipart([*self.delimiter, *frames(kind, bodies, **fields)])

    def hear(self, kind: str | None = None) -> Header:
        """The next message, or the next one of a kind."""
        while True:
            assert self.socket.poll(PATIENCE_MS), f"no {kind or 'answer'}"
            header = parse(self.socket.recv_multipart()[len(self.delimiter) :])
            if kind in (None, header["type"]):
                return header

    def ask(self, kind: str, bodies: dict[str, bytes] | None = None, **fields: Any) -> Header:
        self.send(kind, bodies, request=1, **fields)
        return self.hear()


class Worker(Peer):
    """A DEALER that registers and does as it is told."""

    def __init__(self, net: Net, address: str, name: str = "w", slots: int = 2, **fields: Any) -> None:
        super().__init__(net, address, zmq.DEALER)
        self.name, self.slots, self.seen = name, slots, 0
        self.register(**fields)

    def register(self, **fields: Any) -> None:
        self.send("register", worker=self.name, name=self.name, slots=self.slots, **fields)
        self.session, self.seen = self.hear("registered")["session"], 0

    def job(self) -> Header:
        dispatch = self.hear("dispatch")
        self.seen = dispatch["sequence"]
        return dispatch

    def done(self, dispatch: Header, bodies: dict[str, bytes] | None = None, queue: int = 0, **fields: Any) -> None:
        rest = {
            "session": self.session,
            "queue": queue,
            "seen": self.seen,
            "result": {"state": "completed", "exit_code": 0},
        }
        self.send("done", bodies, ref=dispatch["ref"], **(rest | fields))

    def report(self, queue: int = 0) -> None:
        self.send("report", session=self.session, queue=queue, seen=self.seen)


def run_fields(job: str, **spec: Any) -> Header:
    return {"job": job, "spec": {"module": DIGEST, **spec}}


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < end, what
        threading.Event().wait(0.01)
