"""The kept inputs: one file a message, its frames one behind the other, each with its length in four bytes before it.

A file is here since it leads somewhere that no other one does, or since it once led to a fault. `make fuzz` adds to
them where it is told to keep what it finds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
MAX_KEPT = 2048
"""Largest file that is worth keeping, bytes."""


def pack(frames: Sequence[bytes]) -> bytes:
    """Frames as a file has them."""
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def unpack(data: bytes) -> list[bytes]:
    """The frames of a file. A torn one gives what is there: a fuzzer may hand in anything."""
    frames, at = [], 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        frames.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return frames


def load() -> list[list[bytes]]:
    """All kept inputs, in an order that is the same everywhere."""
    return [unpack(path.read_bytes()) for path in sorted(FOLDER.glob("*.bin"))]


def keep(frames: Sequence[bytes], kind: str) -> Path | None:
    """Keep an input under a name that begins with ``kind``; None where it is too large."""
    data = pack(frames)
    if len(data) > MAX_KEPT:
        return None
    path = FOLDER / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
    path.write_bytes(data)
    return path
