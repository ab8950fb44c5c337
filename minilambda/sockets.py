"""What every ZeroMQ socket of minilambda has in common."""

from __future__ import annotations

import os

import zmq

from minilambda.fields import MAX_FRAME

HEARTBEAT_MS = 5_000
"""A silent peer is pinged so often by ZMTP, milliseconds."""

HEARTBEAT_TIMEOUT_MS = 30_000
"""A connection is dropped after so long without an answer to a ping, milliseconds."""

_seeded: list[int] = []  # processes that have seeded libzmq; a fork seeds again


def seed_libzmq() -> None:
    """Seed the C library's ``rand`` from the system, once per process and before the first socket.

    libzmq draws routing ids, request ids and its reconnect jitter from ``rand``, which starts at a constant: a
    stranger could name the next routing id, and every client would come back at the same instant.
    """
    if os.getpid() in _seeded:
        return
    import ctypes  # noqa: PLC0415 - only needed here

    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))
    _seeded[:] = [os.getpid()]


def common_options(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Set what every socket needs before it binds or connects to ``endpoint``."""
    socket.setsockopt(zmq.LINGER, 500)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    socket.setsockopt(zmq.SNDHWM, 1000)
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 5_000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    if "[" in endpoint:  # with it, libzmq no longer finds the IPv4 address of a name such as localhost
        socket.setsockopt(zmq.IPV6, 1)


def connecting_options(socket: zmq.Socket[bytes]) -> None:
    """Set what a socket that connects needs besides: messages go only to a peer that is there."""
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)  # libzmq adds a random part
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2_000)
