"""A client, a worker and a broker that speak the protocol by hand: msgpack and ZeroMQ, and next to no work of theirs.

They stand in for the real ones at the ends, so that one real process can be measured alone. They check as little as
they can and are no model for a client; see ``docs/protocol.md`` for that.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from typing import Any

import msgpack
import zmq

FRAME = 256 * 1024  # bytes; longer bodies travel in several frames
OUTPUT = b"Hello, WebAssembly\n"
USAGE = {"load_ms": 0.1, "run_ms": 0.1, "cpu_ms": 0.1, "peak_memory_bytes": 65_536}
RESULT = {"state": "completed", "exit_code": 0, "usage": USAGE, "tier": "warm"}
PATIENCE_MS = 20_000


class Silence(Exception):
    """No message came for a long time."""


def digest(module: bytes) -> str:
    """How the protocol names a module."""
    return "sha256:" + hashlib.sha256(module).hexdigest()


class Socket:
    """A DEALER that adds and strips the empty frame."""

    def __init__(self, context: zmq.Context[Any], address: str) -> None:
        self.zmq = context.socket(zmq.DEALER)
        self.zmq.setsockopt(zmq.LINGER, 0)
        self.zmq.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        self.zmq.connect(address)

    def send(self, header: dict[str, Any], *bodies: bytes) -> None:
        """Send one message; ``bodies`` are those that do not stand in the header."""
        frames = [body[at : at + FRAME] for body in bodies for at in range(0, len(body), FRAME)]
        self.zmq.send_multipart([b"", msgpack.packb(header), *frames], copy=True)

    def receive(self) -> dict[str, Any]:
        """The header of the next message. Raises ``Silence``."""
        try:
            frames = self.zmq.recv_multipart()
        except zmq.Again:
            raise Silence(f"nothing came for {PATIENCE_MS / 1000:g} s") from None
        header: dict[str, Any] = msgpack.unpackb(frames[1])
        return header

    def close(self) -> None:
        self.zmq.close()


class HandClient:
    """Sends ``run`` requests of one module."""

    def __init__(self, context: zmq.Context[Any], address: str, module: bytes, stdin: bytes = b"") -> None:
        self._socket = Socket(context, address)
        self._module = module
        self._stdin = stdin
        self._spec = {"module": digest(module)}
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    def upload(self) -> None:
        """Give the broker the module."""
        self._ask({"type": "put", "module": self._spec["module"], "size": len(self._module)}, self._module)

    def send(self, detach: bool = False) -> str:
        """Send one job and return its id; the reply is for ``receive``."""
        number = next(self._numbers)
        job = f"{self._prefix}-{number}"
        header = {"v": 1, "type": "run", "request": number, "job": job, "spec": self._spec}
        if detach:
            header["detach"] = True
        if self._stdin:
            header["bodies"] = [["stdin", len(self._stdin)]]
        self._socket.send(header, self._stdin)
        return job

    def fetch(self, job: str) -> None:
        """Ask for a result, waiting for it; the reply is for ``receive``."""
        number = next(self._numbers)
        self._socket.send({"v": 1, "type": "get_result", "request": number, "job": job, "wait_ms": 30_000})

    def receive(self) -> dict[str, Any]:
        """The next reply. Raises ``ValueError`` for a refusal."""
        header = self._socket.receive()
        if header["type"] == "error":
            raise ValueError(f"{header['code']}: {header['message']}")
        return header

    def close(self) -> None:
        self._socket.close()

    def _ask(self, header: dict[str, Any], body: bytes) -> None:
        self._socket.send({"v": 1, "request": next(self._numbers), "bodies": [["data", len(body)]], **header}, body)
        self.receive()


class HandWorker:
    """Registers and answers dispatches with a result of its own making."""

    def __init__(self, context: zmq.Context[Any], address: str, slots: int) -> None:
        self._socket = Socket(context, address)
        self._worker = os.urandom(8).hex()
        self._seen = 0
        self._said = time.monotonic()  # when the broker heard from it
        self._socket.send(
            {"v": 1, "type": "register", "worker": self._worker, "name": "by-hand", "slots": slots, "version": "0"}
        )
        self._session = self._next("registered")["session"]

    def take(self) -> dict[str, Any]:
        """Wait for the next dispatch."""
        dispatch = self._next("dispatch")
        self._seen = dispatch["sequence"]
        return dispatch

    def finish(self, dispatch: dict[str, Any]) -> None:
        """Say that a dispatched job has ended."""
        self._said = time.monotonic()
        self._socket.send(
            {
                "v": 1,
                "type": "done",
                "session": self._session,
                "ref": dispatch["ref"],
                "queue": 0,
                "seen": self._seen,
                "result": RESULT,
                "bodies": [["stdout", OUTPUT]],
            }
        )

    def beat(self) -> None:
        """A sign of life, where there has been none for a while."""
        if time.monotonic() - self._said > 0.5:
            self._said = time.monotonic()
            self._socket.send({"v": 1, "type": "report", "session": self._session, "queue": 0, "seen": self._seen})

    def close(self) -> None:
        self._socket.send({"v": 1, "type": "goodbye", "session": self._session})
        self._socket.close()

    def _next(self, wanted: str) -> dict[str, Any]:
        while (header := self._socket.receive())["type"] != wanted:
            pass
        return header


class HandBroker:
    """Takes one worker and gives it jobs."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self._router = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        self._port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self._route = b""
        self._sequence = 0
        self._settled: list[Any] = []  # the last job, to be forgotten by the worker
        self.address = f"127.0.0.1:{self._port}"

    def welcome(self) -> None:
        """Wait until the worker has registered."""
        while (header := self._receive())["type"] != "register":
            pass
        intervals = {"heartbeat_ms": 1000, "liveness_ms": 60_000, "result_keep_ms": 60_000}
        self._send({"type": "registered", "worker": header["worker"], "session": 1, **intervals})

    def dispatch(self, module: bytes, stdin: bytes = b"", with_module: bool = False) -> None:
        """Give the worker a job."""
        self._sequence += 1
        ref = ["local", f"j{self._sequence}", 1]
        bodies = [["wasm", len(module)]] if with_module else []
        header: dict[str, Any] = {"type": "dispatch", "session": 1, "sequence": self._sequence, "ref": ref}
        header |= {"spec": {"module": digest(module)}, "module_size": len(module)}
        if self._settled:
            header["settled"] = self._settled
        if bodies:
            header["bodies"] = bodies
        self._send(header, module if with_module else b"")
        self._settled = [ref]

    def result(self) -> dict[str, Any]:
        """Wait for the job's end; reports are answered meanwhile."""
        while (header := self._receive())["type"] != "done":
            if header["type"] == "report":
                self._send({"type": "beat", "session": 1})
        return header

    def part(self) -> None:
        """Let the worker forget its last result, so that it need not wait when it is told to end."""
        for ref in self._settled:
            self._send({"type": "acknowledge", "session": 1, "ref": ref})

    def close(self) -> None:
        self._router.close()

    def _send(self, header: dict[str, Any], body: bytes = b"") -> None:
        frames = [body[at : at + FRAME] for at in range(0, len(body), FRAME)]
        self._router.send_multipart([self._route, b"", msgpack.packb({"v": 1, **header}), *frames])

    def _receive(self) -> dict[str, Any]:
        try:
            frames = self._router.recv_multipart()
        except zmq.Again:
            raise Silence(f"nothing came for {PATIENCE_MS / 1000:g} s") from None
        self._route = frames[0]
        header: dict[str, Any] = msgpack.unpackb(frames[2])
        return header
