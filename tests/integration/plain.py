"""A client that knows nothing of minilambda but `docs/protocol.md`: pyzmq, msgpack, and the page."""

from __future__ import annotations

import hashlib
import itertools
import uuid
from typing import Any

import msgpack
import zmq

FRAME = 256 * 1024
VERSION = 1
PATIENCE_MS = 20_000
Header = dict[str, Any]


class Plain:
    """A client after the page: a REQ, or a DEALER that adds the empty frame by itself."""

    def __init__(self, context: zmq.Context[Any], address: str, kind: int = zmq.REQ, **options: int) -> None:
        self.socket = context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.MAXMSGSIZE, FRAME)
        self.socket.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(f"tcp://{address}")
        self.empty = [b""] if kind == zmq.DEALER else []
        self.numbers = itertools.count(1)

    def send(self, kind: str, bodies: dict[str, bytes] | None = None, **keys: Any) -> int:
        """Send a request and return its number."""
        number = keys.setdefault("request", next(self.numbers))
        present = {name: body for name, body in (bodies or {}).items() if body}
        header = {"v": VERSION, "type": kind, **keys}
        if present:
            header["bodies"] = [[name, len(body)] for name, body in present.items()]
        frames = [body[at : at + FRAME] for body in present.values() for at in range(0, len(body), FRAME)]
        self.socket.send_multipart([*self.empty, msgpack.packb(header), *frames])
        return int(number)

    def receive(self) -> tuple[Header, dict[str, bytes]]:
        """The next reply and its bodies."""
        frames = self.socket.recv_multipart()
        if self.empty:
            assert frames.pop(0) == b""
        header = msgpack.unpackb(frames[0])
        assert header.pop("v") == VERSION
        rest, bodies = b"".join(frames[1:]), {}
        for name, body in header.pop("bodies", []):
            if isinstance(body, bytes):
                bodies[name] = body
            else:
                bodies[name], rest = rest[:body], rest[body:]
        assert rest == b"" and all(0 < len(frame) <= FRAME for frame in frames[1:])
        return header, bodies

    def ask(self, kind: str, bodies: dict[str, bytes] | None = None, **keys: Any) -> tuple[Header, dict[str, bytes]]:
        """One request and its one reply, which must repeat the request's number and its job."""
        number = self.send(kind, bodies, **keys)
        header, found = self.receive()
        assert header.pop("request") == number
        if "job" in keys and header["type"] != "error":
            assert header.pop("job") == keys["job"]
        return header, found

    def refused(self, kind: str, bodies: dict[str, bytes] | None = None, **keys: Any) -> str:
        """The code of a request that must be refused."""
        header, found = self.ask(kind, bodies, **keys)
        assert header["type"] == "error" and header["message"].endswith(".") and not found, header
        return str(header["code"])


def new_job() -> str:
    return uuid.uuid4().hex


def digest(wasm: bytes) -> str:
    return "sha256:" + hashlib.sha256(wasm).hexdigest()


def spec(wasm: bytes, **keys: Any) -> dict[str, Any]:
    return {"module": digest(wasm), **keys}


def run(wasm: bytes, stdin: bytes = b"", **keys: Any) -> dict[str, Any]:
    """The keys and bodies of a ``run`` with the module along."""
    return {"bodies": {"wasm": wasm, "stdin": stdin}, "job": new_job(), "spec": spec(wasm, **keys)}
