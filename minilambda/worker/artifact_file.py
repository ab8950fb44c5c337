"""The file of one artifact on disk: the artifact as it is, so that a runner can map it, and a trailer.

The trailer binds the artifact to its module, to the engine's fingerprint and to its own bytes.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from zlib import crc32

WHOLE = 4 << 20
"""An artifact up to this size is checked wholly before it is used, bytes."""

MAGIC = b"MLCACHE2"
"""Names the format. Part of the engine's fingerprint: files of another format are in another directory."""

# magic, size, component, hash of all, checksum of all, hash of the sample, hash of these
_TRAILER = struct.Struct("<8sQ?32sI32s16s")
_CHECK = 16  # bytes of the last hash
_CHUNK = 1 << 20  # bytes per read and write
_PIECE = 64 << 10  # the same for a small artifact: the memory is at hand, and need not come from the kernel
_SAMPLES = 64  # pieces of a larger artifact that are checked before it is used
_SAMPLE = 4096  # bytes of each piece

OVERHEAD = _TRAILER.size
"""What a file is larger than its artifact, bytes."""


@dataclass(frozen=True, slots=True)
class Description:
    """What the trailer says of the artifact before it."""

    size: int  # of the artifact, bytes
    component: bool  # a component, not a core module
    whole: bytes  # hash of all bytes
    sum: int  # checksum of all bytes: four times as fast, and good enough against accidents
    sample: bytes  # hash of some, spread over the artifact


def write(fd: int, artifact_fd: int, component: bool, binding: bytes) -> None:
    """Copy an artifact into a new file, add the trailer, and sync. Raises OSError."""
    whole, total, offset = blake2b(digest_size=32), 0, 0
    while part := os.pread(artifact_fd, _CHUNK, offset):
        whole.update(part)
        total = crc32(part, total)
        _write_all(fd, part)
        offset += len(part)
    said = _TRAILER.pack(MAGIC, offset, component, whole.digest(), total, _sample(fd, offset), b"")[:-_CHECK]
    _write_all(fd, said + _check(said, binding))
    os.fsync(fd)


def describe(fd: int, binding: bytes) -> Description | None:
    """The description of a file that is ours, for this module and engine, and undamaged as far as can be seen at once.

    An artifact above ``WHOLE`` is only sampled. Raises OSError when the disk can't be read.
    """
    state = os.fstat(fd)
    size = state.st_size - _TRAILER.size
    if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022 or size < 0:
        return None
    trailer = os.pread(fd, _TRAILER.size, size)
    if len(trailer) != _TRAILER.size:
        return None
    magic, claimed, component, whole, total, sample, check = _TRAILER.unpack(trailer)
    if magic != MAGIC or claimed != size or check != _check(trailer[:-_CHECK], binding):
        return None
    found = Description(size, component, whole, total, sample)
    intact = _sum(fd, size) == total if size <= WHOLE else _sample(fd, size) == sample
    return found if intact else None


def is_whole(fd: int, described: Description) -> bool:
    """All bytes are those that were written. Takes a second per gigabyte. Raises OSError."""
    hashed = blake2b(digest_size=32)
    for part in _parts(fd, described.size):
        hashed.update(part)
    return hashed.digest() == described.whole


def _sum(fd: int, size: int) -> int:
    total = 0
    for part in _parts(fd, size):
        total = crc32(part, total)
    return total


def _parts(fd: int, size: int) -> Iterator[bytes]:
    offset, piece = 0, _PIECE if size <= WHOLE else _CHUNK
    while offset < size and (part := os.pread(fd, min(piece, size - offset), offset)):
        yield part
        offset += len(part)


def _sample(fd: int, size: int) -> bytes:
    hashed = blake2b(digest_size=32)
    for index in range(_SAMPLES):
        hashed.update(os.pread(fd, _SAMPLE, index * max(0, size - _SAMPLE) // (_SAMPLES - 1)))
    return hashed.digest()


def _check(said: bytes, binding: bytes) -> bytes:
    return blake2b(said + binding, digest_size=_CHECK).digest()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
