"""Trees of files on disk, each what the guests of some jobs see as ``/``: made of links, so they take no room.

They are this worker's alone, in a directory that nobody uses once the worker is dead: the next one sweeps it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from minilambda.paths import NOTHING, SCRATCH
from minilambda.worker.actions import FileEvent, TreeBuilt, TreeFailed
from minilambda.worker.doorbell import Doorbell
from minilambda.worker.file_cache import MADE_NS, FileCache, make_directory

CLOSE_PATIENCE = 5.0
"""How long a worker that ends waits for files that are being checked, seconds."""

_TRIES = 3  # to make a directory before another worker that starts at the same time takes it for a dead one's
_NO_LINKS = {errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS}


class Files:
    """The files and trees of one worker, under a cache directory."""

    def __init__(self, cache: Path, max_bytes: int) -> None:
        """Raises CacheError where the directory can't be trusted."""
        self.doorbell: Doorbell[FileEvent] = Doorbell()
        """Answers that took time."""
        top = cache / "files"
        self._lock = -1  # descriptor of our own directory, locked as long as we live; -1: there is none
        self._own: Path | None = None  # None: the disk is of no use
        whole = top / "whole"
        why = make_directory(cache) or make_directory(top) or make_directory(whole)
        if not why:
            why = self._claim(top)
        self.cache = FileCache(whole, self._own, max_bytes, self.doorbell)
        self.cache.why = why

    def _claim(self, top: Path) -> str:
        """Sweep what dead workers left, and make our own directory; why that can't be, or ""."""
        for left in top.glob("worker-*"):
            _sweep(left)
        why = ""
        for _ in range(_TRIES):
            own = top / f"worker-{secrets.token_hex(8)}"
            try:
                own.mkdir(mode=0o700)
                self._lock = _locked(own)
                (own / "trees").mkdir(mode=0o700)
            except OSError as error:  # perhaps another worker has just swept it
                why = error.strerror or str(error)
            else:
                self._own = own
                return ""
        return why

    def path(self, key: str) -> str:
        """Where a tree is."""
        return str(self._trees() / key)

    def build(self, key: str, files: Mapping[str, str], scratch: bool) -> TreeBuilt | TreeFailed:
        """Make a tree of files at their paths."""
        vanished: list[str] = []
        try:
            place = self._trees() / f"{key}.new"
            _make(place)
            made = {""}
            for path, digest in files.items():
                _make_folders(place, path.rpartition("/")[0], made)
                if not self._put(digest, f"{place}{path}"):
                    vanished.append(digest)
            if scratch:
                _make_folders(place, SCRATCH, made)
            if vanished:
                self._remove(place)
                return TreeFailed(key, tuple(vanished), "they are not on the disk any more")
            place.rename(self._trees() / key)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._remove(self._trees() / f"{key}.new")
            return TreeFailed(key, (), error.strerror or str(error))
        return TreeBuilt(key)

    def drop(self, key: str) -> None:
        """Remove a tree, in the background."""
        with contextlib.suppress(OSError):
            self._remove(self._trees() / key)

    def close(self) -> None:
        """Remove all trees. Idempotent."""
        self.cache.close(CLOSE_PATIENCE)
        self.doorbell.close()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None
        if self._lock != -1:
            os.close(self._lock)
            self._lock = -1

    # --- inside ---

    def _trees(self) -> Path:
        if self._own is None:
            raise OSError(errno.EIO, self.cache.why or "the worker's disk is of no use")
        return self._own / "trees"

    def _put(self, digest: str, target: str) -> bool:
        """Have a file at a path; whether it is still there."""
        if digest == NOTHING:
            with open(target, "xb"):
                _for_all_to_read(target)
            return True
        source = self.cache.path(digest)
        try:
            os.link(source, target, follow_symlinks=False)
        except FileNotFoundError:
            if source.exists():
                raise
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(source, target, follow_symlinks=False)
            _for_all_to_read(target)
        return True

    def _remove(self, place: Path) -> None:
        trash = place.with_name(f"{secrets.token_hex(8)}.old")
        place.rename(trash)
        self.cache.in_background(lambda: shutil.rmtree(trash, ignore_errors=True))


def _make_folders(place: Path, path: str, made: set[str]) -> None:
    """Make a folder of a tree and those above it, but for those that are ``made`` already."""
    if path not in made:
        _make_folders(place, path.rpartition("/")[0], made)
        _make(f"{place}{path}")
        made.add(path)


def _make(folder: str | Path) -> None:
    """Make a folder that everybody may look into who gets there."""
    os.mkdir(folder)
    os.chmod(folder, 0o755)


def _for_all_to_read(file: str) -> None:
    """As the files of the cache are."""
    os.chmod(file, 0o444)
    os.utime(file, ns=(MADE_NS, MADE_NS))


def _locked(directory: Path) -> int:
    """A descriptor that holds the directory's lock. Raises OSError where another process has it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def _sweep(left: Path) -> None:
    """Remove the directory of a worker that is dead."""
    with contextlib.suppress(OSError):  # it lives, or is gone already
        fd = _locked(left)
        try:
            shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(fd)
