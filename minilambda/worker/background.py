"""A thread for what the agent's loop has no time for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable


class Background:
    """A thread that does one piece of work after the other. It starts with the first."""

    def __init__(self) -> None:
        # What to do, and when at the earliest, monotonic seconds; None: the end.
        self._work: queue.SimpleQueue[tuple[Callable[[], None], float] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None  # None: nothing to do yet, or closed

    def do(self, work: Callable[[], None], after: float) -> None:
        """Do it ``after`` seconds from now, or later."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="minilambda-cache", daemon=True)
            self._thread.start()
        self._work.put((work, time.monotonic() + after))

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            work, due = item
            time.sleep(max(0.0, due - time.monotonic()))  # this thread has nothing else to do
            work()

    def close(self, patience: float) -> None:
        """Wait up to ``patience`` seconds until all is done. Idempotent."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join(patience)
            self._thread = None
