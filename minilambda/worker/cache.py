"""Artifacts on disk: compiled modules in a directory of this user's, shared by the workers of one machine.

A file appears whole or not at all: it is written under another name, synced, renamed. One that does not verify
is deleted, and the module is compiled again. The cache never fails a job: when the disk is full or read-only it
says so in ``problem``, and finds nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from minilambda.errors import MinilambdaError
from minilambda.notation import MIB
from minilambda.worker import artifact_file
from minilambda.worker.background import Background

log = logging.getLogger("minilambda.worker")

_ARTIFACT = ".artifact"
_LOCK = ".lock"
_TEMPORARY = ".tmp"
_STORE_AFTER_S = 0.02  # an artifact is stored so long after it was made: the first run goes first, seconds
_STORE_AFTER_MIB_S = 0.01  # so much later for each MiB of it: large guests take longer to start, and so does storing
_CHECK_AFTER_S = 0.2  # a large one that was found is checked wholly so long after, for the same reason, seconds
_STALE_S = 60.0  # a temporary file that is older, and that nobody writes, is deleted, seconds
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class CacheError(MinilambdaError):
    """The directory can't be trusted: what it holds is native code."""

    sentence = "The cache directory can't be trusted."


@dataclass(frozen=True, slots=True)
class FoundArtifact:
    """An artifact on disk that verified."""

    fd: int  # read-only; the caller owns it
    component: bool  # a component, not a core module
    size: int  # of the artifact, bytes; the file is a little longer


