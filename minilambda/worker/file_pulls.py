"""Pulling files from the broker: many at a time, whose sizes nobody has told. Pure.

A job names its files by digest alone, so the first piece of each is small: it brings the size. Like ``transfers``, this
never has more than a window of bytes outstanding.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from minilambda.fields import MAX_FRAME

FIRST = 16 * 1024
"""What is asked of a file first, bytes: most files are no larger, and their number is what takes time then."""


@dataclass(slots=True)
class Pull:
    """One file on its way."""

    digest: str  # "sha256:" and 64 hex digits
    total: int = -1  # size of the whole, bytes; -1: not known yet
    asked: int = 0  # bytes asked for so far, in order; more than ``total`` while that is not known
    received: int = 0  # bytes that arrived so far, in order
    hasher: Any = field(default_factory=hashlib.sha256)  # of what arrived

    @property
    def complete(self) -> bool:
        return self.received == self.total


class FilePulls:
    """The files that are on their way: first come, first asked for."""

    def __init__(self, window: int) -> None:
        self.window = window  # bytes asked for and not arrived, at most
        self.outstanding = 0  # bytes asked for and not arrived
        self.pulls: OrderedDict[str, Pull] = OrderedDict()  # under way, by digest, the oldest first

    def start(self, digest: str) -> None:
        """Wants a file; one that is on its way already is left as it is."""
        if digest not in self.pulls:
            self.pulls[digest] = Pull(digest)

    def stop(self, digest: str) -> None:
        """Wants it no more; what still arrives of it is ignored."""
        pull = self.pulls.pop(digest, None)
        if pull is not None:
            self.outstanding -= pull.asked - pull.received

    def reset(self) -> None:
        """The broker has forgotten what it was asked: everything missing is asked for again."""
        self.outstanding = 0
        for pull in self.pulls.values():
            pull.asked = pull.received

    def requests(self) -> list[tuple[str, int, int]]:
        """What to ask for now: (digest, offset, size)."""
        wanted: list[tuple[str, int, int]] = []
        for pull in self.pulls.values():
            while self.outstanding < self.window and (size := self._next(pull)) > 0:
                wanted.append((pull.digest, pull.asked, size))
                pull.asked += size
                self.outstanding += size
            if self.outstanding >= self.window:
                break
        return wanted

    @staticmethod
    def _next(pull: Pull) -> int:
        """Bytes to ask for next; 0: nothing, for now."""
        if pull.total < 0:
            return FIRST if pull.asked == 0 else 0
        return min(MAX_FRAME, pull.total - pull.asked)

    def arrived(self, digest: str, offset: int, total: int, data: bytes) -> Pull | None:
        """Takes a piece. The pull when the piece was expected, None when it is to be ignored.

        A holder that has nothing (any more), or something of another size, makes the pull's ``total`` -1.
        """
        pull = self.pulls.get(digest)
        if pull is None or offset != pull.received or pull.received >= pull.asked:
            return None
        known = pull.total >= 0
        expected = min(MAX_FRAME if known and offset else FIRST, total - offset)
        if (known and total != pull.total) or total <= 0 or len(data) != expected:
            self.stop(digest)
            pull.total = -1
            return pull
        if not known:
            self.outstanding -= pull.asked - len(data)
            pull.total, pull.asked = total, len(data)
        pull.received += len(data)
        self.outstanding -= len(data)
        pull.hasher.update(data)
        if pull.complete:
            del self.pulls[digest]
        return pull
