"""What comes back of a guest's scratch: regular files, whatever else the guest has put there. For the agent.

Nothing in there is trusted. A path is walked name by name, each below a directory that is open, and a link is never
followed; so nothing outside can be reached, even if all is moved about meanwhile. Only regular files are read, and
there are bounds on their number, on the depth of folders and on the bytes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import Final

import msgpack

from minilambda.errors import MinilambdaError
from minilambda.fields import is_guest_path
from minilambda.paths import SCRATCH
from minilambda.worker.events import Collected

MAX_FILES: Final = 4096
"""Files that one job may bring back."""

MAX_DEPTH: Final = 64
"""Folders in each other below a path that is collected."""

_MAX_SEEN: Final = 4 * MAX_FILES  # names that are looked at, those of what is left out too
_CHUNK: Final = 4 << 20  # bytes per read

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


class _TooMuch(MinilambdaError):
    """What is to be collected is more than a job may bring back."""


def collect(scratch: int | None, paths: Sequence[str], limit: int) -> Collected:
    """What is at ``paths`` in the guest, at most ``limit`` bytes together; folders bring all files below them.

    ``scratch`` is a descriptor of the guest's ``/tmp``; None: it has none. Never raises for what is in there.
    """
    gathering = _Gathering(limit)
    try:
        for path in paths:
            found = scratch is not None and gathering.take(scratch, path)
            if not found:
                gathering.files.setdefault(path, None)
    except _TooMuch as error:
        return Collected(problem=error.message)
    return Collected(msgpack.packb(gathering.files))


class _Gathering:
    """The files of one job, as they are found."""

    def __init__(self, limit: int) -> None:
        self.files: dict[str, bytes | None] = {}  # by path
        self._limit = limit  # of all contents together, bytes
        self._bytes = 0  # of what was read so far
        self._seen = 0  # names looked at so far

    def take(self, scratch: int, path: str) -> bool:
        """Take in what is at a path; whether anything is that can be. Raises _TooMuch."""
        names = path.removeprefix(SCRATCH).strip("/").split("/") if path != SCRATCH else ["."]
        with contextlib.ExitStack() as held:
            at = scratch
            try:
                for name in names[:-1]:
                    at = os.open(name, _FOLDER, dir_fd=at)
                    held.callback(os.close, at)
            except OSError:
                return False
            return self._take(at, names[-1], path, 0)

    def _take(self, at: int, name: str, path: str, depth: int) -> bool:
        """Take in what ``name`` is in the open directory ``at``; whether it is a file or a folder."""
        try:
            fd = os.open(name, _FILE, dir_fd=at)
        except OSError:  # not there, a link, a socket, or not readable
            return False
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISDIR(mode):
                self._folder(fd, path, depth)
            elif stat.S_ISREG(mode):
                self._file(fd, path)
            else:
                return False
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _folder(self, fd: int, path: str, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise _TooMuch(f"What is to be collected has more than {MAX_DEPTH} folders in each other.")
        with os.scandir(fd) as entries:
            for entry in entries:
                self._seen += 1
                if self._seen > _MAX_SEEN:
                    raise _TooMuch(f"What is to be collected has more than {_MAX_SEEN} names in it.")
                below = f"{path}/{entry.name}"
                if is_guest_path(below):  # one that can't be told is as good as none
                    self._take(fd, entry.name, below, depth + 1)

    def _file(self, fd: int, path: str) -> None:
        if self.files.get(path) is not None:
            return
        if len(self.files) >= MAX_FILES:
            raise _TooMuch(f"More than {MAX_FILES} files are to be collected.")
        size, parts = os.fstat(fd).st_size, []
        while True:
            self._room(size)
            part = os.read(fd, _CHUNK)
            if not part:
                break
            parts.append(part)
            self._bytes += len(part)
            size -= len(part)
        self.files[path] = b"".join(parts)

    def _room(self, more: int) -> None:
        """Raises _TooMuch where no so many bytes ``more`` may be read."""
        if self._bytes + max(0, more) > self._limit:
            raise _TooMuch(
                f"The files to be collected have more than the {self._limit} bytes that a job may bring back."
            )
