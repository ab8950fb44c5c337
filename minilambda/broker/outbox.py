"""What the broker has sent and its peers have not taken yet, bounded for each connection and for all together.

A peer that stops reading costs the broker a bounded amount of memory and nobody else any time. The transport queues
what a peer does not take, and says of a message that is *watched* when it has gone out; all before it has gone then
too. So large messages are watched, and of small ones each that comes after ``MARK`` bytes. What would be beyond the
bounds waits here. When too much waits, the peer for whom most waits loses its last message, one that takes nothing
before all others; that is reported, so that it can be told to ask again. And while much is on its way, a peer that
takes nothing for a while is hung up on, since only that gives back what the transport holds: so no crowd of them keeps
the room from those who read.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Protocol

from minilambda.broker.events import Route, Unreachable
from minilambda.messages import Message, Reply

MARK = 96 * 1024
"""So much of one connection is with the transport unwatched, at most, bytes."""

SMALL = 512
"""Smaller messages don't count: the transport takes a thousand for a connection, and to watch some would cost all."""

OVERHEAD, QUEUED = 256, 1024
"""What a message takes beside its content, about, and what more while it waits here, bytes."""

MAX_UNWATCHED = 4096
"""Connections whose unwatched bytes are remembered, at most; the oldest makes room."""

MAX_FLYING = 4 * 1024 * 1024
"""Once so much of one connection is with the transport, its messages wait here, bytes."""

MAX_ALL_FLYING = 32 * 1024 * 1024
"""Once so much of all connections is with the transport, all wait that have their ``SHARE``, bytes."""

SHARE = 160 * 1024
"""What may be with the transport of one connection in spite of all the others, bytes."""

MAX_WAITING = 256
"""Messages of one connection that wait here, at most."""

MAX_ALL_WAITING = 32 * 1024 * 1024
"""What waits here for all connections, bytes: once it is more, the messages go for which there is no room."""

CROWDED = 8 * 1024 * 1024
"""While so much is with the transport, or waits here, those are hung up on that take nothing, bytes."""

PATIENCE, HURRY = 10.0, 2.5
"""... for so long, and where there is no room for others any more for so long, seconds."""

STUCK = 0.5
"""Who has taken nothing for so long loses messages before those who take some, seconds."""

LONGEST_STEP = 0.1
"""More does not count of the time between two looks, seconds: nobody is to blame when the broker stood still."""


class Outcome(Enum):
    """What became of an attempt to send."""

    SENT = "sent"
    FULL = "full"  # not now
    GONE = "gone"  # never: there is no such connection


SENT, FULL, GONE = Outcome


class Flight(Protocol):
    """A message that the transport has not necessarily sent yet."""

    left: int  # so much of it had not gone out when ``look`` was called last, bytes

    def look(self) -> int:
        """See how much has not gone out yet, bytes."""


Put = Callable[[list[bytes], bool], "tuple[Outcome, Flight | None]"]
"""Tries to send frames without blocking; with True, also says later how much of them is gone."""

Item = tuple[Route, Message, list[bytes], int]
"""A message that waits, with its frames and their bytes."""


@dataclass(slots=True)
class _Connection:
    moved_at: float  # when it took something last, or began to be waited for, seconds
    full: bool = False  # the transport took nothing more for it at the last try
    waiting: deque[Item] = field(default_factory=deque)  # in order
    waits: int = 0  # of what waits, bytes
    flying: deque[tuple[Flight, int]] = field(default_factory=deque)  # with the bytes before it that were not watched
    bytes: int = 0  # of what is flying

    @property
    def owes(self) -> bool:
        """It is the peer's turn to take something."""
        return self.full or bool(self.flying)

    def land(self, now: float) -> int:
        """See what has gone out; tells how much that was, bytes."""
        before = self.bytes
        while self.flying:
            flight, ahead = self.flying[0]
            was = flight.left
            left = flight.look()
            if left == was:
                break
            self.bytes -= was - left + ahead
            self.flying[0] = flight, 0
            if left:
                break
            self.flying.popleft()
        if self.bytes < before:
            self.moved_at = now
        return before - self.bytes


def _without_rows(message: Message) -> Message:
    """What is to be known of a message that gets lost: a list has its rows in its frames too, in much less room."""
    if not isinstance(message, Reply):
        return message
    rows: dict[str, Any] = {each.name: () for each in fields(message) if type(getattr(message, each.name)) is tuple}
    return replace(message, **rows) if rows else message


