"""A message of which libzmq says how much has gone out."""

from __future__ import annotations

from collections import deque

import zmq

NOW, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

LARGE = 64 * 1024
"""Frames from this size on are not copied, bytes."""


class Watched:
    """A message that is handed over without a copy: libzmq gives back each frame when it is done with it.

    Small frames are copied all the same, but for the last one, behind which nothing of the message is left. They count
    with the next one that is not.
    """

    def __init__(self, socket: zmq.Socket[bytes], frames: list[bytes]) -> None:
        """Sends the message, or raises what ``send`` raises."""
        self._pieces: deque[tuple[zmq.MessageTracker, int]] = deque()  # with their bytes, in order
        self.left = 0  # so much of it had not gone out when ``look`` was called last, bytes
        last, size = len(frames) - 1, 0
        for index, data in enumerate(frames):
            size += len(data)
            flags = NOW if index == last else MORE
            if index < last and len(data) < LARGE:
                socket.send(data, flags)
                continue
            frame = zmq.Frame(data, track=True, copy=False)
            socket.send(frame, flags, copy=False, track=True)
            self._pieces.append((frame.tracker, size))
            self.left += size
            size = 0

    def look(self) -> int:
        """See how much has not gone out yet, bytes."""
        while self._pieces and self._pieces[0][0].done:
            self.left -= self._pieces.popleft()[1]
        return self.left
