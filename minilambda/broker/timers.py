"""Deadlines by key: set, moved and cleared in O(log n), with memory in proportion to those that are set."""

from __future__ import annotations

import heapq
from math import inf
from typing import Any

Key = tuple[Any, ...]
"""What a deadline is for: its kind, then whatever tells it from others of its kind."""


class Timers:
    """A heap whose stale entries are dropped when they come up, or when they outnumber the live ones."""

    def __init__(self) -> None:
        self._when: dict[Key, tuple[float, int]] = {}  # key to its live entry: time in seconds, entry number
        self._heap: list[tuple[float, int, Key]] = []  # live and stale entries
        self._number = 0  # of the last entry, so that keys are never compared
        self.soonest = inf  # no deadline is earlier, seconds: the exact one may have been cleared

    def __len__(self) -> int:
        return len(self._when)

    def set(self, key: Key, when: float) -> None:
        """Make ``key`` due at ``when`` (seconds); an earlier deadline of the same key is forgotten."""
        self._number += 1
        self._when[key] = (when, self._number)
        heapq.heappush(self._heap, (when, self._number, key))
        self.soonest = min(self.soonest, when)
        if len(self._heap) > 2 * len(self._when) + 64:
            self._heap = [(at, number, key) for key, (at, number) in self._when.items()]
            heapq.heapify(self._heap)

    def clear(self, key: Key) -> None:
        self._when.pop(key, None)

    def next(self) -> float | None:
        """The earliest deadline, seconds; None without any."""
        heap = self._heap
        while heap:
            when, number, key = heap[0]
            if self._when.get(key) == (when, number):
                return when
            heapq.heappop(heap)
        return None

    def due(self, now: float) -> list[Key]:
        """The keys whose time has come, earliest first. They are cleared."""
        keys: list[Key] = []
        while (when := self.next()) is not None and when <= now:
            key = heapq.heappop(self._heap)[2]
            del self._when[key]
            keys.append(key)
        self.soonest = inf if when is None else when
        return keys
