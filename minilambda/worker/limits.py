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
        self._data_soft, self._data_hard = resource.getrlimit(resource.RLIMIT_DATA)  # bytes
        self._base = 0  # the process's own size when last measured, bytes
        self._base_runs = 0  # runs for which it still serves
        self._file_soft, self._file_hard = resource.getrlimit(resource.RLIMIT_FSIZE)  # bytes

    def data_bytes(self) -> int:
        """The process's writable private memory now (what RLIMIT_DATA counts, and its stacks), bytes."""
        return int(os.pread(self._statm, 128, 0).split()[5]) * self._page

    def cap(self, output_bytes: int, memory_bytes: int, slack: int, measure: bool) -> int:
        """The process may grow by ``memory_bytes`` and ``slack`` over its own size, which is answered in bytes.

        No file grows past ``output_bytes`` + 1, so that passing that limit shows.
        Its size between runs hardly changes, so it is measured now and then, or always with ``measure``.
        """
        if measure or not self._base_runs:
            self._base, self._base_runs = self.data_bytes(), _BASE_RUNS
        self._base_runs -= 1
        output = _settable(output_bytes + 1, self._file_hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (output, self._file_hard))
        wanted = _settable(self._base + memory_bytes + slack, self._data_hard)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, self._data_hard))
        return self._base

    def lift(self) -> None:
        """Put the limits back to what they were when this object was made."""
        resource.setrlimit(resource.RLIMIT_DATA, (self._data_soft, self._data_hard))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._file_soft, self._file_hard))
