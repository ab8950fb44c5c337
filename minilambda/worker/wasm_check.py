"""Whether a module's bytes have the hash that names them, found out while they are compiled."""

from __future__ import annotations

import _thread
import hashlib
import mmap
import os

LITTLE = 128 * 1024
"""So many bytes are hashed at once: a thread takes as long to start."""

_STACK = 256 * 1024  # of the thread, bytes


class Check:
    """The hash of a file, on a thread of its own where that takes long. Raises OSError."""

    def __init__(self, fd: int, digest: str) -> None:
        self._digest = digest  # "sha256:" and 64 hex digits
        self._found = ""  # what the bytes have; "": it is not known
        self._running = _thread.allocate_lock()
        size = os.fstat(fd).st_size
        if size <= LITTLE:
            self._found = _name(os.pread(fd, size, 0))
            return
        self._running.acquire()
        _thread.stack_size(_STACK)
        _thread.start_new_thread(self._hash, (fd, size))

    def passed(self) -> bool:
        """Wait for the end; False where the bytes are others, or can't be read."""
        with self._running:
            return self._found == self._digest

    def _hash(self, fd: int, size: int) -> None:
        try:
            with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as wasm:
                self._found = _name(wasm)
        finally:
            self._running.release()


def _name(wasm: bytes | mmap.mmap) -> str:
    return "sha256:" + hashlib.sha256(wasm).hexdigest()
