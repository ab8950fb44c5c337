"""Where guests write: two memory files of the runner's, one for standard output and one for errors."""

from __future__ import annotations

import fcntl
import os
from typing import Final

SMALL: Final = 4096
"""Bytes of both streams together that go into an outcome itself."""


class Streams:
    """The memory files of one runner.

    With ``standard`` they become the standard streams of this process: a guest then gets them without a file being
    opened for it. Nothing else in the process may write there. Their file offsets mean nothing.
    """

    def __init__(self, stdout_fd: int, stderr_fd: int, standard: bool) -> None:
        self._fds = (stdout_fd, stderr_fd)
        if standard:
            for fd, stream in zip(self._fds, (1, 2), strict=True):
                fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)  # what is written next goes to the end, wherever that is
                os.dup2(fd, stream)
            self._fds = (1, 2)
        self._by_path = (b"/proc/self/fd/%d" % self._fds[0], b"/proc/self/fd/%d" % self._fds[1])
        self.paths = None if standard else self._by_path
        """What is to be opened for a guest, or None for the standard streams of this process."""

    def sizes(self) -> tuple[int, int]:
        """Bytes in each file."""
        stdout, stderr = self._fds
        return os.lseek(stdout, 0, os.SEEK_END), os.lseek(stderr, 0, os.SEEK_END)

    def take(self, stream: int, size: int, limit: int) -> bytes:
        """At most ``limit`` of the ``size`` bytes of a file, which is empty afterwards."""
        fd = self._fds[stream]
        taken = os.pread(fd, min(size, limit), 0)
        os.ftruncate(fd, 0)
        return taken

    def empty(self) -> None:
        """Forget what was written."""
        for fd in self._fds:
            os.ftruncate(fd, 0)

    def distrust(self) -> None:
        """A guest's write has failed, and Rust's standard output may still hold it and add it to what comes next.

        So nobody writes there again: guests get the files by path from now on.
        """
        self.paths = self._by_path
