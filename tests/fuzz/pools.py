"""Values that mean something to a core, and what a core may say."""

from __future__ import annotations

from typing import Any

from minilambda import messages as m
from minilambda.fields import MAX_FRAME
from minilambda.wire import decode, encode
from tests.fuzz.decoder import SIDES
from tests.unit.worker_driver import digest_of, wasm_of

WASMS = [b"\0asm one", b"\0asm two", b"\0asm" + bytes(3000), wasm_of("large", 300_000)]
BODIES = [b"x", b"y" * 50, bytes(4096), bytes(4097), *WASMS]


def pools() -> dict[str, list[Any]]:
    """Values that mean something, by the name of the field."""
    bodies = dict.fromkeys(("wasm", "stdin", "values", "stdout", "stderr", "value", "data"), BODIES)
    digests = [digest_of(wasm) for wasm in WASMS]
    return {
        **bodies,
        "job": [f"j{number}" for number in range(6)],
        "of": [f"j{number}" for number in range(6)],
        "principal": ["local", "ann", "", "*"],
        "worker": ["w0", "w1", "worker-id"],
        "module": digests,
        "handle": [*digests, "j0/1/stdin/local", "j1/1/stdout/local", "j2/1/value/ann"],
        "session": [0, 1, 1001, 1002, 1003],
        "seen": [0, 1, 2, 3, 99],
        "queue": [0, 0, 1, 2, 3, 99],
        "slots": [1, 2, 4096],
        "sequence": [0, 1, 2, 3, 99],
        "request": list(range(1, 40)),
        "offset": [0, 4, 50, MAX_FRAME],
        "size": [0, 5, *map(len, WASMS), MAX_FRAME],
        "module_size": [0, *map(len, WASMS)],
        "total": [0, 5, *map(len, BODIES)],
        "withheld": [{}, {"stdout": 5}, {"stdout": 50, "value": 4096}, {"stdin": 50}, {"x": 1}, {"stdout": 2**40}],
        "state": ["completed", "failed", "running", "cancelled"],
        "heartbeat_ms": [0, 1, 1000],
        "liveness_ms": [0, 1, 5000],
        "result_keep_ms": [0, 1, 60_000],
        "retries": [0, 2, 100],
        "timeout_ms": [0, 1, 50],
        "queue_timeout_ms": [0, 1, 100],
        "memory_bytes": [0, 1, 2**20],
        "wait_ms": [0, 1, 1000],
        "invoke": [None, "f"],
        "follower": [0, 1, 2, 3],
        "credit": [0, 1, 5000, 2**48],
        "bytes": [0, 1, 5000, 2**48],
        "number": [0, 1, 2, 3],
        "received": [0, 1, 50],
    }


READABLE = {**SIDES[1], **SIDES[2]}


def legible(message: m.Message) -> None:
    """What a core says can be sent, and the other side takes it."""
    frames = [bytes(frame) for frame in encode(message)]
    assert max(map(len, frames)) <= MAX_FRAME, f"{message.TYPE} has a frame of {max(map(len, frames))} bytes"
    decode(frames, READABLE if message.TYPE in READABLE else SIDES[0], 1 << 30)
