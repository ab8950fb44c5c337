"""How long the next job of a module will keep a slot, by what the last ones did. Pure.

A worker that runs short jobs must have some of them in hand, or its slots wait for the broker more than they work; one
that runs long jobs must not, since what it has in hand waits there while others become free. So what a worker may hold
beyond its slots is counted in time.
"""

from __future__ import annotations

HANDING_OVER = 250
"""What a slot waits between two jobs beside running them, about, microseconds."""

UNKNOWN = 3_600_000_000
"""A job of a module of which no job has ended takes so long: as good as for ever, microseconds."""

MAX_MODULES = 4096
"""Modules that are remembered, at most."""

SHARE = 64
"""A run moves the mean by this part of its distance from it: a stall of the machine is worth little, and a run that is
longer by far is felt at once."""


class Forecast:
    """What the jobs of each module take on average."""

    def __init__(self) -> None:
        self._by_module: dict[str, int] = {}  # digest to what its next job takes, microseconds; oldest module first

    def of(self, digest: str) -> int:
        """What the next job of the module keeps a slot, microseconds."""
        return self._by_module.get(digest, UNKNOWN)

    def note(self, digest: str, busy_ms: float) -> None:
        """A job of the module has ended that kept its slot so long, milliseconds."""
        mean, took = self._by_module.get(digest), int(busy_ms * 1000) + HANDING_OVER
        if mean is None:
            mean = took
            while len(self._by_module) >= MAX_MODULES:
                del self._by_module[next(iter(self._by_module))]
        mean += (took - mean) // SHARE
        self._by_module[digest] = mean if mean < UNKNOWN else UNKNOWN
