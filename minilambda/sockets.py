"""What every ZeroMQ socket of minilambda has in common."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from typing import Any

import zmq

from minilambda.fields import MAX_FRAME

KEEPALIVE = {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 15, zmq.TCP_KEEPALIVE_INTVL: 5, zmq.TCP_KEEPALIVE_CNT: 3}
"""A peer whose machine has vanished is found out by the kernel: asked after 15 s, given up after three times 5 s more.

ZMTP has heartbeats for this too, but each of them costs libzmq a search through the timers of all connections: with
10,000 idle ones that takes a whole core.
"""

FIXED_LIBZMQ = (4, 3, 5)
"""A socket that strangers reach should have at least this release of libzmq, which has the fixes that are known."""

UNHEARD_MS = 30_000
"""A connection whose data nobody acknowledges is dropped after so long, milliseconds."""

_seeded: list[int] = []  # processes that have seeded libzmq; a fork seeds again


def seed_libzmq() -> None:
    """Seed the C library's ``rand`` from the system, once per process and before the first socket.

    libzmq draws routing ids, request ids and its reconnect jitter from ``rand``, which starts at a constant: a
    stranger could name the next routing id, and every client would come back at the same instant.
    """
    if os.getpid() in _seeded:
        return
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))
    _seeded[:] = [os.getpid()]


def warn_of_old_libzmq(version: tuple[int, int, int] | None = None) -> None:
    """Log a warning where libzmq is older than ``FIXED_LIBZMQ``."""
    found = version or zmq.zmq_version_info()
    if found < FIXED_LIBZMQ:
        import logging  # noqa: PLC0415 - a client's start does without it

        log = logging.getLogger(__name__)
        text = "libzmq %s is older than %s, which has the known fixes; install pyzmq from its wheel"
        log.warning(text, ".".join(map(str, found)), ".".join(map(str, FIXED_LIBZMQ)))


def allow_connections() -> None:
    """Let this process have as many connections as the system allows: each is an open file.

    The usual limit of 1,024 is meant for programs that wait by ``select``; past it a broker would hear no newcomer.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # some systems say "no limit" and have one
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def new_socket(context: zmq.Context[Any], kind: int) -> zmq.Socket[bytes]:
    """A socket of the context, or none: what interrupts its making does not leave it behind.

    The context knows a socket only once it is made, and waits for ever, when it ends, for one that it does not know.
    The first one starts libzmq's threads, so it takes long enough for a Ctrl-C to find it.
    """
    socket: zmq.Socket[bytes] = zmq.Socket.__new__(zmq.Socket)

    def made(*args: Any) -> zmq.Socket[bytes]:
        socket.__init__(*args)  # type: ignore[misc]
        return socket

    try:
        context.socket(kind, socket_class=made)
    except BaseException:
        socket.close(linger=0)
        raise
    return socket


def common_options(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Set what every socket needs before it binds or connects to ``endpoint``."""
    socket.setsockopt(zmq.LINGER, 500)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    socket.setsockopt(zmq.SNDHWM, 1000)
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
    for option, value in KEEPALIVE.items():
        socket.setsockopt(option, value)
    socket.setsockopt(zmq.TCP_MAXRT, UNHEARD_MS)
    if "[" in endpoint:  # with it, libzmq no longer finds the IPv4 address of a name such as localhost
        socket.setsockopt(zmq.IPV6, 1)


def connecting_options(socket: zmq.Socket[bytes]) -> None:
    """Set what a socket that connects needs besides: messages go only to a peer that is there."""
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)  # libzmq adds a random part
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