class Outbox:
    """Sends what can be sent, keeps a little of what can't, and says what was dropped."""

    def __init__(self, put: Put, hang_up: Callable[[bytes], object] = lambda connection: None) -> None:
        """``hang_up`` ends a connection, by the first frame of its routes, as far as that is possible."""
        self._put = put
        self._hang_up = hang_up
        self._connections: dict[bytes, _Connection] = {}  # those with something waiting or flying
        self._unwatched: dict[bytes, int] = {}  # by connection: bytes since the last message that was watched
        self._flying = 0  # of all connections, bytes
        self._waits = 0  # likewise
        self._clock = 0.0  # passes while something waits or flies, but not while the broker stands still, seconds
        self._looked_at = 0.0  # monotonic, seconds
        self.waiting = False  # whether ``flush`` has anything to do
        self.lost: list[Unreachable] = []  # what could not be sent, until ``dropped`` is asked
        self.counting = False  # whether somebody wants to know the next two
        self.messages = 0  # that were to be sent so far
        self.bytes = 0  # of them, without envelopes

    def send(self, route: Route, message: Message, frames: list[bytes]) -> None:
        """Send a message behind what waits for the same connection; ``frames`` are those behind the envelope."""
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        if self.counting:
            self.messages += 1
            self.bytes += size
        key = route[0]
        frames = [*route, *frames]
        connection = self._connections.get(key) if self.waiting else None
        # Most connections have nothing waiting. Then a small message takes no look at what has landed meanwhile.
        if connection is None or (not connection.waiting and connection.bytes < SHARE):
            sum_ = 0 if size < SMALL else self._unwatched.get(key, 0) + size + OVERHEAD
            if sum_ < MARK:
                put = self._put
                outcome = put(frames, False)[0]
                if outcome is SENT:
                    if sum_:
                        self._unwatched[key] = sum_
                        if len(self._unwatched) > MAX_UNWATCHED:
                            del self._unwatched[next(iter(self._unwatched))]
                    return
                if outcome is GONE:
                    self._unwatched.pop(key, None)
                    self.lost.append(Unreachable(route, message))
                    return
            if connection is None:
                connection = self._connections[key] = _Connection(self._clock)
                self.waiting = True
        if len(connection.waiting) >= MAX_WAITING:
            self.lost.append(Unreachable(route, message, behind=True))
            return
        size += OVERHEAD + QUEUED
        connection.waiting.append((route, _without_rows(message), frames, size))
        connection.waits += size
        self._waits += size
        self._advance(key, connection)
        while self._waits > MAX_ALL_WAITING and self._shed():
            pass

    def flush(self) -> None:
        """Try again what waits, those first who are owed least, and hang up on who has taken nothing for too long."""
        now = time.monotonic()
        self._clock += min(now - self._looked_at, LONGEST_STEP)
        self._looked_at = now
        for connection in self._connections.values():
            self._flying -= connection.land(self._clock)
        for key, connection in sorted(self._connections.items(), key=lambda item: item[1].bytes + item[1].waits):
            self._advance(key, connection)
        if self._flying >= CROWDED or self._waits >= CROWDED:
            crammed = self._flying >= MAX_ALL_FLYING or self._waits >= MAX_ALL_WAITING // 2
            self._end_longest(HURRY if crammed else PATIENCE)

    def dropped(self) -> list[Unreachable]:
        """What could not be sent since this was asked last."""
        dropped, self.lost = self.lost, []
        return dropped

    def _advance(self, key: bytes, connection: _Connection) -> None:
        """Send of what waits for a connection what may be sent."""
        self._flying -= connection.land(self._clock)
        while connection.waiting and self._may_fly(connection, connection.waiting[0][3]):
            route, message, frames, size = connection.waiting[0]
            sum_ = self._unwatched.get(key, 0) + size
            outcome, flight = self._put(frames, sum_ >= MARK)
            if outcome is FULL:
                if not connection.full and not connection.flying:
                    connection.moved_at = self._clock
                connection.full = True
                break
            connection.full = False
            self._take(connection, connection.waiting.popleft())
            if outcome is GONE:
                self.lost.append(Unreachable(route, message))
            elif flight is None:
                self._unwatched[key] = sum_
            else:
                if not connection.flying:
                    connection.moved_at = self._clock
                self._unwatched.pop(key, None)
                connection.flying.append((flight, sum_ - flight.left))
                connection.bytes += sum_
                self._flying += sum_
        if not connection.waiting and not connection.flying:
            del self._connections[key]
            self.waiting = bool(self._connections)

    def _may_fly(self, connection: _Connection, size: int) -> bool:
        if self._flying < MAX_ALL_FLYING:
            return connection.bytes < MAX_FLYING
        return connection.bytes + size <= SHARE

    def _take(self, connection: _Connection, item: Item) -> None:
        """A message waits no more."""
        connection.waits -= item[3]
        self._waits -= item[3]

    def _shed(self) -> bool:
        """Drop the last message of the one that should have it least, unless it is the only one that waits at all."""
        before = self._clock - STUCK
        waiting = [each for each in self._connections.values() if each.waiting]
        most = max(waiting, key=lambda each: (each.owes and each.moved_at < before, each.waits))
        if len(most.waiting) == 1 and most.waits == self._waits:
            return False
        item = most.waiting.pop()
        self._take(most, item)
        self.lost.append(Unreachable(item[0], item[1], behind=True))
        return True

    def _end_longest(self, patience: float) -> None:
        """Hang up on the peer that has not taken what is on its way for the longest time, if that is too long."""
        stuck = [(each.moved_at, key) for key, each in self._connections.items() if each.owes]
        if not stuck:
            return
        since, key = min(stuck)
        if self._clock - since >= patience:
            self._connections[key].moved_at = self._clock  # if that changes nothing, the others have their turn
            self._hang_up(key)
