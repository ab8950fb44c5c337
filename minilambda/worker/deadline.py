"""One timer thread per runner: at the deadline it bumps the engines' epoch, which traps a running guest."""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable

_IDLE = 3600.0  # seconds between looks where no deadline is set


class DeadlineTimer:
    """Calls ``ring`` once per armed deadline that passes. Arming costs no thread and, as a rule, no wake-up:

    the thread sleeps until the earliest moment it was told of, and looks only then whether that still counts.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        # Plain locks: a condition's functions would be a tenth of what a short run costs.
        self._lock = _thread.allocate_lock()  # guards all below
        self._alarm = _thread.allocate_lock()  # free: the thread is to look at once
        self._alarm.acquire()
        self._deadline: float | None = None  # monotonic seconds; None: nothing is armed
        self._wakes_at = 0.0  # monotonic seconds when the thread looks next
        self.rang = False  # the deadline armed last has passed

    def start(self) -> None:
        """Make the thread. Once."""
        _thread.start_new_thread(self._watch, ())  # threading.Thread would wait until it runs

    def arm(self, seconds: float) -> None:
        """Set the deadline ``seconds`` from now, instead of any other."""
        deadline = time.monotonic() + seconds
        with self._lock:
            self.rang = False
            self._deadline = deadline
            if deadline < self._wakes_at and self._alarm.locked():
                self._alarm.release()

    def disarm(self) -> None:
        """Take the deadline back. ``ring`` is not called after this."""
        with self._lock:
            self._deadline = None

    def _watch(self) -> None:
        while True:
            with self._lock:
                now = time.monotonic()
                if self._deadline is not None and self._deadline <= now:
                    self._deadline = None
                    self.rang = True
                    self._ring()
                self._wakes_at = now + _IDLE if self._deadline is None else self._deadline
                wait = self._wakes_at - now
            self._alarm.acquire(timeout=wait)
