"""Events of our own for a loop that polls descriptors: what no process tells of. They may come from any thread."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Doorbell(Generic[T]):
    """A queue with a descriptor that is readable while there is something in it."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """What to poll for reading; -1 once it is closed."""
        return self._fd

    def ring(self, events: Iterable[T]) -> None:
        """Report events; without effect once it is closed. Safe in any thread."""
        for event in events:
            self._events.put(event)
        if self._fd != -1:
            os.eventfd_write(self._fd, 1)

    def answer(self) -> list[T]:
        """All that was reported."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        events: list[T] = []
        with contextlib.suppress(queue.Empty):
            while True:
                events.append(self._events.get_nowait())
        return events

    def close(self) -> None:
        """Idempotent. No other thread may ring any more."""
        if self._fd != -1:
            os.close(self._fd)
            self._fd = -1
