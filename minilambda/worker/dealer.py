"""The agent's ZeroMQ socket: whole messages in and out, in few steps, since every job takes them twice."""

from __future__ import annotations

from typing import Any, cast

import zmq

from minilambda import sockets
from minilambda.worker.entry import Entry

# As plain numbers: a flag of an enumeration costs a call of Python code.
_NOW = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class Dealer:
    """One DEALER, connected to the broker. A broken connection is made anew by libzmq.

    ``fd`` is readable when something *happened*, not while a message is there: any call into libzmq may take note of
    what happened and leave the message unread. So a loop must ask ``waiting`` before each time that it sleeps.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, entry: Entry) -> None:
        self._socket = context.socket(zmq.DEALER)
        sockets.common_options(self._socket, endpoint)
        sockets.connecting_options(self._socket)
        self._entry = entry
        entry.attach(context, self._socket)
        self._socket.connect(endpoint)
        self.fd = cast(int, self._socket.getsockopt(zmq.FD))
        self._receive_frame: Any = self._socket.recv
        # Of the base class: the layer above it only serves sockets of other kinds.
        self._send_frame: Any = super(zmq.Socket, self._socket).send
        self._question = [(self._socket, int(zmq.POLLIN))]
        self._asleep = False  # nothing is there, and ``fd`` will tell when something is

    def waiting(self) -> bool:
        """Whether a message is there. Cheap when nothing was received or sent since it last said no."""
        if self._asleep:
            return False
        if zmq.zmq_poll(self._question, 0):  # cheaper than the option EVENTS, which is looked up by Python code
            return True
        self._asleep = True
        return False

    def receive(self) -> list[bytes]:
        """The frames of the next message, envelope and all; none at all when no message is there.

        To look for a message that is not there is expensive: ask ``waiting`` or ``fd`` first.
        """
        self._asleep = False
        frames: list[bytes] = []
        try:
            # A frame that is not copied by libzmq's binding knows whether it is the last. The first one never is,
            # since a message begins with its envelope: whoever sends another kind spoils his own next message.
            frames.append(self._receive_frame(_NOW))
            more = True
            while more:
                frame = self._receive_frame(_NOW, False)
                frames.append(frame.bytes)
                more = frame.more
        except zmq.Again:
            pass
        return frames

    def send(self, frames: list[bytes]) -> bool:
        """Sends a message behind an empty envelope; False when the broker does not take it now."""
        self._asleep = False
        send = self._send_frame
        try:
            send(b"", _MORE)
        except zmq.Again:
            return False
        # Libzmq takes a message as a whole: the first frame decides.
        for frame in frames[:-1]:
            send(frame, _MORE)
        send(frames[-1], _NOW)
        return True

    def close(self, linger_ms: int) -> None:
        """Close, after as much of what was sent as goes in that time, milliseconds."""
        self._entry.detach()
        self._socket.close(linger=linger_ms)
