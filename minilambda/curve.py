"""Keys on ZeroMQ sockets: CURVE at both ends, and why a handshake failed, in words.

libzmq tells little of a failed handshake, and each end sees something else. Where the broker refused the key it says
so; where the two ends disagree on keys at all, or on the broker's, one end just closes. Then the connecting end looks
at the broker's greeting, which names what it speaks.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
from typing import TYPE_CHECKING, Any

import zmq

from minilambda.errors import KeyRefused
from minilambda.keys import BadKey, Pair, PeerKeys

if TYPE_CHECKING:
    import socket as sockets

ZAP_DOMAIN = b"minilambda"

FAILURES = int(
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
"""Monitor events of handshakes that failed."""

OTHER_SERVER_KEY = 0x11000001
"""Value of ``EVENT_HANDSHAKE_FAILED_PROTOCOL``: what came can't be decrypted."""

OTHER_MECHANISM = 0x11000002
"""Value of ``EVENT_HANDSHAKE_FAILED_PROTOCOL``: one end uses keys and the other does not."""

SURE = 2
"""Handshakes in a row that the broker ends without a word before the client takes it for a matter of keys."""

GREETING_TIMEOUT = 0.5
"""A broker has so long to greet, seconds."""

ZAP_ENFORCE_DOMAIN = 93
"""The option's number in libzmq, for releases of pyzmq that do not name it."""


def make_pair() -> Pair:
    """A new key. The public one begins with a letter or digit, so that no shell and no option parser trips over it."""
    while True:
        public, secret = zmq.curve_keypair()
        if public[:1].isalnum():
            return Pair(public.decode(), secret.decode())


def pair_of(secret: str) -> Pair:
    """The whole pair of a secret key."""
    return Pair(zmq.curve_public(secret.encode()).decode(), secret)


def load_peer_keys(key: str | os.PathLike[str] | None, server_key: str | os.PathLike[str] | None) -> PeerKeys | None:
    """The keys of a client or a worker, by name or path; the broker's also by itself. None where none is given.

    Raises ``BadKey``.
    """
    if key is None and server_key is None:
        return None
    if key is None or server_key is None:
        given, other = ("server key", "key") if key is None else ("key", "server key")
        raise BadKey(f"A {given} was given and no {other}; each side has to know the other's.")
    from minilambda.keyfiles import read_public, read_secret, user_folder  # noqa: PLC0415 - only where keys are used

    folder = user_folder()
    secret, _ = read_secret(os.fspath(key), folder)
    return PeerKeys(pair_of(secret), read_public(os.fspath(server_key), folder))


def serve_with(socket: zmq.Socket[bytes], own: Pair) -> None:
    """Let in only those whom the ZAP handler of the socket's context knows. Set before it binds."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, own.secret.encode())
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket.setsockopt(ZAP_ENFORCE_DOMAIN, 1)  # without a handler nobody gets in; by default everybody would


def connect_with(socket: zmq.Socket[bytes], keys: PeerKeys | None) -> None:
    """Show one's own key, and take only the broker with the right one. Set before the socket connects."""
    if keys is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.own.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret.encode())


class Handshakes:
    """Turns what a monitor tells of one connecting socket into a reason that its connection can't be had."""

    def __init__(self, endpoint: str, keys: PeerKeys | None) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._unsaid = 0  # handshakes in a row that ended without a word

    def event(self, number: int, value: int) -> KeyRefused | None:
        """Take an event in; the error that it comes to, if any. May look at the broker's greeting, for a moment."""
        if not number & FAILURES:
            if number == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._unsaid = 0
            return None
        if number == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            public = self._keys.own.public if self._keys is not None else ""
            text = f"The broker at {self._endpoint} refused this key"
            return KeyRefused(f"{text}; on its machine, run: minilambda authorize '{public}' --role ROLE")
        if number == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == OTHER_MECHANISM:
            return self._no_keys() if self._keys is not None else self._wants_keys()
        self._unsaid += 1
        if self._unsaid < SURE:
            return None
        speaks = mechanism_of(self._endpoint)
        if speaks == "CURVE":
            return self._wants_keys() if self._keys is None else self._other_key()
        return self._no_keys() if speaks == "NULL" and self._keys is not None else None

    def _no_keys(self) -> KeyRefused:
        return KeyRefused(f"The broker at {self._endpoint} uses no keys, and a key was given.")

    def _wants_keys(self) -> KeyRefused:
        return KeyRefused(f"The broker at {self._endpoint} wants keys; give --key and --server-key.")

    def _other_key(self) -> KeyRefused:
        return KeyRefused(f"The key of the broker at {self._endpoint} is not the one given by --server-key.")


class Watch:
    """The handshakes of a socket that is about to connect, looked at now and then. To be closed before the socket."""

    def __init__(
        self, context: zmq.Context[Any], socket: zmq.Socket[bytes], endpoint: str, keys: PeerKeys | None
    ) -> None:
        self._handshakes = Handshakes(endpoint, keys)
        self._socket = socket
        address = f"inproc://handshakes-{next(_numbers)}"
        socket.monitor(address, FAILURES | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._events: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._events.connect(address)

    def failure(self) -> KeyRefused | None:
        """Why the connection can't be had, as far as that was seen since the last call."""
        found = None
        with contextlib.suppress(zmq.Again):
            while True:
                number, value = struct.unpack("=HI", self._events.recv_multipart(zmq.DONTWAIT)[0][:6])
                found = self._handshakes.event(number, value) or found
        return found

    def close(self) -> None:
        self._socket.disable_monitor()
        self._events.close(linger=0)


_numbers = itertools.count(1)  # of the monitors: a closed one gives its name back only some time later


def mechanism_of(endpoint: str, timeout: float = GREETING_TIMEOUT) -> str:
    """What the peer at an endpoint speaks, by its greeting: ``NULL``, ``CURVE`` …; "" where none can be had."""
    # No more than the version: a peer that has read the whole greeting may close before it has sent its own.
    greeting = struct.pack("!B8xBBB", 0xFF, 0x7F, 3, 1)
    try:
        with contextlib.closing(_dial(endpoint, timeout)) as peer:
            peer.sendall(greeting)
            answer = b""
            while len(answer) < 32 and (more := peer.recv(64)):
                answer += more
    except (OSError, ValueError):
        return ""
    if len(answer) < 32 or answer[0] != 0xFF:
        return ""
    return answer[12:32].rstrip(b"\0").decode("ascii", "replace")


def _dial(endpoint: str, timeout: float) -> sockets.socket:
    import socket as sockets  # noqa: PLC0415 - slow to import, and seldom needed

    if endpoint.startswith("ipc://"):
        peer = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        peer.settimeout(timeout)
        try:
            peer.connect(endpoint.removeprefix("ipc://"))
        except BaseException:
            peer.close()
            raise
        return peer
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return sockets.create_connection((host.strip("[]"), int(port)), timeout)
