"""The connection of an ``AsyncClient``: the event loop says when there is something to do."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

import zmq

from minilambda.client.calls import Ended, Patience, Source
from minilambda.client.connection import Connection
from minilambda.client.live import Chunk
from minilambda.errors import Unreachable
from minilambda.keys import PeerKeys
from minilambda.messages import Cancel, Reply, Request

Outcome = Reply | Exception
Waiter = Callable[[Outcome], None] | asyncio.Future[Reply]
"""Who is told the end of a call."""
Listener = Callable[[Chunk], None]

_IN, _OUT = int(zmq.POLLIN), int(zmq.POLLOUT)  # as plain numbers, which are faster to pass
_EVENTS = int(zmq.EVENTS)
_MOST = 256  # answers that are taken in before other tasks get their turn
_MANY = 16  # with so many calls under way, answers are let gather: a loop that wakes for each costs twice the time
_GATHER = 0.001  # answers gather for so long, seconds
_LEAVE, _LEAVE_EACH = 1.0, 0.001  # the broker has so long to take note of cancels, and so long for each, seconds
_PARTINGS = 256  # cancels that nobody waits for under way, at most
_PARTING = 30.0  # a cancel that nobody waits for is tried for so long, seconds


class AsyncLink(Connection):
    """A connection that belongs to an event loop, of which it needs ``add_reader`` and ``call_at`` only.

    Its socket's descriptor signals once for whatever has come since the socket was last used, so each use is followed
    by a look at what there is.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[Any],
        endpoint: str,
        patience: Patience,
        keys: PeerKeys | None = None,
    ) -> None:
        self.loop = loop
        self.closed = True  # there is no socket
        self._waiters: dict[int, Waiter] = {}  # by call
        self._jobs: dict[int, str] = {}  # by call: the job that nobody wants without the waiter
        self._listeners: dict[int, Listener] = {}  # by the call of a ``follow``
        self._partings: set[int] = set()  # cancels that nobody waits for, by call
        self._to_part: deque[str] = deque()  # jobs that are to be cancelled after them
        self._readers: tuple[int, ...] = ()  # descriptors that the loop watches
        self._timer: asyncio.TimerHandle | None = None  # for what is due next
        self._due = inf  # when the timer goes off, seconds
        self._again: asyncio.Handle | None = None  # a turn that will come by itself
        self._parted: asyncio.Future[None] | None = None  # done when there are no partings
        super().__init__(context, endpoint, patience, keys)

    # --- calls ----------------------------------------------------------------------------------------

    def begin(
        self,
        message: Request,
        waiter: Waiter,
        source: Source | None = None,
        patience: float | None = None,
        *,
        listener: Listener | None = None,
        beside: int = 0,
    ) -> int:
        """Begin a call; ``waiter`` is told its end, once and not before this returns. ``patience`` is in seconds.

        ``listener`` is told what is heard of a ``follow``; ``beside`` is for ``Core``.
        """
        number = self.start(message, source, patience, beside)
        self._waiters[number] = waiter
        if job := _job_of(message):
            self._jobs[number] = job
        if listener is not None:
            self._listeners[number] = listener
        self._follow_up()
        return number

    async def perform(self, message: Request, source: Source | None = None, patience: float | None = None) -> Reply:
        """One call from start to end. Raises what ends it other than by a reply. A task's cancel cancels its job."""
        future: asyncio.Future[Reply] = self.loop.create_future()
        number = self.begin(message, future, source, patience)
        try:
            return await future
        finally:
            self.abandon(number)

    def abandon(self, number: int) -> None:
        """Nobody waits for the call any more: if it has not ended, its job is cancelled."""
        if self._waiters.pop(number, None) is None:
            return  # it has ended
        job = self._jobs.pop(number, "")
        if self._listeners.pop(number, None) is not None and not self.closed:
            self.unfollow(number)
        self.drop(number)
        if job:
            self.part(job)

    def consumed(self, number: int, size: int) -> None:
        if not self.closed:
            super().consumed(number, size)
            self._follow_up()

    def part(self, job_id: str) -> None:
        """Cancel a job; nobody waits for the answer. Many go some at a time: a broker drops answers that pile up."""
        if not self.closed:
            self._to_part.append(job_id)
            self._part_some()

    def _part_some(self) -> None:
        while self._to_part and len(self._partings) < _PARTINGS:
            self._partings.add(self.start(Cancel(0, self._to_part.popleft()), patience=_PARTING))
        self._follow_up()

    async def leave(self) -> None:
        """Tell those who wait that there is no connection any more, cancel their jobs, and close.

        The broker gets some time to take note of all cancels.
        """
        waiters, self._waiters = self._waiters, {}
        for number, waiter in waiters.items():
            self.drop(number)
            if job := self._jobs.pop(number, ""):
                self.part(job)
            _inform(waiter, RuntimeError("The client was closed."))
        try:
            if self._partings:
                self._parted = self.loop.create_future()
                await asyncio.wait([self._parted], timeout=_LEAVE + _LEAVE_EACH * len(self._to_part))
        finally:
            self.close()

    # --- the loop -------------------------------------------------------------------------------------

    def _connect(self) -> None:
        super()._connect()
        self.closed = False
        self._readers = self.descriptors()
        mine, watcher = self._readers
        self.loop.add_reader(mine, self._readable)
        self.loop.add_reader(watcher, self._changed)

    def close(self) -> None:
        for handle in (self._timer, self._again):
            if handle is not None:
                handle.cancel()
        self._timer = self._again = None
        self._due = inf
        self.closed = True
        readers, self._readers = self._readers, ()
        if not self.loop.is_closed():
            for descriptor in readers:
                self.loop.remove_reader(descriptor)
        super().close()

    def _readable(self) -> None:
        if len(self._core) < _MANY:
            if self._again is None:
                self._turn()
            return
        self._get(_EVENTS)  # takes the signal; while an answer waits there is no other
        if self._again is None:
            self._again = self.loop.call_at(self.loop.time() + _GATHER, self._turn)

    def _changed(self) -> None:
        self.noticed()
        self._turn()

    def _turn(self) -> None:
        """Do what there is to do, tell the waiters, and see to it that the next turn comes."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        ended = self.pump(_MOST)
        try:
            if self.heard:
                self._pass_on()
        finally:  # an interrupt while a listener runs keeps no other task from its end
            for one in ended:
                self._tell(one)
        if (self.more or self._connected()) and self._again is None:
            self._again = self.loop.call_soon(self._turn)
        self._set_timer()

    def _connected(self) -> bool:
        """What waits for a connection can be sent: it came behind the look at it, and its signal was taken since."""
        return bool(self._pending) and not self.closed and bool(int(self._get(_EVENTS)) & _OUT)

    def _pass_on(self) -> None:
        heard, self.heard = self.heard, []
        for one in heard:
            listener = self._listeners.get(one.call)
            if listener is not None:
                listener(one.chunk)

    def _tell(self, ended: Ended) -> None:
        waiter, job = self._waiters.pop(ended.call, None), self._jobs.pop(ended.call, "")
        if self._listeners:
            self._listeners.pop(ended.call, None)
        if waiter is not None:
            if job and isinstance(ended.outcome, TimeoutError):
                self.part(job)
            _inform(waiter, ended.outcome)
        elif ended.call in self._partings:
            self._partings.discard(ended.call)
            if isinstance(ended.outcome, Unreachable):
                self._to_part.clear()
            self._part_some()
            if not self._partings and self._parted is not None and not self._parted.done():
                self._parted.set_result(None)

    def _follow_up(self) -> None:
        """The socket was used: what has come meanwhile is not signalled any more."""
        if self._again is None:
            if self._ended:
                self._again = self.loop.call_soon(self._turn)
            elif len(self._core) >= _MANY:  # answers gather, and a look is a system call
                self._again = self.loop.call_at(self.loop.time() + _GATHER, self._turn)
            elif int(self._get(_EVENTS)) & (_IN | _OUT if self._pending else _IN):
                self._again = self.loop.call_soon(self._turn)
        self._set_timer()

    def _set_timer(self) -> None:
        """One timer; one that goes off too early does no harm, and is set anew then."""
        due = self.next_deadline()
        if due >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self.loop.call_at(self.loop.time() + max(0.0, due - time.monotonic()), self._wake)

    def _wake(self) -> None:
        self._timer, self._due = None, inf
        self._turn()


def _job_of(message: Request) -> str:
    """The job that is to be cancelled when nobody waits for its result any more; "" for none."""
    return "" if getattr(message, "detach", True) else str(getattr(message, "job", ""))


def settle(future: asyncio.Future[Reply], outcome: Outcome) -> None:
    """Give a future the end of a call, unless its task was cancelled."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _inform(waiter: Waiter, outcome: Outcome) -> None:
    if callable(waiter):
        waiter(outcome)
    else:
        settle(waiter, outcome)
