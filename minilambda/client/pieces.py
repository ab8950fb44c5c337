"""The bytes of uploads on their way: a few pieces of each at a time, so that both sides have something to do.

A piece has a request number of its own. The broker takes pieces in their order only, and says in each answer how much
is there; so one that it did not take means that those behind it were not taken either, and the upload goes on from
there. Pure: no socket, no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from minilambda.client.calls import MAX_IN_PLACE, PIECE, Action, Call, Piece, Send
from minilambda.messages import Put

IN_FLIGHT = 2
"""Pieces of one upload that have no answer yet, at most."""


@dataclass(slots=True)
class _Course:
    """How far an upload is."""

    asked: bool = False  # the broker has said how much it has
    received: int = 0  # bytes that it has
    sent: int = 0  # bytes that it has or that are on their way
    flying: dict[int, int] = field(default_factory=dict)  # request number of a piece to where it ends, bytes


class Pieces:
    """The pieces of all uploads of a connection. ``number`` gives the next request number."""

    def __init__(self, number: Callable[[], int]) -> None:
        self._number = number
        self._courses: dict[int, _Course] = {}  # by the call that uploads
        self._uploads: dict[int, int] = {}  # request number of a piece to the call

    def __contains__(self, number: object) -> bool:
        """A piece with this request number is on its way."""
        return number in self._uploads

    def upload(self, number: int) -> int:
        """The call that has sent the piece with this request number; the number itself where there is none."""
        return self._uploads.get(number, number)

    def send(self, call: Call, put: Put, actions: list[Action]) -> int:
        """Send what may go for a call now; tells how much of it is on its way, bytes.

        The first request has no bytes, and asks what is there, unless all is little enough to be sent at once. So does
        the one after a time without an answer: pieces may have been lost, or may only take long.
        """
        course = self._courses.setdefault(put.request, _Course())
        if call.awaited:
            self.halt(put.request)
            course.asked = False
        source = call.source
        if source is None or not (course.asked or put.size <= MAX_IN_PLACE):
            actions.append(Send(put, None))
            return 0
        if not course.asked:
            actions.append(Send(put, Piece(source, 0, put.size)))
            return put.size
        while len(course.flying) < IN_FLIGHT and course.sent < put.size:
            number, offset, size = self._number(), course.sent, min(PIECE, put.size - course.sent)
            course.sent += size
            course.flying[number] = course.sent
            self._uploads[number] = put.request
            actions.append(Send(replace(put, request=number, offset=offset), Piece(source, offset, size)))
        return course.sent - course.received

    def answered(self, call: Call, number: int, received: int) -> bool | None:
        """The broker has so many bytes, says its answer to that request; False where it has not taken the piece.

        None for the answer to a question that was answered before.
        """
        course = self._courses[call.message.request]
        end = course.flying.pop(number, None)
        self._uploads.pop(number, None)
        if end is None and course.asked:
            return None
        before, course.received = course.received, received
        if end is not None and received >= end:
            course.sent = max(course.sent, received)
            return True
        first, course.asked = not course.asked, True
        self.halt(call.message.request)
        return first or received > before

    def halt(self, number: int) -> None:
        """What a call has on its way counts as lost: the upload goes on from what the broker has."""
        course = self._courses.get(number)
        if course is not None:
            for piece in course.flying:
                del self._uploads[piece]
            course.flying.clear()
            course.sent = course.received

    def forget(self, number: int) -> None:
        """The call has ended."""
        self.halt(number)
        self._courses.pop(number, None)
