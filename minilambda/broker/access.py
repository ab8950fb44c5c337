"""All that the broker's shell does about keys: who may connect, whose message this is, what a changed list means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from minilambda.broker.authority import Authority
from minilambda.broker.authorized import LOOK_EVERY, Watch
from minilambda.broker.callers import Callers
from minilambda.broker.events import AccessChanged
from minilambda.broker.gate import Gate
from minilambda.curve import serve_with
from minilambda.keys import Pair


@dataclass(frozen=True, slots=True)
class BrokerKeys:
    """What a broker with keys needs."""

    own: Pair
    authorized: Path  # file with the keys that may talk to it


class Access:
    """The ties of a ROUTER to keys, to be made before it is bound. Without keys everybody may come.

    Raises ``BadKey`` for a list of keys that can't be used.
    """

    def __init__(self, context: zmq.Context[Any], socket: zmq.Socket[bytes], keys: BrokerKeys | None) -> None:
        self._watch = None if keys is None else Watch(keys.authorized)  # of the list of keys
        self._callers = Callers()
        self.note, self.hang_up = self._callers.note, self._callers.hang_up  # for connections, with keys or without
        self.look_at = 0.0  # when ``look`` has something to do, seconds
        self.refused: dict[str, int] = {}  # who did not get in, counted by kind
        if keys is not None:
            serve_with(socket, keys.own)
        self._gate = Gate(context, socket, self.authority or Authority(), "" if keys is None else keys.own.public)

    def close(self) -> None:
        """End it, before the socket is closed."""
        self._gate.close()

    @property
    def authority(self) -> Authority | None:
        """Who may say what; None without keys."""
        return None if self._watch is None else self._watch.authority

    def who(self, frame: zmq.Frame, connection: bytes) -> str:
        """The principal that has sent a frame; "" for none. One who has lost its key meanwhile is cut off now."""
        sender = self._callers.principal(frame, connection)
        if sender and self._watch is not None and not self._watch.authority.role(sender):
            self._callers.cut({sender})
        return sender

    def look_soon(self) -> None:
        """Look at the list of keys at the next occasion."""
        self.look_at = 0.0

    def look(self, now: float) -> AccessChanged | None:
        """Count who did not get in, and see whether the list of keys has changed. Who lost its role is cut off."""
        self.look_at = now + LOOK_EVERY
        self.refused = {kind: number for kind, number in self._gate.refused.items() if number}
        if self._watch is None:
            return None
        before, later = self._watch.authority, self._watch.changed()
        if later is None:
            return None
        lost = before.lost(later)
        self._gate.authority = later  # first: nobody who is cut off gets in again
        return AccessChanged(later, lost, self._callers.cut(lost))
