"""The connection of a blocking client, and the loop that waits for its answers."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from math import inf

import zmq

from minilambda.client.calls import Ended, Source
from minilambda.client.connection import SLICE, Connection
from minilambda.client.live import Chunk
from minilambda.messages import Reply, Request

_IN, _OUT = int(zmq.POLLIN), int(zmq.POLLOUT)  # as plain numbers, which are faster to pass


@dataclass(slots=True)
class Ongoing:
    """A call that goes on while its caller does other things on the same connection."""

    number: int
    chunks: deque[Chunk] = field(default_factory=deque)  # of a ``follow``: what came, and was not taken yet
    outcome: Reply | Exception | None = None  # how it ended; None: it has not


class Link(Connection):
    """A connection whose caller waits for it.

    The usual wait is one blocking ``recv``, the cheapest that there is. Only while there is no connection does it
    poll, and the state of a connection that is there is looked at every ``SLICE``.
    """

    _ongoing: dict[int, Ongoing] | None = None  # by call; None: there never was one
    beside: int | None = None  # a descriptor that ends the wait of a ``step``, too, when it can be read

    def begin(
        self, message: Request, source: Source | None = None, patience: float | None = None, beside: int = 0
    ) -> Ongoing:
        """Begin a call whose end, and what is heard of it, every ``step`` and ``perform`` notes in what this returns.

        End one that has no outcome yet by ``leave``.
        """
        if self._ongoing is None:
            self._ongoing = {}
        call = Ongoing(self.start(message, source, patience, beside))
        self._ongoing[call.number] = call
        return call

    def leave(self, call: Ongoing) -> None:
        """Nobody waits for the call any more, or it has ended."""
        if self._ongoing is not None:
            self._ongoing.pop(call.number, None)
        if not self._socket.closed:
            self.unfollow(call.number)
        self.drop(call.number)

    def perform(self, message: Request, source: Source | None = None, patience: float | None = None) -> Reply:
        """One call from start to end. Raises what ends it other than by a reply."""
        number = self.start(message, source, patience)
        try:
            while True:
                for ended in self.step():
                    if ended.call == number:
                        if isinstance(ended.outcome, Exception):
                            raise ended.outcome
                        return ended.outcome
        except BaseException:
            self.drop(number)
            raise

    def step(self, timeout: float = inf, most: int = 1) -> list[Ended]:
        """Do what is due, wait at most ``timeout`` seconds for an answer, and tell which calls ended.

        At most so many answers are taken in.
        """
        now = time.monotonic()
        if now >= self._look:
            self._take_note(now)
        due = self._core.next_deadline()
        if now >= due:
            self._carry_out(self._core.tick(now))
            due = self._core.next_deadline()
        if not self._ended:
            seconds = min(timeout, SLICE, due - now)
            if self._pending or self.beside is not None:
                self._poll(seconds)
            else:
                self._receive(seconds, most)
        ended, self._ended = self._ended, []
        if ended and self._pending:
            self._forget()
        return ended if self._ongoing is None else self._told(ended)

    def _told(self, ended: list[Ended]) -> list[Ended]:
        """Note what belongs to calls that go on; the rest is the caller's."""
        ongoing = self._ongoing or {}
        heard, self.heard = self.heard, []
        for each in heard:
            if each.call in ongoing:
                ongoing[each.call].chunks.append(each.chunk)
        rest = []
        for one in ended:
            call = ongoing.pop(one.call, None)
            if call is None:
                rest.append(one)
            else:
                call.outcome = one.outcome
        return rest

    def _poll(self, seconds: float) -> None:
        """Wait until what is to be sent can be, or until something else happens, at most so many seconds."""
        poller = zmq.Poller()
        poller.register(self._socket, _IN | _OUT if self._pending else _IN)
        poller.register(self._events, _IN)
        if self.beside is not None:
            poller.register(self.beside, _IN)
        ready = dict(poller.poll(int(seconds * 1000) + 1 if seconds > 0 else 0))
        events = ready.get(self._socket, 0)
        if events & _OUT:
            self._flush()
        if self._events in ready:
            self._look = 0.0
        if events & _IN:
            self._receive(0.0, 1)
