"""What the broker's shell has not been able to send yet, bounded for each connection.

A peer that stops reading costs the broker a bounded amount of memory and nobody else any time: what is beyond the
bounds is dropped and reported, and the peer asks again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from minilambda.broker.events import Route, Unreachable
from minilambda.messages import Message

LARGE = 64 * 1024
"""From this size on a message is counted until the transport is done with it, bytes."""

MAX_FLYING = 64 * 1024 * 1024
"""Once so much of one connection is with the transport, its messages wait here, bytes."""

MAX_ALL_FLYING = 512 * 1024 * 1024
"""Once so much of all connections is with the transport, those wait of whom ``SHARE`` is, bytes."""

SHARE = 1024 * 1024
"""What is with the transport of one connection in spite of all the others, bytes, and one message more."""

MAX_WAITING = 64
"""Messages of one connection that wait here, at most."""


class Outcome(Enum):
    """What became of an attempt to send."""

    SENT = "sent"
    FULL = "full"  # not now
    GONE = "gone"  # never: there is no such connection


SENT, FULL, GONE = Outcome


class Flight(Protocol):
    """A message that the transport has not necessarily sent yet."""

    @property
    def done(self) -> bool: ...


Put = Callable[[list[bytes], bool], "tuple[Outcome, Flight | None]"]
"""Tries to send frames without blocking; with True, also says later when they are gone."""


@dataclass(slots=True)
class _Connection:
    waiting: deque[tuple[Route, Message, list[bytes], int]] = field(default_factory=deque)  # with bytes, in order
    flying: deque[tuple[Flight, int]] = field(default_factory=deque)  # large messages on their way, with bytes
    bytes: int = 0  # of what is flying

    def land(self) -> int:
        """Forget what the transport is done with; tells how much that was, bytes."""
        before = self.bytes
        while self.flying and self.flying[0][0].done:
            self.bytes -= self.flying.popleft()[1]
        return before - self.bytes


class Outbox:
    """Sends what can be sent, keeps a little of what can't, and says what was dropped."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._connections: dict[bytes, _Connection] = {}  # those with something waiting or flying
        self._flying = 0  # of all connections, bytes
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
        frames = [*route, *frames]
        connection = self._connections.get(route[0]) if self.waiting else None
        if connection is None:
            if size < LARGE:
                put = self._put
                outcome = put(frames, False)[0]
                if outcome is SENT:
                    return
                if outcome is GONE:
                    self.lost.append(Unreachable(route, message))
                    return
            connection = self._connections[route[0]] = _Connection()
            self.waiting = True
        if len(connection.waiting) >= MAX_WAITING:
            self.lost.append(Unreachable(route, message))
            return
        connection.waiting.append((route, message, frames, size))
        self._advance(route[0], connection)

    def flush(self) -> None:
        """Try again what waits."""
        for key, connection in list(self._connections.items()):
            self._advance(key, connection)

    def dropped(self) -> list[Unreachable]:
        """What could not be sent since this was asked last."""
        dropped, self.lost = self.lost, []
        return dropped

    def _advance(self, key: bytes, connection: _Connection) -> None:
        self._flying -= connection.land()
        while connection.waiting and connection.bytes < (MAX_FLYING if self._flying < MAX_ALL_FLYING else SHARE):
            route, message, frames, size = connection.waiting[0]
            outcome, flight = self._put(frames, size >= LARGE)
            if outcome is FULL:
                break
            connection.waiting.popleft()
            if outcome is GONE:
                self.lost.append(Unreachable(route, message))
            elif flight is not None:
                connection.flying.append((flight, size))
                connection.bytes += size
                self._flying += size
        if not connection.waiting and not connection.flying:
            del self._connections[key]
            self.waiting = bool(self._connections)
