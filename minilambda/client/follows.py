"""The follows among the calls of a core: what comes for them, and what their callers do."""

from __future__ import annotations

from minilambda.client.calls import Action, Call, Send
from minilambda.client.live import Following, Heard
from minilambda.messages import Credit, Output, Unfollow


class Follows:
    """What a shell says about the ``follow`` calls of a core, by their numbers. Others are passed by."""

    def __init__(self, calls: dict[int, Call]) -> None:
        self._calls = calls

    def consumed(self, number: int, size: int) -> list[Action]:
        """The caller is done with so many bytes, so that the broker may send more."""
        call = self._calls.get(number)
        more = call.following.consumed(size) if call is not None and call.following is not None else 0
        return [Send(Credit(number, more), None)] if more else []

    def dropped(self, number: int) -> list[Action]:
        """The caller wants no more; the call ends without an ``Ended``."""
        call = self._calls.get(number)
        if call is None or call.following is None:
            return []
        del self._calls[number]
        return [Send(Unfollow(number), None)] if call.awaited else []


def heard(following: Following, piece: Output, actions: list[Action]) -> bool:
    """A piece came. True where something before it is missing and must be asked for.

    Of more that does not fit, the answer to that is on its way.
    """
    chunk = following.take(piece)
    if chunk is not None:
        actions.append(Heard(piece.request, chunk))
    return chunk is None and following.missing == 1
