"""Whether the broker lets this worker in, as far as keys go, and who is told when it does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq

from minilambda import curve
from minilambda.keys import PeerKeys
from minilambda.worker.link import Link

UNANSWERED = 3
"""Registrations in a row without an answer after which people are told."""


class Entry:
    """The worker's keys, and what became of its handshakes. ``on_refused`` gets a sentence, once for each reason."""

    def __init__(
        self, endpoint: str, keys: PeerKeys | None = None, on_refused: Callable[[str], None] = lambda reason: None
    ) -> None:
        self._endpoint = endpoint
        self._keys = keys
        self._on_refused = on_refused
        self.on_unanswered: Callable[[], None] | None = None  # called once for each time without an answer
        self._watch: curve.Watch | None = None  # of the present socket
        self._reason = ""  # why the broker does not take this worker, as people were told; "" once it does
        self._told = False  # that no broker answers, since the last registration
        self.broken = False  # the socket will not try again, so another one is needed

    def attach(self, context: zmq.Context[Any], socket: zmq.Socket[bytes]) -> None:
        """Begin with a socket that is about to connect."""
        curve.connect_with(socket, self._keys)
        self._watch = curve.Watch(context, socket, self._endpoint, self._keys)
        self.broken = False

    def detach(self) -> None:
        """The socket is about to be closed."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def tell(self, link: Link, ending: bool = False) -> None:
        """Say once for each time without a broker that none answers, or why one does not take this worker.

        ``ending``: the worker looks for none any more, and so need not say that there is none.
        """
        if link.session:
            return
        failure = None if self._watch is None else self._watch.failure()
        if failure is not None:
            self.broken = True
            self.refuse(failure.message)
        unanswered = link.tries >= UNANSWERED
        if unanswered and not (ending or self._told or self._reason) and self.on_unanswered:
            self.on_unanswered()
        self._told = unanswered

    def taken(self) -> None:
        """The broker has taken this worker in."""
        self._told, self._reason = False, ""

    def refuse(self, reason: str) -> None:
        """The broker does not take this worker."""
        if reason != self._reason:
            self._reason = reason
            self._on_refused(reason)
