"""Requests that the broker has refused for the moment, and when they are sent again. Pure.

``busy`` passes as the broker's queue gets shorter. ``quota_exceeded`` passes as the client's own jobs end: each that
does lets the request go that has waited longest, and while something is under way there is no end to the patience.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sized

from minilambda.client.calls import Call, Patience

_PASSING = ("busy", "quota_exceeded")  # codes of what passes by itself, where the broker says when
_TOGETHER = 16  # so many wait no longer than the broker said; more come one after the other, each so much later


class Refusals:
    """The calls of a connection that wait for a place, oldest first."""

    def __init__(self, calls: Sized, patience: Patience) -> None:
        self._calls = calls  # all that have not ended
        self._patience = patience
        self._held: OrderedDict[int, Call] = OrderedDict()  # over the quota, by request number, first to go first
        self._freed = 0.0  # when the last job ended, seconds

    def again(self, call: Call, code: str, after: float | None, now: float) -> float | None:
        """When to send a request again that was refused, seconds; None where that is no use, or was tried long enough.

        ``after``: the broker said to wait so long, seconds; None where it said nothing.
        """
        if after is None or code not in _PASSING:
            return None
        after *= 1 + self._patience.spread
        if code == "busy":
            return now + after if now + after <= call.started + self._patience.busy else None
        held, longest = self._held, self._patience.busy
        end = max(call.started, self._freed) + longest
        if after > longest or (now + after > end and len(held) + 1 >= len(self._calls)):
            return None
        held[call.message.request] = call
        later = now + after * max(1.0, len(held) / _TOGETHER)
        return later if now + after > end else min(later, end)

    def sent(self, number: int) -> None:
        """The request is with the broker again, or its call is over."""
        if self._held:
            self._held.pop(number, None)

    def freed(self, now: float) -> Call | None:
        """A job has ended, and so the quota may have a place for the call that is returned."""
        self._freed = now
        return next(iter(self._held.values()), None)
