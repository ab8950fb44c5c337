"""Helpers for the tests of the cache of artifacts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minilambda.worker import artifact_file
from minilambda.worker.cache import ArtifactCache

SMALL = b"artifact" * 1000
LARGE = os.urandom(artifact_file.WHOLE + 100_000)
BOUND = 1 << 30
MAX_WAIT_S = 20


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


@contextmanager
def memfd(content: bytes) -> Iterator[int]:
    fd = os.memfd_create("artifact")
    os.write(fd, content)
    try:
        yield fd
    finally:
        os.close(fd)


def put(cache: ArtifactCache, number: int, content: bytes = SMALL, component: bool = False) -> Path:
    with memfd(content) as fd:
        cache.store(digest(number), component, fd)
    return cache._directory / f"{number:064x}.artifact"


def content_of(cache: ArtifactCache, number: int) -> bytes | None:
    found = cache.find(digest(number))
    if found is None:
        return None
    try:
        return os.pread(found.fd, found.size, 0)
    finally:
        os.close(found.fd)


def eventually(claim: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + MAX_WAIT_S
    while not (held := claim()) and time.monotonic() < deadline:
        os.sched_yield()
    return held


def damage(path: Path, offset: int, content: bytes) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
