"""One thread that speaks to the broker for all threads of a program."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass
from math import inf
from typing import Any, cast

import zmq

from minilambda.client.calls import Ended, Patience, Source
from minilambda.client.connection import Connection
from minilambda.keys import PeerKeys
from minilambda.messages import Cancel, Reply, Request, Run, Welcome
from minilambda.sockets import seed_libzmq

_MOST = 256  # answers that are taken in before jobs are begun
_MANY = 16  # with so many jobs under way, answers are let gather: a thread that wakes for each costs twice the time
_GATHER = 0.001  # answers gather for so long, seconds
_TIDY = 1000  # so many pending jobs are not looked through for cancelled ones
_LONGEST = 3600.0  # one wait, at most, seconds


@dataclass(slots=True, eq=False)
class Order:
    """A request, and who waits for its end."""

    message: Request
    source: Source | None  # the module's bytes
    future: Future[Any]
    read: Callable[[Any], Any]  # makes the future's result of the broker's reply, or raises


class IoThread:
    """Takes orders from any thread. It starts with the first, and ends after ``finish`` with the last.

    At most ``window`` jobs are with the broker at a time; those before it are pending, and can be cancelled.
    """

    def __init__(self, endpoint: str, patience: Patience, keys: PeerKeys | None, window: int) -> None:
        self._endpoint = endpoint
        self._patience = patience
        self._keys = keys
        self._window = window
        self._process = os.getpid()
        self._orders: deque[Order] = deque()  # jobs that are pending
        self._asides: deque[Order] = deque()  # what is no job, and goes before them
        self._tidy_at = _TIDY  # the cancelled among the pending are dropped once there are so many
        self._calls: dict[int, Order] = {}  # begun and not ended, by call
        self._jobs: dict[Future[Any], str] = {}  # jobs that are with the broker
        self._finishing = False  # no more orders come
        self._asleep = False  # the thread waits, or is about to
        self._lock = threading.Lock()  # guards the start of the thread and ``_finishing``
        self._thread: threading.Thread | None = None
        self._link: _Link | None = None
        self._ear, self._mouth = socket.socketpair()  # ends the thread's wait
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self.welcome: Welcome | None = None  # what the broker said of itself
        self.broken: BaseException | None = None  # why the thread has ended before its time
        _all.add(self)

    # --- for any thread -------------------------------------------------------------------------------

    def add(self, order: Order) -> None:
        """Take an order. Raises ``RuntimeError`` after ``finish``, and ``BrokenExecutor``."""
        self.check_process()
        with self._lock:
            if self._finishing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self.broken is not None:
                raise BrokenExecutor(f"The executor's thread has failed: {self.broken!r}.")
            if isinstance(order.message, Run):
                self._orders.append(order)
            else:
                self._asides.append(order)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="minilambda-executor", daemon=True)
                self._thread.start()
        self._rouse()

    def check_process(self) -> None:
        """Raises ``RuntimeError`` after a fork, before any lock is taken: it may have been held then."""
        if os.getpid() != self._process:
            raise RuntimeError("This executor was made before a fork; make one in each process.")

    def kill(self, future: Future[Any]) -> bool:
        """Cancel the job behind a future, wherever it is; False where it has ended."""
        if future.cancel():
            return True
        job = self._jobs.get(future)
        if job is None:
            return False
        ignored: Future[Reply] = Future()
        self._asides.append(Order(Cancel(0, job), None, ignored, lambda reply: reply))
        self._rouse()
        return True

    def cancel_pending(self) -> None:
        """Cancel what is not with the broker yet."""
        while (order := self._next_order()) is not None:
            order.future.cancel()
            order.future.set_running_or_notify_cancel()

    def finish(self) -> None:
        """No more orders: the thread ends with the last."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._finishing = True
            if self._thread is None:
                self._close_ears()
                return
        self._rouse()

    def join(self) -> None:
        """Wait for the end of the thread."""
        if self._thread is not None and os.getpid() == self._process and not self.inside():
            self._thread.join()

    def inside(self) -> bool:
        """This is the thread itself."""
        return self._thread is threading.current_thread()

    def _rouse(self) -> None:
        if self._asleep:
            self._asleep = False
            with contextlib.suppress(OSError):  # full: it wakes anyway; closed: it has ended
                self._mouth.send(b"\0")

    # --- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        seed_libzmq()
        context: zmq.Context[Any] = zmq.Context()
        try:
            self._link = _Link(context, self._endpoint, self._patience, self._keys)
            while not self._turn(self._link):
                pass
        except BaseException as error:  # whoever waits must hear of it
            self._break(error)
        finally:
            if self._link is not None:
                self._link.close()
            context.destroy(linger=0)
            self._close_ears()

    def _turn(self, link: _Link) -> bool:
        """Do what there is to do, then wait for more; True at the end."""
        while self._asides:
            self._begin(self._asides.popleft())
        if len(self._orders) >= self._tidy_at:
            self._tidy()
        self._fill(link)
        self._take_in(link)
        self.welcome = link.core.welcome
        if link.more or self._asides or (self._orders and len(self._jobs) < self._window):
            return False
        if self._finishing and not self._calls and not self._orders:
            return True
        if len(self._calls) >= _MANY:
            time.sleep(_GATHER)  # one wake-up for several answers, see _MANY
        self._wait(link)
        return False

    def _wait(self, link: _Link) -> None:
        self._asleep = True
        if self._asides or (self._orders and len(self._jobs) < self._window) or (self._finishing and not self._calls):
            self._asleep = False
            return
        if link.wait(self._ear, min(_LONGEST, link.next_deadline() - time.monotonic())):
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(4096)
        self._asleep = False

    def _fill(self, link: _Link) -> None:
        """Begin jobs as long as there is room."""
        while len(self._jobs) < self._window and (order := self._next_order()) is not None:
            self._jobs[order.future] = str(getattr(order.message, "job", ""))
            if order.future.set_running_or_notify_cancel():
                self._begin(order)
            else:
                del self._jobs[order.future]

    def _next_order(self) -> Order | None:
        """The next that is pending: the thread may begin them while another cancels them."""
        try:
            return self._orders.popleft()
        except IndexError:
            return None

    def _begin(self, order: Order) -> None:
        try:
            self._calls[cast(_Link, self._link).start(order.message, order.source)] = order
        except BaseException as error:
            order.future.set_exception(error)
            raise

    def _take_in(self, link: _Link) -> None:
        for ended in link.pump(_MOST):
            self._end(ended)

    def _end(self, ended: Ended) -> None:
        order = self._calls.pop(ended.call, None)
        if order is None:
            return
        self._jobs.pop(order.future, None)
        try:
            if isinstance(ended.outcome, Exception):
                raise ended.outcome
            result = order.read(ended.outcome)
        except Exception as error:  # for who waits
            order.future.set_exception(error)
        else:
            order.future.set_result(result)

    def _tidy(self) -> None:
        """Drop the cancelled among the pending, which else would gather while nothing ends."""
        with self._lock:
            for _ in range(len(self._orders)):
                order = self._next_order()
                if order is not None and not order.future.cancelled():
                    self._orders.append(order)
            self._tidy_at = max(_TIDY, 2 * len(self._orders))

    def _break(self, error: BaseException) -> None:
        with self._lock:
            self.broken = error
        waiting = [order for order in (*self._asides, *self._orders) if order.future.set_running_or_notify_cancel()]
        for order in (*self._calls.values(), *waiting):
            order.future.set_exception(BrokenExecutor(f"The executor's thread has failed: {error!r}."))

    def _close_ears(self) -> None:
        self._ear.close()
        self._mouth.close()


_all: weakref.WeakSet[IoThread] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """A program that ends waits for its jobs, as with the executors of the standard library."""
    for each in list(_all):
        each.finish()
    for each in list(_all):
        each.join()


class _Link(Connection):
    """A connection that waits for its own descriptors and one more."""

    def _connect(self) -> None:
        super()._connect()
        self._mine, self._watcher = self.descriptors()

    def wait(self, beside: socket.socket, seconds: float) -> bool:
        """Wait until there is something to do, at most so many seconds; True where it is ``beside``."""
        poll = select.poll()
        for descriptor in (self._mine, self._watcher, beside.fileno()):
            poll.register(descriptor, select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(max(0.0, min(seconds, inf)) * 1000)]
        if self._watcher in ready:
            self.noticed()
        return beside.fileno() in ready
