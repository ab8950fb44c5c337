"""Who may say what to a broker, and what becomes of its state when somebody loses the right to talk to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from minilambda.broker.authority import Authority
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
        """Whose jobs a request is about, "" for the sender's own. Raises ``Forbidden`` where it may not ask."""
        if asked and asked != sender and self.authority is not None and not self.authority.is_admin(sender):
            self._forbid("Only an admin may ask for the jobs of others.")
        return asked or sender

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
            for waiter in [each for each in job.waiters if each.route[0] in event.connections]:
                job.waiters.remove(waiter)
                if waiter.timed:
                    core.timers.clear(("wait", job.key, waiter.route[0]))
        return True
