"""Who gets a connection: a thread that answers libzmq's questions about keys and says why handshakes failed.

libzmq asks the handler at ``inproc://zeromq.zap.01`` of the same context about each key that is shown, and holds that
one handshake until there is an answer. So the thread waits for nothing else, and reads an ``Authority`` that never
changes; the broker's loop gives it another one. What it answers with stands in each message of that connection.
"""

from __future__ import annotations

import logging
import os
import socket as sockets
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any

import zmq

from minilambda.broker.authority import Authority
from minilambda.curve import FAILURES, OTHER_MECHANISM, OTHER_SERVER_KEY
from minilambda.keys import key_text

ZAP = "inproc://zeromq.zap.01"

BURST, EVERY = 5, 20.0
"""Lines of one kind and level that are logged at once, and afterwards one in so many seconds."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Lines:
    """Lets through a few lines, and tells of those that it kept back."""

    tokens: float = BURST  # lines that may be logged now
    at: float = 0.0  # when that was right, seconds
    kept: int = 0  # lines kept back since the last one

    def take(self, now: float) -> str | None:
        """What to put behind the line; None where it is kept back."""
        self.tokens = min(float(BURST), self.tokens + (now - self.at) / EVERY)
        self.at = now
        if self.tokens < 1:
            self.kept += 1
            return None
        kept, self.kept = self.kept, 0
        self.tokens -= 1
        return f" ({kept} more like this were not logged)" if kept else ""


class Gate:
    """The thread, and what it has counted. ``public`` is the broker's own key, "" for a broker without keys.

    To be made before the socket is bound, and closed before the socket is.
    """

    def __init__(self, context: zmq.Context[Any], socket: zmq.Socket[bytes], authority: Authority, public: str) -> None:
        self.authority = authority  # replaced as a whole, by the loop's thread
        self.refused: dict[str, int] = {"key_refused": 0, "handshake_failed": 0}
        self._socket = socket
        self._public = public
        self._lines: dict[tuple[str, int], _Lines] = {}  # by kind and level
        self._addresses: dict[int, str] = {}  # of connections by descriptor, as far as they were seen
        self._failed = ""  # why the handshake failed whose connection is about to be closed
        self._level = logging.WARNING  # how grave that is
        self._wake_in, self._wake_out = os.pipe2(os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        address = f"inproc://handshakes-{id(self)}"
        socket.monitor(address, FAILURES | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._events: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._events.connect(address)
        self._zap: zmq.Socket[bytes] | None = None
        if public:
            self._zap = context.socket(zmq.REP)
            self._zap.setsockopt(zmq.LINGER, 0)
            self._zap.bind(ZAP)
        self._thread = threading.Thread(target=self._work, name="gate", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Nobody gets in any more."""
        self._socket.disable_monitor()  # first: libzmq would wait for ever for somebody to read its events
        os.write(self._wake_out, b"\0")
        self._thread.join()
        os.close(self._wake_in)
        os.close(self._wake_out)

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        poller = zmq.Poller()
        poller.register(self._wake_in, zmq.POLLIN)
        poller.register(self._events, zmq.POLLIN)
        if self._zap is not None:
            poller.register(self._zap, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if self._wake_in in ready:
                    return
                if self._zap in ready:
                    self._answer(self._zap)
                if self._events in ready:
                    self._hear(self._events.recv_multipart())
        except Exception:
            log.exception("the gate has broken down: nobody gets in any more")
        finally:
            self._events.close(linger=0)
            if self._zap is not None:
                self._zap.close(linger=0)

    def _answer(self, zap: Any) -> None:
        """One question of libzmq's: may this key come in?"""
        frames = zap.recv_multipart()
        entry = None
        if len(frames) == 7 and frames[5] == b"CURVE" and len(frames[6]) == 32:
            entry = self.authority.by_key(frames[6])
        status, user = (b"400", b"") if entry is None else (b"200", entry.principal.encode())
        zap.send_multipart([b"1.0", frames[1] if len(frames) > 1 else b"", status, b"", user, b""])
        if entry is None:
            address = frames[3].decode("ascii", "replace") if len(frames) > 3 else "?"
            key = key_text(frames[6]) if len(frames) == 7 and len(frames[6]) == 32 else "?"
            self._say("key_refused", f"refused a key that is not authorized: {key} from {address}")

    def _hear(self, frames: list[bytes]) -> None:
        """An event of the broker's socket. A failed handshake is followed by the end of its connection."""
        number, value = struct.unpack("=HI", frames[0][:6])
        if number == zmq.EVENT_ACCEPTED:
            self._addresses[value] = _peer_of(value)
        elif number == zmq.EVENT_DISCONNECTED:
            address, why, self._failed = self._addresses.pop(value, "?"), self._failed, ""
            if why:
                self._say("handshake_failed", f"a peer at {address} {why}", self._level)
        elif number == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._failed = ""  # told when the key was refused
        else:
            self._failed, self._level = self._reason(value if number == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL else 0)

    def _reason(self, value: int) -> tuple[str, int]:
        """Why a handshake failed, and how grave that is.

        Who just does not finish one is most often a client that was interrupted, a check whether the port is open, or
        a scanner; nobody need do anything about it, and a peer of ours says itself what is wrong with its keys.
        """
        if value == OTHER_SERVER_KEY:
            return f"takes this broker for another: its --server-key is not {self._public}", logging.WARNING
        if value == OTHER_MECHANISM and self._public:
            return "shows no key, and this broker wants one", logging.WARNING
        if value == OTHER_MECHANISM:
            return "wants to use keys, and this broker uses none", logging.WARNING
        keys = "wants keys" if self._public else "uses no keys"
        why = f"it went away, does not know that this broker {keys}, or is no peer of minilambda"
        return f"did not finish the handshake: {why}", logging.INFO

    def _say(self, kind: str, text: str, level: int = logging.WARNING) -> None:
        self.refused[kind] += 1
        more = self._lines.setdefault((kind, level), _Lines()).take(time.monotonic())
        if more is not None:
            log.log(level, "%s%s", text, more)


def _peer_of(descriptor: int) -> str:
    """The address at the other end of a connection that may be closed by now."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return "?"
    try:
        with sockets.socket(fileno=copy) as connection:
            name = connection.getpeername()
    except OSError:
        return "?"
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "this machine"