class ArtifactCache:
    """The artifacts of one engine configuration in a directory, and the lock of each."""

    def __init__(self, directory: Path, fingerprint: str, max_bytes: int) -> None:
        """Makes the directory if need be.

        ``max_bytes`` bounds the artifacts of all fingerprints under it together. Raises CacheError for a directory
        that belongs to another user or that others may write to.
        """
        self.problem: str | None = None  # why the disk is of no use, for people; None: nothing is known against it
        self._root = directory
        self._directory = directory / fingerprint
        self._fingerprint = fingerprint
        self._max_bytes = max_bytes
        self._locks: dict[str, int] = {}  # digest -> locked descriptor; also used by the thread
        self._checked: set[int] = set()  # inodes of large artifacts that are checked wholly, or about to be
        self._thread = Background()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_untrusted(directory)
            self._directory.mkdir(mode=0o700, exist_ok=True)
            refuse_untrusted(self._directory)
        except OSError as error:
            self._disk_failed(error)

    # --- reading -------------------------------------------------------------------------------------

    def find(self, digest: str, used: bool = True) -> FoundArtifact | None:
        """The artifact of a module, marked as ``used``; None when there is none that verifies.

        A large one is only sampled before it is used; all its bytes are checked in the background, once.
        """
        path = self._path(digest, _ARTIFACT)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._disk_failed(error)
            return None
        try:
            described = artifact_file.describe(fd, self._binding(digest))
        except OSError as error:
            self._disk_failed(error)
            described = None
        if described is None:
            os.close(fd)
            self.discard(digest)
            return None
        if used:
            with contextlib.suppress(OSError):  # a read-only disk; then nothing is evicted either
                os.utime(fd)
        inode = os.fstat(fd).st_ino
        if described.size > artifact_file.WHOLE and inode not in self._checked:
            self._checked.add(inode)
            self._thread.do(lambda: self._check_whole(digest, described), _CHECK_AFTER_S)
        return FoundArtifact(fd, described.component, described.size)

    def recent(self, count: int, room: int) -> list[str]:
        """The modules whose small artifacts were used last, the last one at the end, as far as they fit into ``room``.

        At most ``count`` of them; ``room`` is in bytes.
        """
        used: list[tuple[int, int, str]] = []  # last use, nanoseconds; bytes; name
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(_ARTIFACT):
                    state = entry.stat(follow_symlinks=False)
                    used.append((state.st_mtime_ns, state.st_size, f"sha256:{entry.name.removesuffix(_ARTIFACT)}"))
        found: list[str] = []
        for _, size, digest in heapq.nlargest(count, used):
            if size <= min(room, artifact_file.WHOLE) and _DIGEST.fullmatch(digest):
                room -= size
                found.append(digest)
        return found[::-1]

    def mark(self, digest: str) -> None:
        """The artifact that was found is used now."""
        with contextlib.suppress(OSError):  # as in ``find``, or it was evicted
            os.utime(f"{self._directory}/{digest[7:]}{_ARTIFACT}")

    def discard(self, digest: str) -> None:
        """Delete a damaged artifact. Runners that have it mapped keep it."""
        try:
            self._path(digest, _ARTIFACT).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            self._disk_failed(error)
            return
        self._say(f"The artifact of {digest} was damaged. It is deleted, and compiled again when it is needed.")

    # --- one compilation for all workers -------------------------------------------------------------

    def lock(self, digest: str) -> bool:
        """Take the right to compile a module, without waiting; False while another worker has it.

        Whoever gets it looks once more with ``find``. The lock of a dead process is free by itself. Where the disk
        takes no locks everybody compiles, and ``problem`` says why.
        """
        path = self._path(digest, _LOCK)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._disk_failed(error)
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino != path.stat().st_ino:
                raise FileNotFoundError  # its holder deleted it meanwhile, and another may hold a new one
        except (BlockingIOError, FileNotFoundError):
            os.close(fd)
            return False
        except OSError as error:
            os.close(fd)
            self._disk_failed(error)
            return True
        self._locks[digest] = fd
        return True

    def unlock(self, digest: str) -> None:
        """Give the right back. Without effect for a lock that is not held."""
        fd = self._locks.pop(digest, None)
        if fd is not None:
            with contextlib.suppress(OSError):
                self._path(digest, _LOCK).unlink()
            os.close(fd)

    # --- writing -------------------------------------------------------------------------------------

    def store_later(self, digest: str, component: bool, artifact_fd: int) -> None:
        """``store``, then ``unlock``, in a thread. The descriptor stays the caller's, who may close it at once."""
        try:
            fd = os.dup(artifact_fd)
        except OSError as error:
            self._disk_failed(error)
            self.unlock(digest)
            return

        def work() -> None:
            try:
                self.store(digest, component, fd)
            finally:
                os.close(fd)
                self.unlock(digest)

        self._thread.do(work, _STORE_AFTER_S + _STORE_AFTER_MIB_S * os.fstat(fd).st_size / MIB)

    def store(self, digest: str, component: bool, artifact_fd: int) -> None:
        """Write an artifact and wait until it is on the disk; then delete the least recently used above the bound.

        Raises nothing for a disk that is full or read-only: see ``problem``.
        """
        size = os.fstat(artifact_fd).st_size + artifact_file.OVERHEAD
        if size > self._max_bytes:
            self._say(f"An artifact of {size} bytes is not stored: the whole cache may have {self._max_bytes} bytes.")
            return
        temporary = self._path(digest, f".{secrets.token_hex(8)}{_TEMPORARY}")
        try:
            self._write(temporary, digest, component, artifact_fd)
            self._evict()
        except OSError as error:
            self._disk_failed(error)
            with contextlib.suppress(OSError):
                temporary.unlink()
        else:
            self.problem = None

    def close(self, patience: float) -> None:
        """Wait up to ``patience`` seconds for the thread to end its work, then give all locks back. Idempotent."""
        self._thread.close(patience)
        for digest in list(self._locks):
            self.unlock(digest)

    # --- inside --------------------------------------------------------------------------------------

    def _path(self, digest: str, suffix: str) -> Path:
        matched = _DIGEST.fullmatch(digest)
        if matched is None:
            raise ValueError(f"{digest!r} does not name a module.")
        return self._directory / (matched[1] + suffix)

    def _binding(self, digest: str) -> bytes:
        return f"{digest} {self._fingerprint}".encode()

    def _disk_failed(self, error: OSError) -> None:
        self._say(f"The cache directory {self._root} is of no use: {error.strerror or error}.")

    def _say(self, problem: str) -> None:
        """Note what is wrong, and log it unless that is known."""
        if problem != self.problem:
            log.warning("%s", problem)
        self.problem = problem

    def _write(self, temporary: Path, digest: str, component: bool, artifact_fd: int) -> None:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # tells other workers that it is being written
            artifact_file.write(fd, artifact_fd, component, self._binding(digest))
            temporary.rename(self._path(digest, _ARTIFACT))
        finally:
            os.close(fd)
        directory = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)  # makes the rename last
        finally:
            os.close(directory)

    def _check_whole(self, digest: str, described: artifact_file.Description) -> None:
        try:
            fd = os.open(self._path(digest, _ARTIFACT), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return  # evicted meanwhile
        try:
            # Another worker may have stored it anew, with other bytes, meanwhile.
            same = artifact_file.describe(fd, self._binding(digest)) == described
            if same and not artifact_file.is_whole(fd, described):
                self.discard(digest)
        except OSError as error:
            self._disk_failed(error)
        finally:
            os.close(fd)

    def _evict(self) -> None:
        artifacts: list[tuple[int, int, str]] = []  # last use, nanoseconds; bytes; path
        for path in self._root.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):  # another worker evicts too
                if path.suffix == _ARTIFACT:
                    state = path.lstat()
                    artifacts.append((state.st_mtime_ns, state.st_size, str(path)))
                elif path.suffix == _TEMPORARY:
                    _delete_if_stale(path)
        total = sum(size for _used, size, _path in artifacts)
        for _used, size, name in sorted(artifacts):
            if total <= self._max_bytes:
                return
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            total -= size


def refuse_untrusted(directory: Path) -> None:
    """Raises CacheError for a directory of another user's, or that others may write to; OSError where there is none."""
    state = directory.stat()
    if state.st_uid != os.geteuid():
        raise CacheError(
            f"The cache directory {directory} belongs to another user; make it yours with chown, or use another one."
        )
    if state.st_mode & 0o022:
        raise CacheError(f"The cache directory {directory} can be written to by others; make it yours with chmod 700.")


def _delete_if_stale(path: Path) -> None:
    """Delete a temporary file that its writer has left behind."""
    if time.time() - path.lstat().st_mtime < _STALE_S:
        return
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        pass
    finally:
        os.close(fd)
