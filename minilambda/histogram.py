"""How often a time fell into which bucket: plain numbers that one thread adds to and any may read."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5)
"""Upper bounds of the buckets of all histograms, milliseconds."""


class Histogram:
    """Times by bucket."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)  # by bucket, the last for what is above all bounds
        self.total = 0.0  # of all times, milliseconds

    def add(self, value: float) -> None:
        """Count a time, milliseconds."""
        self.counts[bisect_left(BOUNDS, value)] += 1
        self.total += value
