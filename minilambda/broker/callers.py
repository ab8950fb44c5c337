"""Whose message this is, where peers have keys, and how to cut somebody off.

libzmq says with each message whom the gate has let in with its connection, and the connection's descriptor. A
connection is cut by shutting that down: libzmq then sees the end of it as if the peer had gone.
"""

from __future__ import annotations

import contextlib
import os
import socket as sockets
import stat
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import zmq


@dataclass(frozen=True, slots=True)
class _Caller:
    connection: bytes  # first frame of its routes
    principal: str
    inode: tuple[int, int]  # of its descriptor: another connection under the same number has another


class Callers:
    """The connections that have sent something, by descriptor; so there are never more than descriptors."""

    def __init__(self) -> None:
        self._callers: dict[int, _Caller] = {}

    def principal(self, frame: Any, connection: bytes) -> str:
        """Who sent a message, by its first frame as libzmq gave it; "" where that is not known."""
        try:
            principal: str = frame.get("User-Id")
            descriptor = int(frame.get("__fd"))
        except (zmq.ZMQError, ValueError, TypeError):
            return ""
        known = self._callers.get(descriptor)
        if known is None or known.connection != connection or known.principal != principal or connection[0]:
            self._callers[descriptor] = _Caller(connection, principal, _inode(descriptor))
        return principal

    def note(self, frame: Any, connection: bytes) -> None:
        """The same where there are no keys: remember only which descriptor the connection has."""
        try:
            descriptor: int = frame.get(zmq.SRCFD)
        except zmq.ZMQError:
            return
        known = self._callers.get(descriptor)
        # A name that a peer has given itself, unlike any automatic one, may come again with another connection.
        if known is None or known.connection != connection or connection[0]:
            self._callers[descriptor] = _Caller(connection, "", _inode(descriptor))

    def hang_up(self, connection: bytes) -> None:
        """End a connection, by the first frame of its routes, as far as its descriptor is known."""
        for descriptor, caller in list(self._callers.items()):
            if caller.connection == connection:
                _shut(descriptor, caller.inode)
                del self._callers[descriptor]

    def cut(self, principals: Container[str]) -> frozenset[bytes]:
        """End all connections of these principals; returns what their routes begin with."""
        found = [(number, each) for number, each in self._callers.items() if each.principal in principals]
        for descriptor, caller in found:
            _shut(descriptor, caller.inode)
            del self._callers[descriptor]
        return frozenset(caller.connection for _, caller in found)


def _inode(descriptor: int) -> tuple[int, int]:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else (0, 0)


def _shut(descriptor: int, inode: tuple[int, int]) -> None:
    """Shut a connection down, if the descriptor is still that connection's. A copy of it can't become another's."""
    with contextlib.suppress(OSError):
        copy = os.dup(descriptor)
        if inode == (0, 0) or _inode(copy) != inode:
            os.close(copy)
            return
        with sockets.socket(fileno=copy) as connection:
            connection.shutdown(sockets.SHUT_RDWR)
