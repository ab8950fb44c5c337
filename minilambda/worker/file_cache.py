"""Files of jobs on disk, each by its digest, shared by the workers of one user on a machine.

A file appears whole or not at all. Nobody waits for the disk to have it for certain: one that was there at the start
of this process is read and compared with its name before it is used, so that damage is noticed. That takes a thread.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from minilambda.worker.actions import FileEvent, FileLost, FilesSeen
from minilambda.worker.background import Background
from minilambda.worker.cache import refuse_untrusted
from minilambda.worker.doorbell import Doorbell

log = logging.getLogger("minilambda.worker")

MADE_NS = 946_684_800 * 10**9
"""When every file was changed last, as guests see it, nanoseconds of Unix time: the beginning of 2000."""

_CHUNK = 1 << 20  # bytes per read
_NOW = 0.0  # seconds


class FileCache:
    """The files, and pieces of files that are on their way.

    ``own`` is a directory for this worker alone, or None where the disk is of no use; then nothing is found and nothing
    kept. What takes time is answered through ``doorbell``.
    """

    def __init__(self, directory: Path, own: Path | None, max_bytes: int, doorbell: Doorbell[FileEvent]) -> None:
        self._directory = directory
        self._own = own
        self._max_bytes = max_bytes  # of all files together; least recently used goes first
        self._doorbell = doorbell
        self._thread = Background()
        self._checked: dict[str, int] = {}  # digest to the inode that has these bytes for certain; also the thread's
        self._coming: dict[str, int] = {}  # digest to descriptor of the pieces
        self._bytes: int | None = None  # of all files, as far as known; None: not counted yet
        self._stored = 0  # bytes that this process has added, ever
        self._evicting = False  # the thread counts, or is about to
        self.why = ""  # the last that went wrong with the disk, for people

    def find(self, digests: tuple[str, ...]) -> FilesSeen:
        """What is known at once; the rest is told later."""
        found: dict[str, int] = {}
        absent: list[str] = []
        for digest in digests:
            state = self._look(digest)
            if state is None:
                absent.append(digest)
            elif self._checked.get(digest) == state.st_ino:
                found[digest] = state.st_size
                self._use(digest)
            else:
                self._thread.do(functools.partial(self._check, digest), _NOW)
        return FilesSeen(found, tuple(absent))

    def path(self, digest: str) -> Path:
        """Where a file is, if it is there."""
        return self._directory / digest.removeprefix("sha256:")

    def keep(self, digest: str, offset: int, data: bytes) -> None:
        """Add a piece. Where that fails the file is lost, and ``store`` says so."""
        try:
            if offset == 0:
                self.drop(digest)
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._coming[digest] = os.open(self._piece(digest), flags, 0o600)
            rest = memoryview(data)
            while rest and digest in self._coming:
                written = os.pwrite(self._coming[digest], rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError as error:
            self.why = error.strerror or str(error)
            self.drop(digest)

    def store(self, digest: str, size: int) -> FilesSeen | FileLost:
        """The pieces are a whole file, of that size."""
        fd = self._coming.pop(digest, None)
        if fd is None:
            return FileLost(digest, f"The job's files can't be kept on the worker's disk: {self.why}.")
        try:
            os.fchmod(fd, 0o444)
            os.utime(fd, ns=(time.time_ns(), MADE_NS))
            self._checked[digest] = os.fstat(fd).st_ino
            self._piece(digest).rename(self.path(digest))
        except OSError as error:
            return FileLost(digest, f"The job's files can't be kept on the worker's disk: {error.strerror or error}.")
        finally:
            os.close(fd)
        self._stored += size
        if self._bytes is not None:
            self._bytes += size
        if not self._evicting and (self._bytes is None or self._bytes > self._max_bytes):
            self._evicting = True
            self._thread.do(self._evict, _NOW)
        return FilesSeen({digest: size})

    def drop(self, digest: str) -> None:
        """Forget the pieces of a file."""
        fd = self._coming.pop(digest, None)
        if fd is not None:
            os.close(fd)
            with contextlib.suppress(OSError):
                self._piece(digest).unlink()

    def in_background(self, work: Callable[[], None]) -> None:
        """Have the thread call it, some time."""
        self._thread.do(work, _NOW)

    def close(self, patience: float) -> None:
        """Wait up to ``patience`` seconds for the thread to end its work. Idempotent."""
        self._thread.close(patience)
        for digest in list(self._coming):
            self.drop(digest)

    # --- inside ---

    def _piece(self, digest: str) -> Path:
        if self._own is None:
            raise OSError(0, self.why or "it is of no use")
        return self._own / digest.removeprefix("sha256:")

    def _look(self, digest: str) -> os.stat_result | None:
        try:
            return os.stat(self.path(digest), follow_symlinks=False) if self._own is not None else None
        except OSError:
            return None

    def _use(self, digest: str) -> None:
        """Mark a file as used now."""
        with contextlib.suppress(OSError):
            os.utime(self.path(digest), ns=(time.time_ns(), MADE_NS))

    # --- in the thread ---

    def _check(self, digest: str) -> None:
        try:
            with open(self.path(digest), "rb", buffering=0, opener=_open) as file:
                state = os.fstat(file.fileno())
                mark = hashlib.sha256()
                while part := file.read(_CHUNK):
                    mark.update(part)
        except OSError:
            self._doorbell.ring([FilesSeen({}, (digest,))])
            return
        if "sha256:" + mark.hexdigest() == digest:
            self._checked[digest] = state.st_ino
            self._use(digest)
            self._doorbell.ring([FilesSeen({digest: state.st_size})])
            return
        log.warning("The file %s was damaged. It is deleted, and fetched again.", digest)
        with contextlib.suppress(OSError):
            self.path(digest).unlink()
        self._doorbell.ring([FilesSeen({}, (digest,))])

    def _evict(self) -> None:
        """Delete what is above the bound, and again while more comes."""
        self._evicting = False
        before = self._stored
        left = self._delete_oldest()
        self._bytes = left + self._stored - before
        if self._bytes > self._max_bytes >= left:
            self._evict()

    def _delete_oldest(self) -> int:
        """Count, and delete the least recently used above the bound; not those in a tree: that would free nothing.

        Answers how many bytes are left.
        """
        files: list[tuple[int, int, int, str]] = []  # last use, nanoseconds; bytes; links; path
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # another worker evicts too
                    state = entry.stat(follow_symlinks=False)
                    files.append((state.st_atime_ns, state.st_size, state.st_nlink, entry.path))
        total = sum(size for _used, size, _links, _path in files)
        for _used, size, links, path in sorted(files):
            if total <= self._max_bytes:
                break
            if links == 1:
                with contextlib.suppress(OSError):
                    os.unlink(path)
                total -= size
        names = {os.path.basename(path) for *_, path in files}
        self._checked = {digest: inode for digest, inode in self._checked.items() if digest[len("sha256:") :] in names}
        return total


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def make_directory(directory: Path) -> str:
    """Make it if need be; why it is of no use, or "". Raises CacheError where it can't be trusted."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_untrusted(directory)
    except OSError as error:
        return error.strerror or str(error)
    return ""
