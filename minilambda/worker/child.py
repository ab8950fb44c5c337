"""What the agent holds of any process under it: its channel and its pidfd.

Everything that a process says is checked; the answer to a surprise is SIGKILL. Nothing here blocks, and nothing
that a process does raises out of ``hear``, ``last_words``, ``died`` or ``kill``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from minilambda.worker import codec
from minilambda.worker.channel import MAX_PACKET, Channel, ChannelClosed, ChannelError
from minilambda.worker.events import ProcessEvent

_LAST_WORDS = 3  # messages read of a dead process: an outcome, a fault, and the end


class Child(ABC):
    """A process that the template forks for us. Owns its channel and its descriptors."""

    def __init__(self, number: int, own_fds: list[int], spill: int | None) -> None:
        """Takes ``own_fds``, with ``spill`` among them. Raises OSError; then they are closed."""
        try:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            close_all(own_fds)
            raise
        near.setblocking(False)
        self.number = number  # names the process between us and the template, never used twice
        self.channel: Channel | None = Channel(near, spill)  # None: hung up, it may say nothing more
        self.far_end = far  # the process's end, until the template has it
        self.pid: int | None = None  # None: not forked yet
        self.fault = ""  # what went wrong by its own account or by ours
        self.unsupported = False  # it can't be made here, for what its job asks for
        self.max_message = MAX_PACKET  # largest message that it may send now, bytes
        self._own_fds = own_fds  # closed with the handle
        self._pidfd: int | None = None  # None: not forked yet
        self._doomed = False  # a kill was asked for

    def started(self, pid: int, pidfd: int) -> None:
        """The template has forked it; the pidfd is ours now."""
        self.pid, self._pidfd = pid, pidfd
        if self._doomed:
            self.kill()

    def furnished(self, fds: list[int]) -> None:
        """What came along with its start, which is ours now. Nothing is expected."""
        close_all(fds)

    def kill(self) -> None:
        """SIGKILL, now or as soon as it exists. Idempotent."""
        self._doomed = True
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def hear(self) -> list[ProcessEvent]:
        """The next message, if there is one. Whoever breaks the rules, or hangs up, is killed."""
        try:
            received = self.channel.receive(self.max_message) if self.channel is not None else None
            if received is None:
                return []
            kind, fields = codec.unpack_untrusted(received[0])
            if kind == "fault" and not self.fault and len(fields) == 1:
                self.fault = codec.text(fields[0], codec.MAX_TEXT)
                return []
            return self._understand(kind, fields)
        except ChannelClosed:
            self._hang_up()
        except ChannelError as error:
            self.fault = error.message
            self._hang_up()
        return []

    def last_words(self) -> list[ProcessEvent]:
        """What it had said before it died; afterwards its channel is closed."""
        # No loop until the end of the channel: whoever has a copy of the other end could keep it open.
        events = [event for _ in range(_LAST_WORDS) for event in self.hear()]
        self._hang_up()
        return events

    def _hang_up(self) -> None:
        # The process may have closed its channel and live on; if it is dying, the kill changes nothing.
        self.kill()
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    @abstractmethod
    def _understand(self, kind: str, fields: list[Any]) -> list[ProcessEvent]:
        """Events for one message. Raises ChannelError when it is not one that may come now."""

    @abstractmethod
    def died(self, how: str) -> list[ProcessEvent]:
        """Events for its death, which the template reports as ``how``. Called once."""

    @abstractmethod
    def request(self) -> tuple[bytes, list[int]]:
        """What the template must be told to fork it: the message and the descriptors."""

    @property
    def pidfd(self) -> int | None:
        """Readable once the process is dead; None before the template has forked it."""
        return self._pidfd

    def close(self) -> None:
        """Kill it and close all that is held of it. Idempotent."""
        self._hang_up()
        self.far_end.close()
        close_all(self._own_fds)
        self._own_fds = []
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


def close_when_dead(children: Sequence[Child], patience: float) -> None:
    """Wait at most ``patience`` seconds for children that were killed, then close them all."""
    deadline = time.monotonic() + patience
    for child in children:
        if child.pidfd is not None:
            gone = select.poll()
            gone.register(child.pidfd, select.POLLIN)
            gone.poll(max(0.0, deadline - time.monotonic()) * 1e3)
        child.close()


def memfds(*names: str, flags: int) -> list[int]:
    """New memfds, all of them or none. Raises OSError."""
    fds: list[int] = []
    try:
        for name in names:
            fds.append(os.memfd_create(name, flags))
    except OSError:
        close_all(fds)
        raise
    return fds


def close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
