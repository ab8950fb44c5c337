"""One connection to a broker: a socket, and the core that says what goes through it."""

from __future__ import annotations

import contextlib
import itertools
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import zmq

from minilambda.client.calls import Action, Ended, Patience, Piece, Send, Source
from minilambda.client.core import Core
from minilambda.client.live import Heard
from minilambda.client.modules import Module
from minilambda.curve import FAILURES, Handshakes, connect_with
from minilambda.errors import InputTooLarge, MinilambdaError
from minilambda.fields import MAX_FRAME
from minilambda.keys import PeerKeys
from minilambda.messages import REPLIES, Deploy, Put, Refused, Request, Run
from minilambda.notation import BadSetting
from minilambda.sockets import common_options, connecting_options, new_socket
from minilambda.wire import Malformed, by_name, decode, encode

MAX_REPLY = 256 * 1024 * 1024
"""Most that the bodies of one reply may have together, bytes."""

SLICE = 0.1
"""Longest that a wait for an answer goes without a look at the connection's state, seconds."""

Progress = Callable[[int, int], None]
"""Told how much of a module has been sent, and its size, both in bytes."""

_NOW, _MORE = int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE)  # as plain numbers, which are faster to pass
_RCVMORE, _EVENTS, _OUT = int(zmq.RCVMORE), int(zmq.EVENTS), int(zmq.POLLOUT)
_REPLIES = by_name(REPLIES, lazily=True)
_numbers = itertools.count(1)  # of the monitors: a closed one gives its name back only some time later


