"""A guest's input on its way into its pipe: what was there at the start, then what comes while it runs. Pure."""

from __future__ import annotations

import math

POUR = 64 * 1024
"""Bytes that are written to a pipe at a time, at most."""

FIRST, LONGEST = 0.005, 0.05
"""After so long a full pipe is tried again, and at most after so long; seconds."""


class Inlet:
    """The input of one job. Offsets and ``received`` count what came by ``offer``, not the body at the start."""

    def __init__(self) -> None:
        self.received = 0  # bytes that came and are in the pipe
        self.pour_at = math.inf  # when to write to the pipe, once the guest runs, seconds; ``inf``: there is nothing
        self._body = memoryview(b"")  # the rest of what was there at the start
        self._data = memoryview(b"")  # the rest of what came last
        self._number: int | None = None  # of the ``feed`` with that, not answered yet
        self._ends = False  # nothing comes after that
        self._closed = False  # the guest has been told so
        self._pause = FIRST  # until a full pipe is tried again, seconds
        self._decide(0.0)

    def refill(self, body: bytes, now: float) -> None:
        """The guest begins, with an empty pipe and the input ``body``. Nothing that came was in another pipe."""
        self._body = memoryview(body)
        self._closed = False
        self._decide(now)

    def offer(self, number: int, offset: int, data: bytes, ends: bool, now: float) -> None:
        """More came, in place of what came before it and is not in the pipe. What is there already is left out."""
        self._number = number
        self._data, self._ends = memoryview(b""), False
        if offset <= self.received and not self._closed:
            self._data = memoryview(data)[self.received - offset :]
            self._ends = ends and offset + len(data) >= self.received
        self._decide(now)

    def drop(self) -> None:
        """Who sent the last piece will send it again."""
        self._number = None
        self._data, self._ends = memoryview(b""), False
        if not len(self._body):
            self.pour_at = math.inf

    def answer(self) -> int | None:
        """The ``feed`` that can be answered now: all that can be taken of it is in the pipe."""
        if self._number is None or len(self._data) or (self._ends and not self._closed):
            return None
        number, self._number = self._number, None
        return number

    def next(self) -> tuple[bytes, bool]:
        """What to write to the pipe now, and whether to close it behind that."""
        rest = self._body if len(self._body) else self._data
        last = self._ends and len(rest) <= POUR and (rest is self._data or not len(self._data))
        return bytes(rest[:POUR]), last

    def tried(self, now: float) -> None:
        """``next`` is being written; ``poured`` says how far."""
        self.pour_at = now + self._pause

    def poured(self, size: int, now: float) -> None:
        """So many bytes of ``next`` are in the pipe, which is closed if that was all and the last."""
        asked, last = self.next()
        size = min(size, len(asked))
        if len(self._body):
            self._body = self._body[size:]
        else:
            self._data = self._data[size:]
            self.received += size
        if size == len(asked):
            self._closed = self._closed or last
            self._pause = FIRST
            self._decide(now)
        else:
            self._pause = FIRST if size else min(LONGEST, 2 * self._pause)
            self.pour_at = now + self._pause

    def _decide(self, now: float) -> None:
        waits = len(self._body) or len(self._data) or self._ends
        self.pour_at = now if waits and not self._closed else math.inf
