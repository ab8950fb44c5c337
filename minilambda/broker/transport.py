"""The broker's ROUTER socket, which also hears when another thread has something to say.

The loop waits in a plain ``recv``: with one socket and nothing else to wait for there is no need to poll, which costs
as much again as receiving and sending. So other threads wake the loop by a message of their own, through a socket
that is connected to the ROUTER within the process.
"""

from __future__ import annotations

import contextlib
import logging
import socket as sockets
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import zmq

from minilambda.broker.access import Access, BrokerKeys
from minilambda.broker.outbox import Flight, Outcome
from minilambda.broker.watched import Watched
from minilambda.keys import LOCAL
from minilambda.notation import BadSetting
from minilambda.sockets import common_options, seed_libzmq

NOW, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
"""Flags as plain numbers, which cost less to combine for every frame than enums."""

WAKING = b"minilambda.wake"
"""The connection that messages to wake the loop come from. It is there before any other, so nobody can take it."""

SHORTEST = 0.001
"""A shorter time can't be waited for, seconds."""

_SENT, _FULL, _GONE = (Outcome.SENT, None), (Outcome.FULL, None), (Outcome.GONE, None)

log = logging.getLogger(__name__)


class Transport:
    """The socket. All but ``wake`` belongs to one thread."""

    def __init__(self) -> None:
        seed_libzmq()
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._path: Path | None = None  # of the socket that is bound, with ipc://
        self._access: Access | None = None
        self._who: Callable[[zmq.Frame, bytes], str] | None = None  # tells the sender of a frame; None: no keys
        self._note: Callable[[zmq.Frame, bytes], None] = lambda frame, connection: None  # remembers whose a frame is
        self.sender = LOCAL  # principal that sent the message received last; "" for nobody who is known
        self.counting = False  # whether somebody wants to know the next two
        self.messages = 0  # received so far
        self.bytes = 0  # of them, without the names of connections
        self._timeout = 0.0  # how long ``recv`` waits, seconds; 0.0: not set yet
        # Without the layer of Python above them, which only knows options that are not used here.
        self._recv, self._send = super(zmq.Socket, self._socket).recv, super(zmq.Socket, self._socket).send
        self._waker: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._waking = threading.RLock()  # a signal handler may interrupt another one that has it
        self._woken = False  # a message to wake the loop is on its way
        self._socket.bind("inproc://broker")
        self._waker.setsockopt(zmq.ROUTING_ID, WAKING)
        self._waker.setsockopt(zmq.LINGER, 0)
        self._waker.connect("inproc://broker")

    def guard(self, keys: BrokerKeys | None) -> Access:
        """Let in only those with keys, or anybody. Comes before ``bind``. Raises ``BadKey`` for a bad list of keys."""
        self._access = Access(self._context, self._socket, keys)
        self._who = None if keys is None else self._access.who
        self._note = self._access.note
        return self._access

    def bind(self, endpoint: str) -> str:
        """Take connections; returns the endpoint as it is. Raises ``BadSetting`` when it can't be bound."""
        common_options(self._socket, endpoint)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
        self._socket.setsockopt(zmq.BACKLOG, 4096)  # all workers come back at once; the system may have a lower bound
        if endpoint.startswith("ipc://"):
            _remove_stale(endpoint.removeprefix("ipc://"))
        try:
            # libzmq takes interfaces here, not names.
            self._socket.bind(endpoint.replace("tcp://localhost:", "tcp://127.0.0.1:"))
        except zmq.ZMQError as error:
            raise BadSetting(f"{endpoint} can't be bound: {zmq.strerror(error.errno or 0)}.") from None
        if endpoint.startswith("ipc://"):
            self._path = Path(endpoint.removeprefix("ipc://"))
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def close(self) -> None:
        """Let the last messages go out for a moment, and give everything back."""
        self._waker.close()
        if self._access is not None:
            self._access.close()
        self._socket.close()
        self._context.term()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    # --- receiving -------------------------------------------------------------------------------

    def receive(self, patience: float) -> tuple[bytes, list[bytes]] | None:
        """The next message as the connection and the frames behind its name; None where none has come.

        It waits for ``patience`` seconds, or less: at least a quarter of it, so that the socket's own time limit need
        not be set anew for every message.
        """
        patience = patience if patience > SHORTEST else SHORTEST
        if not self._timeout <= patience < 4 * self._timeout:
            self._set_timeout(patience)
        return self._receive(0)

    def receive_now(self) -> tuple[bytes, list[bytes]] | None:
        """The next message if it is there already, as ``receive`` gives it."""
        return self._receive(NOW)

    def _receive(self, flags: int) -> tuple[bytes, list[bytes]] | None:
        recv = self._recv  # a function in an attribute is slow to call as one: it is looked for among the methods first
        try:
            connection: bytes = recv(flags)
        except zmq.Again:
            return None
        frames: list[bytes] = []
        more = True
        while more:  # all parts of a message are here when the first is
            frame = recv(0, False)
            frames.append(frame.bytes)
            more = frame.more
        if self.counting:
            self.messages += 1
            self.bytes += sum(map(len, frames))
        if self._who is not None:
            self.sender = self._who(frame, connection)
        else:
            self._note(frame, connection)
        return connection, frames

    def _set_timeout(self, patience: float) -> None:
        milliseconds = int(patience * 1000)
        power = 1 << (milliseconds.bit_length() - 1)
        self._socket.setsockopt(zmq.RCVTIMEO, power)
        self._timeout = power / 1000

    def ready(self) -> bool:
        """Whether a message has come."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def wake(self) -> None:
        """Make ``receive`` return a message of ``WAKING``. May be called from any thread, and in a signal handler."""
        with self._waking:
            if not self._woken:
                self._woken = True
                with contextlib.suppress(zmq.ZMQError):  # it is closed
                    self._waker.send(b"", NOW)

    def awake(self) -> None:
        """A message of ``WAKING`` was received: from now on ``wake`` sends another."""
        self._woken = False

    # --- sending ---------------------------------------------------------------------------------

    def put(self, frames: list[bytes], track: bool) -> tuple[Outcome, Flight | None]:
        """Try to send a message without waiting; see ``outbox.Put``."""
        try:
            if track:
                return Outcome.SENT, Watched(self._socket, frames)
            send = self._send
            for frame in frames[:-1]:
                send(frame, MORE)
            send(frames[-1], NOW)
        except zmq.Again:
            return _FULL
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                log.warning("a message could not be sent: %s", error)
            return _GONE
        return _SENT

    def hang_up(self, connection: bytes) -> None:
        """End a connection, by its name, and give back what waits for it. The peer may connect anew."""
        if self._access is not None:
            self._access.hang_up(connection)


def _remove_stale(path: str) -> None:
    """Remove the socket that an earlier broker has left behind, unless somebody listens there."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise BadSetting(f"ipc://{path} can't be bound: there is a file that is no socket.")
    except FileNotFoundError:
        return
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            Path(path).unlink(missing_ok=True)
            return
    raise BadSetting(f"ipc://{path} can't be bound: another process listens there.")
