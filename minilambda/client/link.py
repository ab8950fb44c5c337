"""One connection to a broker: a socket, the core that says what to send, and the loop between them."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any, cast

import zmq

from minilambda.client.calls import Action, Ended, Patience, Piece, Send, Source
from minilambda.client.core import Core
from minilambda.client.modules import Module
from minilambda.errors import InputTooLarge, MinilambdaError
from minilambda.fields import MAX_FRAME
from minilambda.messages import REPLIES, Put, Reply, Request, Run
from minilambda.settings import BadSetting
from minilambda.sockets import common_options, connecting_options
from minilambda.wire import Malformed, by_name, decode, encode

MAX_REPLY = 256 * 1024 * 1024
"""Most that the bodies of one reply may have together, bytes."""

_IN, _OUT = int(zmq.POLLIN), int(zmq.POLLOUT)  # as plain numbers, which are faster to combine
_BATCH = 256  # replies taken in before anything else is looked at
_REPLIES = by_name(REPLIES)
_numbers = itertools.count(1)  # of the monitors: a closed one gives its name back only some time later


class Link:
    """A connection for one thread: a DEALER for many calls at a time where ``pipelined``, else a REQ for one."""

    def __init__(
        self, context: zmq.Context[Any], endpoint: str, patience: Patience, *, pipelined: bool = False
    ) -> None:
        self._core = Core(endpoint, patience)
        self._pipelined = pipelined
        self._pending: dict[int, list[bytes]] = {}  # frames that found no connection, by request number
        self._broke = False  # the connection has broken and is not there again
        self._socket = context.socket(zmq.DEALER if pipelined else zmq.REQ)
        try:
            self._events = self._connect(context, endpoint)  # readable when the connection broke, or is there
        except BaseException:  # an interrupt too: a socket that is left open keeps its context from ending
            self._socket.close(linger=0)
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._socket, _IN)
        self._poller.register(self._events, _IN)
        self._polled = _IN
        self._ended: list[Ended] = []  # calls that ended and were not told yet
        self.progress: Callable[[int, int], None] | None = None  # told how much of a module has been sent, and its size

    def _connect(self, context: zmq.Context[Any], endpoint: str) -> zmq.Socket[bytes]:
        """Connect the socket, and return another that tells of its connection. Raises ``BadSetting``."""
        common_options(self._socket, endpoint)
        connecting_options(self._socket)
        if not self._pipelined:
            self._socket.setsockopt(zmq.REQ_RELAXED, 1)
            self._socket.setsockopt(zmq.REQ_CORRELATE, 1)
        events = _watch(context, self._socket)
        try:
            self._socket.connect(endpoint)
        except BaseException as error:
            events.close(linger=0)
            if isinstance(error, zmq.ZMQError):
                raise BadSetting(f"{endpoint} can't be connected to: {error.strerror}.") from None
            raise
        return events

    @property
    def core(self) -> Core:
        return self._core

    def start(self, message: Request, source: Source | None = None, patience: float | None = None) -> int:
        """Begin a call; ``step`` tells its end by this number. ``patience`` is in seconds."""
        number, actions = self._core.start(message, time.monotonic(), source, patience)
        self._carry_out(actions)
        return number

    def drop(self, number: int) -> None:
        """Nobody waits for the call any more."""
        self._core.drop(number)
        self._forget()

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

    def step(self, timeout: float = inf) -> list[Ended]:
        """Do what is due, waiting at most ``timeout`` seconds for it, and tell which calls ended."""
        self._carry_out(self._core.tick(time.monotonic()))
        if not self._ended:
            ready = self._wait(timeout)
            events = ready.get(self._socket, 0)
            if events & _OUT:
                self._flush()
            if events & _IN:
                self._receive()
            if self._events in ready:
                self._take_note()
        ended, self._ended = self._ended, []
        if ended and self._pending:
            self._forget()
        return ended

    def close(self) -> None:
        try:
            self._socket.disable_monitor()
            self._events.close(linger=0)
        finally:
            self._socket.close()

    # --- sending --------------------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Ended):
                self._ended.append(action)
            else:
                self._transmit(action)

    def _transmit(self, send: Send) -> None:
        message = send.message
        try:
            if send.piece is not None:
                message = _with_piece(message, send.piece)
                if self.progress is not None:
                    self.progress(send.piece.offset, send.piece.source.size or 0)
            frames = encode(message)
            if max(map(len, frames)) > MAX_FRAME:  # bodies are cut, so it is the header
                raise InputTooLarge(f"The request's header has more than {MAX_FRAME} bytes.")
        except (MinilambdaError, OSError, TypeError, ValueError, OverflowError) as error:
            self._carry_out(self._core.fail(message.request, error, time.monotonic()))
            return
        if self._pipelined:
            frames.insert(0, b"")
        self._pending[message.request] = frames
        self._flush()

    def _flush(self) -> None:
        while self._pending:
            number = next(iter(self._pending))
            try:
                self._socket.send_multipart(self._pending[number], zmq.DONTWAIT)
            except zmq.Again:
                self._core.blocked(time.monotonic())
                return
            del self._pending[number]
            self._core.unblocked()

    def _forget(self) -> None:
        """Drop what was to be sent for calls that are no more."""
        self._pending = {number: frames for number, frames in self._pending.items() if number in self._core}

    def _take_note(self) -> None:
        """The connection broke, or libzmq has made a new one.

        Both times all that waits for an answer is sent: what is sent just as a connection breaks may still go into
        it and be lost.
        """
        with contextlib.suppress(zmq.Again):
            while True:
                event = int.from_bytes(self._events.recv_multipart(zmq.DONTWAIT)[0][:2], sys.byteorder)
                if event == zmq.EVENT_DISCONNECTED or self._broke:
                    self._broke = event == zmq.EVENT_DISCONNECTED
                    self._core.disconnected(time.monotonic())

    # --- receiving ------------------------------------------------------------------------------------

    def _wait(self, timeout: float) -> dict[Any, int]:
        """What the sockets are ready for, after at most so many seconds or when the core has something due."""
        events = _IN | _OUT if self._pending else _IN
        if events != self._polled:
            self._poller.modify(self._socket, events)
            self._polled = events
        seconds = min(timeout, self._core.next_deadline() - time.monotonic())
        if seconds == inf:
            return dict(self._poller.poll())
        return dict(self._poller.poll(int(seconds * 1000) + 1 if seconds > 0 else 0))

    def _receive(self) -> None:
        for _ in range(_BATCH if self._pipelined else 1):  # a REQ has no second answer to give
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            now = time.monotonic()
            try:
                reply = decode(frames[1:] if self._pipelined else frames, _REPLIES, MAX_REPLY)
            except Malformed as error:
                failure = MinilambdaError(f"The broker's answer can't be read: {error.message}")
                self._carry_out(self._core.fail(error.request, failure, now))
            else:
                self._carry_out(self._core.received(cast(Reply, reply), now))


def _watch(context: zmq.Context[Any], socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """A socket that becomes readable when the other's connection breaks, and when it is there."""
    address = f"inproc://events-{next(_numbers)}"
    socket.monitor(address, zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
    watcher: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    try:
        watcher.connect(address)
    except BaseException:
        watcher.close(linger=0)
        raise
    return watcher


def _with_piece(message: Request, piece: Piece) -> Request:
    """The message with the module's bytes in it."""
    data = cast(Module, piece.source).read(piece.offset, piece.size)
    if isinstance(message, Run):
        return replace(message, wasm=data)
    if isinstance(message, Put):
        return replace(message, data=data)
    raise TypeError(f"{message.TYPE} carries no module.")
