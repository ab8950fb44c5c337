"""How an artifact on disk reaches a runner that can open no file: each is handed over, none can be looked up.

The walls keep runners out of the cache, which has every tenant's code. So a small artifact is copied into a sealed
memory file. A large one stays on the disk, mapped as it is needed: it is opened under a second name in a directory
whose files runners may read and not list. The name can't be guessed, and is gone before the descriptor is passed on.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import stat
from pathlib import Path

from minilambda.worker.artifact_file import WHOLE

log = logging.getLogger("minilambda.worker")

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_CHUNK = 1 << 30  # bytes per call


class Handover:
    """The directory under a cache through which large artifacts go. Without it, all are copied."""

    def __init__(self, cache: Path) -> None:
        self._directory = -1  # descriptor; -1: there is none
        self.path = ""
        """What runners may read in; empty where it could not be made."""
        directory = cache / "handover"
        with contextlib.suppress(OSError):
            directory.mkdir(mode=0o700, exist_ok=True)
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self.path = str(directory.absolute())
            for name in os.listdir(self._directory):  # of a worker that was killed just then, or another's right now
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)

    def give(self, fd: int) -> int:
        """A descriptor of the same artifact that a runner can open; takes ``fd``, and may answer it."""
        given = fd
        try:
            size = os.fstat(fd).st_size
            given = _copy(fd, size) if size <= WHOLE or self._directory < 0 else self._open_anew(fd, size)
        except OSError as error:
            log.warning("an artifact could not be made ready for runners: %s", error.strerror or error)
        if given != fd:
            os.close(fd)
        return given

    def _open_anew(self, fd: int, size: int) -> int:
        name = secrets.token_hex(16)
        try:
            if os.geteuid() == 0:  # runners are other users then; nobody else gets through the cache's directory
                os.fchmod(fd, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=self._directory, follow_symlinks=True)
            try:
                return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
            finally:
                os.unlink(name, dir_fd=self._directory)
        except OSError:  # a disk without links, or that can't be written to
            return _copy(fd, size)

    def close(self) -> None:
        """Idempotent."""
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


def _copy(fd: int, size: int) -> int:
    """A sealed memory file with the same bytes. Raises OSError."""
    copy = os.memfd_create("artifact", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        offset = 0
        while offset < size and (sent := os.sendfile(copy, fd, offset, min(_CHUNK, size - offset))):
            offset += sent
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(copy)
        raise
    return copy
