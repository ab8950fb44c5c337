"""The kernel's limits around one run: bytes of output per stream, and bytes of memory of the whole process."""

from __future__ import annotations

import contextlib
import os
import resource
import signal

_BASE_RUNS = 32
"""Runs for which one measurement of the process's own size serves."""

DATA_SLACK = 3 << 20
"""Bytes that the process may grow beyond the guest's memory during a run: wasmtime's own state, buffers of
WASI, Python's values. Part of what keeps two memories from passing the limit of one."""

PIPE_SLACK = 4 << 20
"""So much more where the guest's input comes through a pipe: a thread of WASI's reads it, bytes."""

RESULT_SLACK = 256 << 20
"""The same where a component's function is invoked: wasmtime makes up to 70 bytes of each element of a list that
the function returns, up to a bound of its own that is below this, and ends the process where it can't."""


def _settable(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


class KernelLimits:
    """Sets and lifts the soft limits of this process. Made before the walls are raised: it opens a file of /proc.

    Raises OSError where /proc is missing.
    """

    def __init__(self) -> None:
        # Without this the kernel ends the process at the write that passes the limit.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._page = resource.getpagesize()  # bytes
        self._base = 0  # the process's own size when last measured, bytes
        self._base_runs = 0  # runs for which it still serves
        self._data_soft, self._data_hard = resource.getrlimit(resource.RLIMIT_DATA)  # bytes
        self._file_soft, self._file_hard = resource.getrlimit(resource.RLIMIT_FSIZE)  # bytes
        self._data, self._file = self._data_soft, self._file_soft  # what is set now, bytes

    def close(self) -> None:
        """Lift the limits and close the file. Nothing else is called after that."""
        self.lift()
        os.close(self._statm)

    def data_bytes(self) -> int:
        """The process's writable private memory now (what RLIMIT_DATA counts, and its stacks), bytes."""
        return int(os.pread(self._statm, 128, 0).split()[5]) * self._page

    def forget(self) -> None:
        """The process's own size may have changed: it is measured at the next run."""
        self._base_runs = 0

    def cap(self, file_bytes: int, memory_bytes: int, slack: int, measure: bool, pooled: int = 0, kept: int = 0) -> int:
        """The process may grow by ``memory_bytes`` and ``slack`` over its own size, which is answered in bytes.

        No file grows past ``file_bytes`` + 1, so that passing that limit shows. The process's size between runs
        hardly changes, so it is measured now and then, or always with ``measure``. ``pooled`` bytes of it are memory
        of earlier guests that pools hold; ``kept`` of these are not for this guest.
        """
        if measure or not self._base_runs:
            self._base, self._base_runs = self.data_bytes() - pooled, _BASE_RUNS
        self._base_runs -= 1
        base = self._base + kept
        self._set(_settable(base + memory_bytes + slack, self._data_hard), _settable(file_bytes + 1, self._file_hard))
        return base

    def lift(self) -> None:
        """Put the limits back to what they were when this object was made. Idempotent."""
        self._set(self._data_soft, self._file_soft)

    def _set(self, data: int, file: int) -> None:
        """Change what differs: a run with the same limits as the last costs no call."""
        if data != self._data:
            resource.setrlimit(resource.RLIMIT_DATA, (data, self._data_hard))
            self._data = data
        if file != self._file:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file, self._file_hard))
            self._file = file
