"""Workers that are equally loaded, in the order in which they should be taken."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from minilambda.broker.registry import Worker

RECENT = 8
"""Workers of a bucket that take turns, at most."""


class Bucket:
    """The workers that came last take turns, the one that has waited longest first; the others stand behind them.

    So where there are few, each is used as often as any. Where there are thousands and little to do, a few of them
    do it, and what the processors of both ends and the workers themselves keep about them stays at hand; and still
    a worker that fails all that it gets does not get everything, just because it is soon back.
    """

    __slots__ = ("others", "recent")

    def __init__(self) -> None:
        self.recent: dict[Worker, None] = {}  # the last that came, RECENT at most, oldest first
        self.others: dict[Worker, None] = {}  # those before, oldest first

    def __len__(self) -> int:
        return len(self.recent) + len(self.others)

    def __iter__(self) -> Iterator[Worker]:
        yield from self.others
        yield from self.recent

    def add(self, worker: Worker) -> None:
        """The worker, which is not here, comes last."""
        recent = self.recent
        recent[worker] = None
        if len(recent) > RECENT:
            oldest = next(iter(recent))
            self.others[oldest] = recent.pop(oldest)

    def remove(self, worker: Worker) -> None:
        """Raises ``KeyError`` where it is not here."""
        if worker in self.recent:
            del self.recent[worker]
        else:
            del self.others[worker]

    def turns(self) -> dict[Worker, None]:
        """Those that take turns, the next one first; some where the bucket is not empty."""
        recent, others = self.recent, self.others
        if not recent and others:
            # Only from the end: a dict finds its first entry by looking at all places where there were others before.
            count = min(RECENT, len(others))
            recent.update(reversed([*map(dict.popitem, repeat(others, count))]))
        return recent
