"""Who may say what to a broker, and what becomes of its state when somebody loses the right to talk to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from minilambda.broker.authority import ADMIN, EVERYBODY, Authority
from minilambda.broker.events import AccessChanged, Event
from minilambda.broker.registry import Worker
from minilambda.errors import Forbidden
from minilambda.messages import Message

if TYPE_CHECKING:
    from minilambda.broker.core import Core


class AccessSide:
    """The rights, and the handler of their changes. ``lose`` takes a worker for lost."""

    def __init__(self, core: Core, lose: Callable[[Worker, float], None]) -> None:
        self.authority: Authority | None = None  # None: there are no keys, and everybody may do everything
        self._core = core
        self._lose = lose

    def check(self, principal: str, kind: type[Message]) -> None:
        """Raise ``Forbidden`` where the principal may not send such a message."""
        refusal = None if self.authority is None else self.authority.refusal(principal, kind)
        if refusal:
            self._forbid(refusal)

    def owner(self, sender: str, asked: str) -> str:
        """Whose jobs a request is about, "" for the sender's own. Raises ``Forbidden`` where it may not ask.

        An observer has none of its own, and means everybody's.
        """
        if self.authority is None:
            return asked or sender
        if asked and asked != sender and not self.authority.sees_all(sender):
            self._forbid("Only an admin may ask for the jobs of others.")
        return asked or (EVERYBODY if self.authority.observes(sender) else sender)

    def shares(self, principal: str) -> bool:
        """Whether the functions that a principal shares are there for everybody."""
        return self.authority is None or self.authority.role(principal) == ADMIN

    def check_sharing(self, principal: str) -> None:
        """Raise ``Forbidden`` where the principal may not share functions."""
        if not self.shares(principal):
            self._forbid("Only an admin may share a function.")

    def _forbid(self, reason: str) -> None:
        self._core.count(Forbidden.code)
        raise Forbidden(reason)

    def handle(self, event: Event, now: float) -> bool:
        """Workers that have lost their role are lost with it, requests of clients that have are not answered any more.

        The jobs of such a client go on, accepted as they are; an admin can cancel them. Returns whether the event was
        about rights at all.
        """
        if type(event) is not AccessChanged:
            return False
        core = self._core
        self.authority = event.authority
        for worker in [each for each in core.workers.sessions.values() if each.principal in event.lost]:
            self._lose(worker, now)
        for job in core.jobs.values():
            for connection in [each.route[0] for each in job.waiters if each.route[0] in event.connections]:
                waiter = job.take_waiter(connection)
                if waiter is not None and waiter.timed:
                    core.timers.clear(("wait", job.key, connection))
        core.streams.cut(event.connections)
        return True
