"""What the agent's shell holds for the core: open artifacts, and wasm on its way to the compiler."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from minilambda.worker.actions import ArtifactAbsent, ArtifactFound, ArtifactLocked
from minilambda.worker.cache import ArtifactCache
from minilambda.worker.handover import Handover

CLOSE_PATIENCE = 5.0
"""How long a worker that ends waits for artifacts that are being written, seconds."""

AHEAD, AHEAD_BYTES = 32, 8 << 20
"""Artifacts that are opened before a job asks for them, at most, and what they may take together, bytes."""

LOST = -1
"""Stands for the descriptor of wasm that could not be kept."""


class Artifacts:
    """The artifacts at hand, each an open descriptor, and the caches on disk behind them, one for each compiler."""

    def __init__(self, caches: Mapping[str, ArtifactCache], handover: Handover) -> None:
        """``caches`` has the compiler of the best code first."""
        self._caches = caches
        self._handover = handover
        self._open: dict[tuple[str, str], int] = {}  # digest and compiler to descriptor
        self._unused: set[tuple[str, str]] = set()  # those of them that no runner was given yet, of ``look_ahead``

    @property
    def problem(self) -> str | None:
        """Why the disk is of no use, for people; None when it works."""
        return next((cache.problem for cache in self._caches.values() if cache.problem), None)

    @property
    def readable(self) -> str:
        """The directory that runners must be able to read; empty where there is none."""
        return self._handover.path

    def look_ahead(self) -> list[ArtifactFound]:
        """Open the artifacts of the best compiler that were used last: their first jobs here need not wait for that.

        Small ones only: to open one is to check and copy it. The one that was used last is the last.
        """
        compiler, cache = next(iter(self._caches.items()))
        ahead = []
        for digest in cache.recent(AHEAD, AHEAD_BYTES):
            found = cache.find(digest, used=False)
            if found is not None:
                self._hold(digest, compiler, self._handover.give(found.fd))
                self._unused.add((digest, compiler))
                ahead.append(ArtifactFound(digest, compiler, found.component))
        return ahead

    def find(
        self, digest: str, compilers: tuple[str, ...], alone: bool = False
    ) -> ArtifactFound | ArtifactAbsent | ArtifactLocked:
        """An artifact on disk by one of the compilers, the first one's before the others'.

        Else the right to make the last one's, or word that another worker makes it; ``alone``: let it.
        """
        last = compilers[-1]
        for locked in (False, True):
            for compiler in compilers:
                found = self._caches[compiler].find(digest)
                if found is not None:
                    if locked:
                        self._caches[last].unlock(digest)
                    self._hold(digest, compiler, self._handover.give(found.fd))
                    return ArtifactFound(digest, compiler, found.component)
            if not locked and not self._caches[last].lock(digest) and not alone:
                return ArtifactLocked(digest)
        return ArtifactAbsent(digest, last)

    def release(self, digest: str, compiler: str) -> None:
        """Gives back the right to make an artifact."""
        self._caches[compiler].unlock(digest)

    def adopt(self, digest: str, compiler: str, component: bool, fd: int) -> None:
        """Takes a new artifact: at hand now, on disk and unlocked soon."""
        self._hold(digest, compiler, fd)
        self._caches[compiler].store_later(digest, component, fd)

    def descriptor(self, digest: str, compiler: str) -> int:
        """An artifact for a runner. It stays the store's."""
        return self._open[digest, compiler]

    def used(self, digest: str, compiler: str) -> None:
        """A runner was given an artifact: it stays on the disk longer than those that nobody uses."""
        if (digest, compiler) in self._unused:
            self._unused.remove((digest, compiler))
            self._caches[compiler].mark(digest)

    def drop(self, digest: str, compiler: str, corrupt: bool) -> None:
        fd = self._open.pop((digest, compiler), None)
        if fd is not None:
            os.close(fd)
            self._unused.discard((digest, compiler))
        if corrupt:
            self._caches[compiler].discard(digest)

    def close(self) -> None:
        for cache in self._caches.values():
            cache.close(CLOSE_PATIENCE)
        for digest, compiler in list(self._open):
            self.drop(digest, compiler, corrupt=False)
        self._handover.close()

    def _hold(self, digest: str, compiler: str, fd: int) -> None:
        self.drop(digest, compiler, corrupt=False)
        self._open[digest, compiler] = fd


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


def open_artifacts(directory: Path, fingerprints: Mapping[str, str], max_bytes: int) -> Artifacts:
    """The artifacts under a directory; ``fingerprints`` names the configuration of each compiler.

    Raises ``CacheError`` when the directory can't be trusted.
    """
    caches = {name: ArtifactCache(directory, mark, max_bytes) for name, mark in fingerprints.items()}
    return Artifacts(caches, Handover(directory))