class Connection:
    """A connection for one thread, with any number of calls at a time. What waits for it is a shell of its own.

    The socket is a DEALER that adds the empty frame of a REQ: the calls' own numbers tell the answers apart, so it
    needs no request ids of the library, and it may send while answers are outstanding.
    """

    def __init__(
        self, context: zmq.Context[Any], endpoint: str, patience: Patience, keys: PeerKeys | None = None
    ) -> None:
        self._context = context
        self._core = Core(endpoint, patience)
        self._pending: dict[int, list[bytes]] = {}  # frames that found no connection, by request number
        self._broke = False  # the connection has broken and is not there again
        self._keys = keys
        self._handshakes = Handshakes(endpoint, keys)
        self._blocked = False  # what was to be sent last found no connection
        self._torn = False  # an interrupt may have left half a message in the socket
        self._look = 0.0  # when to look at the state of the connection again, seconds
        self._ended: list[Ended] = []  # calls that ended and were not told yet
        self.heard: list[Heard] = []  # what came for ``follow`` calls; the shell takes it, and says when it is consumed
        self.more = False  # the last ``pump`` left answers, or what could be sent by now
        self.progress: dict[str, Progress] = {}  # by the digest of the module that is sent
        self._connect()

    def _connect(self) -> None:
        """Make the socket, and another that tells of its connection. Raises ``BadSetting``."""
        endpoint = self._core.endpoint
        self._socket = new_socket(self._context, zmq.DEALER)
        try:
            common_options(self._socket, endpoint)
            connecting_options(self._socket)
            self._socket.setsockopt(zmq.RCVHWM, 0)  # it gets what it asked for; a broker drops what finds no room
            connect_with(self._socket, self._keys)
            self._events = _watch(self._context, self._socket)
            try:
                self._socket.connect(endpoint)
            except BaseException:
                self._events.close(linger=0)
                raise
        except BaseException as error:  # an interrupt too: a socket that is left open keeps its context from ending
            self._socket.close(linger=0)
            if isinstance(error, zmq.ZMQError):
                raise BadSetting(f"{endpoint} can't be connected to: {error.strerror}.") from None
            raise
        plain = _plain(self._socket)
        self._send, self._recv = plain.send, plain.recv
        self._get: Any = self._socket.get
        self._recv_ms = -1  # how long the socket waits in a recv, milliseconds; -1: without end

    @property
    def core(self) -> Core:
        return self._core

    def start(
        self, message: Request, source: Source | None = None, patience: float | None = None, beside: int = 0
    ) -> int:
        """Begin a call; ``step`` tells its end by this number. ``patience`` is in seconds, ``beside`` for ``Core``."""
        number, actions = self._core.start(message, time.monotonic(), source, patience, beside)
        try:
            self._carry_out(actions)
        except BaseException:
            self.drop(number)
            raise
        return number

    def drop(self, number: int) -> None:
        """Nobody waits for the call any more."""
        self._core.drop(number)
        if self._pending:
            self._forget()

    def consumed(self, number: int, size: int) -> None:
        """The caller is done with so many bytes of what was ``heard`` for a ``follow``."""
        self._carry_out(self._core.follows.consumed(number, size))

    def unfollow(self, number: int) -> None:
        """Nobody wants more of a ``follow``; it ends untold. One that has ended stays as it is."""
        self._carry_out(self._core.follows.dropped(number))

    def pump(self, most: int) -> list[Ended]:
        """Do all that can be done without waiting, and tell which calls ended. At most so many answers are taken in.

        Call it when one of ``descriptors`` is readable, after ``start``, at ``next_deadline``, and while there is
        ``more``.
        """
        now = time.monotonic()
        if now >= self._look:
            self._take_note(now)
        self._carry_out(self._core.tick(now))
        if self._pending:
            self._flush()
        self.more = not self._receive(0.0, most) or bool(self._pending and self._get(_EVENTS) & _OUT)
        ended, self._ended = self._ended, []
        if ended and self._pending:
            self._forget()
        return ended

    def next_deadline(self) -> float:
        """When ``pump`` is due at the latest, by the monotonic clock, seconds; inf when nothing waits."""
        return self._core.next_deadline()

    def noticed(self) -> None:
        """Something happened to the connection: ``pump`` looks at it."""
        self._look = 0.0

    def descriptors(self) -> tuple[int, int]:
        """Become readable when something comes by the socket, and when something happens to its connection.

        Both are of libzmq: each use of the socket takes their signal, so a ``pump`` must follow it.
        """
        return int(self._get(zmq.FD)), int(self._events.getsockopt(zmq.FD))

    def close(self) -> None:
        try:
            if not self._socket.closed:  # an interrupt may have kept it from being replaced
                self._socket.disable_monitor()
            self._events.close(linger=0)
        finally:
            self._socket.close()

    # --- sending --------------------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Ended):
                self._ended.append(action)
            elif isinstance(action, Send):
                self._transmit(action)
            else:
                self.heard.append(action)

    def _transmit(self, send: Send) -> None:
        message = send.message
        try:
            if send.piece is not None:
                message = _with_piece(cast(Request, message), send.piece)
                if self.progress and (told := self.progress.get(send.piece.source.digest)) is not None:
                    told(send.piece.offset, send.piece.source.size or 0)
            frames = encode(message)
            if len(frames[0]) > MAX_FRAME:  # bodies are cut
                raise InputTooLarge(f"The request's header has more than {MAX_FRAME} bytes.")
        except Exception as error:  # also what the caller's ``progress`` raises
            self._carry_out(self._core.fail(message.request, error, time.monotonic()))
            return
        if self._pending or not self._push(frames):  # in their order
            if isinstance(message, Request):
                self._pending[message.request] = frames
            else:
                self._core.unsent(message.request, time.monotonic())

    def _flush(self) -> None:
        """Send what found no connection."""
        for number in list(self._pending):  # to look for the first anew each time passes over all that were sent
            if number in self._core and not self._push(self._pending[number]):
                return
            del self._pending[number]

    def _push(self, frames: list[bytes]) -> bool:
        """Send a message; False where there is no connection to take it."""
        if self._torn:
            self._replace()
        try:
            self._send(b"", _MORE)
            for frame in frames[:-1]:
                self._send(frame, _MORE)
            self._send(frames[-1], _NOW)
        except zmq.Again:  # at the first frame: the others find the place that it has found
            self._blocked = True
            self._core.blocked(time.monotonic())
            return False
        except BaseException:
            self._torn = True
            raise
        if self._blocked:
            self._blocked = False
            self._core.unblocked()
        return True

    def _replace(self) -> None:
        """Another socket; what waits for an answer is sent again by it."""
        self.close()
        self._connect()
        self._torn = False
        self._core.disconnected(time.monotonic())

    def _forget(self) -> None:
        """Drop what was to be sent for calls that are no more, once that is most of it."""
        if len(self._pending) > 2 * len(self._core):
            self._pending = {number: frames for number, frames in self._pending.items() if number in self._core}

    def _take_note(self, now: float) -> None:
        """The connection may have broken, or libzmq has made a new one.

        Both times all that waits for an answer is sent: what is sent just as a connection breaks may still go into
        it and be lost.
        """
        self._look = now + SLICE
        with contextlib.suppress(zmq.Again):
            while True:
                event, value = struct.unpack("=HI", self._events.recv_multipart(zmq.DONTWAIT)[0][:6])
                refused = self._handshakes.event(event, value)
                if refused is not None:
                    self._torn = True  # libzmq does not try again
                    self._carry_out(self._core.received(Refused(0, refused.code, refused.message), now))
                elif event & FAILURES:
                    continue
                elif event == zmq.EVENT_DISCONNECTED or self._broke:
                    self._broke = event == zmq.EVENT_DISCONNECTED
                    self._core.disconnected(now)

    # --- receiving ------------------------------------------------------------------------------------

    def _receive(self, seconds: float, most: int) -> bool:
        """Take in what has been answered, waiting at most so many seconds for the first; True where that was all."""
        flags = 0 if seconds > 0 else _NOW
        millis = int(seconds * 1000) + 1
        if not flags and millis != self._recv_ms:
            self._socket.setsockopt(zmq.RCVTIMEO, millis)
            self._recv_ms = millis
        for _ in range(most):
            try:
                first = self._recv(flags)
                flags = _NOW
                frames = [first] if first else []  # the empty one before each message
                more = not first or bool(self._get(_RCVMORE))
                while more:  # a frame that is not copied by libzmq's binding knows whether it is the last
                    frame: Any = self._recv(flags, False)
                    frames.append(frame.bytes)
                    more = frame.more
            except zmq.Again:
                return True
            now = time.monotonic()
            try:
                reply: Any = decode(frames, _REPLIES, MAX_REPLY)
            except Malformed as error:
                failure = MinilambdaError(f"The broker's answer can't be read: {error.message}")
                self._carry_out(self._core.fail(error.request, failure, now))
            else:
                self._carry_out(self._core.received(reply, now))
        return False


def _plain(socket: zmq.Socket[bytes]) -> Any:
    """The socket without the layer of Python above it, which only knows options that are not used here."""
    return super(zmq.Socket, socket)


def _watch(context: zmq.Context[Any], socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    """A socket that becomes readable when the other's connection breaks, and when it is there."""
    address = f"inproc://events-{next(_numbers)}"
    socket.monitor(address, zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | FAILURES)
    watcher = new_socket(context, zmq.PAIR)
    try:
        watcher.connect(address)
    except BaseException:
        watcher.close(linger=0)
        raise
    return watcher


def _with_piece(message: Request, piece: Piece) -> Request:
    """The message with the module's bytes in it."""
    data = cast(Module, piece.source).read(piece.offset, piece.size)
    if isinstance(message, (Run, Deploy)):
        return replace(message, wasm=data)
    if isinstance(message, Put):
        return replace(message, data=data)
    raise TypeError(f"{message.TYPE} carries no module.")
