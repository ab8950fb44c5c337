"""What the agent's shell holds for the core under a digest: open artifacts, and wasm on its way to the compiler."""

from __future__ import annotations

import os
from pathlib import Path

from minilambda.worker.actions import ArtifactAbsent, ArtifactFound, ArtifactLocked
from minilambda.worker.cache import ArtifactCache

CLOSE_PATIENCE = 5.0
"""How long a worker that ends waits for artifacts that are being written, seconds."""

LOST = -1
"""Stands for the descriptor of wasm that could not be kept."""


class Artifacts:
    """The artifacts at hand, each an open descriptor, and the cache on disk behind them."""

    def __init__(self, cache: ArtifactCache) -> None:
        self._cache = cache
        self._open: dict[str, int] = {}  # digest to descriptor

    @property
    def problem(self) -> str | None:
        """Why the disk is of no use, for people; None when it works."""
        return self._cache.problem

    def find(self, digest: str) -> ArtifactFound | ArtifactAbsent | ArtifactLocked:
        """An artifact on disk, or the right to make it, or word that another worker makes it."""
        for locked in (False, True):
            found = self._cache.find(digest)
            if found is not None:
                if locked:
                    self._cache.unlock(digest)
                self._hold(digest, found.fd)
                return ArtifactFound(digest, found.component)
            if not locked and not self._cache.lock(digest):
                return ArtifactLocked(digest)
        return ArtifactAbsent(digest)

    def release(self, digest: str) -> None:
        """Gives back the right to make an artifact."""
        self._cache.unlock(digest)

    def adopt(self, digest: str, component: bool, fd: int) -> None:
        """Takes a new artifact: at hand now, on disk and unlocked soon."""
        self._hold(digest, fd)
        self._cache.store_later(digest, component, fd)

    def descriptor(self, digest: str) -> int:
        return self._open[digest]

    def drop(self, digest: str, corrupt: bool) -> None:
        fd = self._open.pop(digest, None)
        if fd is not None:
            os.close(fd)
        if corrupt:
            self._cache.discard(digest)

    def close(self) -> None:
        self._cache.close(CLOSE_PATIENCE)
        for digest in list(self._open):
            self.drop(digest, corrupt=False)

    def _hold(self, digest: str, fd: int) -> None:
        self.drop(digest, corrupt=False)
        self._open[digest] = fd


class WasmFiles:
    """Wasm bytes on their way to the compiler, each in a memfd."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}  # digest to descriptor, or LOST

    def keep(self, digest: str, offset: int, data: bytes) -> None:
        """Adds a piece. Where there is no room, the file is lost, and compiling it fails."""
        rest = memoryview(data)
        try:
            if digest not in self._files:
                self._files[digest] = os.memfd_create("wasm", os.MFD_CLOEXEC)
            while rest and self._files[digest] != LOST:
                written = os.pwrite(self._files[digest], rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError:
            self.drop(digest)
            self._files[digest] = LOST

    def descriptor(self, digest: str) -> int:
        return self._files[digest]

    def drop(self, digest: str) -> None:
        fd = self._files.pop(digest, LOST)
        if fd != LOST:
            os.close(fd)

    def close(self) -> None:
        for digest in list(self._files):
            self.drop(digest)


def open_artifacts(directory: Path, fingerprint: str, max_bytes: int) -> Artifacts:
    """The artifacts under a directory. Raises ``CacheError`` when it can't be trusted."""
    return Artifacts(ArtifactCache(directory, fingerprint, max_bytes))
