"""The channel between the agent and a process under it: whole messages over a SOCK_SEQPACKET socket.

A message larger than ``MAX_PACKET`` goes through the channel's spill, a memfd that both ends hold, and only
its length is in the packet. The two ends take turns (an order, its outcome), so one spill serves both
directions. What the messages mean is in ``codec``.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from collections.abc import Callable, Sequence

from minilambda.errors import MinilambdaError

MAX_PACKET = 64 * 1024
"""Largest message that travels in the packet itself, bytes."""

MAX_SPILL = 1 << 30
"""Largest message of any kind, bytes."""

NO_FDS: list[int] = []
"""What comes with a message that brings no descriptors. Nobody adds to it."""

_INLINE = 0
_SPILLED = 1
_LENGTH = struct.Struct("<Q")
_CHUNK = 1 << 20  # bytes per read or write of a spill


class ChannelError(MinilambdaError):
    """The other end said something that it must not say, or the channel can't carry the message."""

    sentence = "The other end of the channel broke the rules."


class ChannelClosed(ChannelError):
    """The other end is gone."""

    sentence = "The other end of the channel is closed."


class Channel:
    """One end of a channel. It owns the socket, not the spill."""

    def __init__(self, sock: socket.socket, spill: int | None = None, max_fds: int = 0) -> None:
        self._sock = sock
        self._spill = spill  # memfd for large messages; None: there is none, and a large message is an error
        # Room for the descriptors taken from one message, bytes; with 0 the kernel drops them.
        self._room = socket.CMSG_SPACE(max_fds * array.array("i").itemsize) if max_fds else 0
        self.before_spill: Callable[[], object] = _nothing
        """Called before the spill is read or written: what a guest's limits would not allow."""
        # One byte more than a packet may have; of its pages, only those that messages need take memory.
        self._buffer = mmap.mmap(-1, 1 + MAX_PACKET + 1, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self._buffer)

    def fileno(self) -> int:
        """The socket's descriptor, to poll; -1 after ``close``."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._sock.close()

    def send(self, payload: bytes, fds: Sequence[int] = ()) -> None:
        """Send one message, with descriptors beside it.

        Raises ChannelClosed when the other end is gone, ChannelError when the message is too large or, on a
        non-blocking socket, the other end does not read.
        """
        if len(payload) > MAX_PACKET:
            self._write_spill(payload)
            packet = b"\1" + _LENGTH.pack(len(payload))
        else:
            packet = b"\0" + payload
        try:
            if fds:
                self._sock.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            else:
                self._sock.send(packet)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed() from error
        except OSError as error:
            raise ChannelError(f"The message could not be sent: {error}.") from error

    def receive(self, max_bytes: int = MAX_PACKET) -> tuple[bytes, list[int]] | None:
        """The next message and the descriptors that came with it, which the caller then owns.

        None when a non-blocking socket has nothing. Raises ChannelClosed at the end, ChannelError for a message
        that is malformed or larger than ``max_bytes``.
        """
        fds = NO_FDS
        try:
            if self._room:
                size, fds = self._receive_with_fds()
            else:
                size = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return None
        except ConnectionResetError as error:
            raise ChannelClosed() from error
        except OSError as error:
            raise ChannelError(f"The channel can't be read: {error}.") from error
        if self._buffer[0] == _INLINE and 0 < size <= 1 + MAX_PACKET:
            return bytes(self._view[1:size]), fds
        try:
            return self._uncommon(size, max_bytes), fds
        except ChannelError:
            for fd in fds:
                os.close(fd)
            raise

    def _receive_with_fds(self) -> tuple[int, list[int]]:
        size, control, _flags, _address = self._sock.recvmsg_into([self._buffer], self._room, socket.MSG_CMSG_CLOEXEC)
        if not control:
            return size, NO_FDS
        fds = array.array("i")
        for level, kind, data in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        return size, list(fds)

    def _uncommon(self, size: int, max_bytes: int) -> bytes:
        """The message of a packet that does not carry it, or is not one."""
        if size == 0:
            raise ChannelClosed()
        if size > 1 + MAX_PACKET:
            raise ChannelError("A packet was too large.")
        if self._buffer[0] != _SPILLED or size != 1 + _LENGTH.size:
            raise ChannelError("A packet was malformed.")
        payload = self._view[1:size]
        (length,) = _LENGTH.unpack(payload)
        if length > max_bytes:
            raise ChannelError(f"A message of {length} bytes was announced where at most {max_bytes} are allowed.")
        return self._read_spill(length)

    def _write_spill(self, payload: bytes) -> None:
        if self._spill is None or len(payload) > MAX_SPILL:
            raise ChannelError(f"A message of {len(payload)} bytes is too large for the channel.")
        view, offset = memoryview(payload), 0
        try:
            self.before_spill()
            os.ftruncate(self._spill, 0)
            while offset < len(view):
                offset += os.pwrite(self._spill, view[offset:], offset)
        except OSError as error:
            raise ChannelError(f"The message could not be written: {error}.") from error

    def _read_spill(self, length: int) -> bytes:
        if self._spill is None:
            raise ChannelError("A large message was announced on a channel that carries none.")
        parts, offset = [], 0
        try:
            self.before_spill()
            while offset < length:
                part = os.pread(self._spill, min(_CHUNK, length - offset), offset)
                if not part:
                    raise ChannelError("A message was shorter than announced.")
                parts.append(part)
                offset += len(part)
            os.ftruncate(self._spill, 0)  # gives the memory back
        except OSError as error:
            raise ChannelError(f"The message could not be read: {error}.") from error
        return b"".join(parts)


def _nothing() -> None:
    """Nobody needs to know of a spill."""
