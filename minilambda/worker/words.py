"""What a worker says to its broker: who it is, what it holds, how its jobs ended. Pure.

Every word but the first states the queue length as of the last dispatch that arrived, so the broker's view is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minilambda import messages as m
from minilambda.fields import MAX_AT_HAND, MAX_FRAME
from minilambda.settings import WorkerSettings
from minilambda.worker import actions as a
from minilambda.worker import results
from minilambda.worker.execution import Execution
from minilambda.worker.link import Link

LISTED = 1000
"""Jobs named in one list of a message, at most, so that its header stays within bounds."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is."""

    worker: str  # its own id, new at every start of the agent
    name: str  # for people
    version: str = ""
    host: str = ""
    pid: int = 0


class Words:
    """The messages of one worker, for ``emit`` to send. Only ``register`` speaks without a session."""

    def __init__(
        self,
        identity: Identity,
        settings: WorkerSettings,
        link: Link,
        execution: Execution,
        finished: results.Kept,
        emit: Callable[[a.Send], None],
    ) -> None:
        self._identity = identity
        self._settings = settings
        self._link = link
        self._execution = execution
        self._finished = finished
        self._emit = emit
        self.walls = ""  # around guests, in a few words; known before the first registration

    def know_walls(self, walls: str) -> None:
        """What to say of the walls around guests from now on."""
        self.walls = walls

    def register(self, draining: bool, now: float) -> None:
        who = self._identity
        about = m.Register(
            worker=who.worker,
            name=who.name,
            slots=self._settings.slots,
            version=who.version,
            host=who.host,
            pid=who.pid,
            walls=self.walls,
            draining=draining,
            ended=self._link.ended[0],
            seen=self._link.ended[1],
            held=tuple(self._execution.jobs)[:LISTED],
            finished=tuple(self._finished.listed())[:LISTED],
            artifacts=self._execution.at_hand()[-MAX_AT_HAND:],
        )
        self._send(about)
        self._link.registering(about.held, now)

    def catch_up(self) -> None:
        """A session began: what became of jobs since the registration, and every result that is kept."""
        gone = [ref for ref in self._link.held if ref not in self._execution.jobs]
        untold = len(gone)
        for ref in [*gone, *(ref for ref in self._finished.listed() if ref not in gone)]:
            untold = max(0, untold - 1)
            finished = self._finished.get(ref)
            if finished is not None:
                self.done(finished, untold)
            else:
                self.returned(ref, untold=untold)

    def done(self, finished: results.Finished, untold: int = 0) -> None:
        """How a job ended. ``untold`` jobs count as held: the broker has yet to learn that they are not."""
        link, f = self._link, finished
        if not link.session:
            return
        queue, worker = len(self._execution.jobs) + untold, self._identity.name
        result = m.Result(f.state, f.exit_code, f.error, f.usage, f.tier, worker, f.ref.attempt)
        if f.size <= results.INLINE:
            about = m.Done(link.session, f.ref, queue, link.seen, result, {}, f.stdout, f.stderr, f.value, f.collected)
        else:
            about = m.Done(link.session, f.ref, queue, link.seen, result, results.withhold(f))
        self._emit(a.Send(about))

    def returned(self, ref: m.JobRef, begun: bool = False, untold: int = 0) -> None:
        if self._link.session:
            self._send(m.Returned(self._link.session, ref, self._queue + untold, self._link.seen, begun))

    def report(self, draining: bool, now: float) -> None:
        if self._link.session:
            running = tuple(slot.job.ref for slot in self._execution.slots.busy if slot.job)[:LISTED]
            self._send(m.Report(self._link.session, self._queue, self._link.seen, draining, running))
            self._link.reported(now)

    def fetch(self) -> None:
        """Asks for what is missing, as far as the window allows."""
        if self._link.session:
            for handle, offset, size in self._execution.puller.requests():
                self._send(m.Fetch(self._link.session, handle, offset, size))
            for digest, offset, size in self._execution.needs.trees.pulls.requests():
                self._send(m.Fetch(self._link.session, digest, offset, size))

    def piece(self, handle: str, offset: int, size: int, now: float) -> None:
        """A piece of a result's body that did not ride along."""
        body = self._finished.body(handle, now)
        data = body[offset : offset + min(size, MAX_FRAME)]
        self._send(m.Chunk(self._link.session, handle, offset, len(body), data))

    def live(self, message: m.Written | m.Fed) -> None:
        """Output for a follower, or that input is taken. The session is filled in here."""
        message.session = self._link.session
        self._send(message)

    def goodbye(self) -> None:
        if self._link.session:
            self._send(m.Goodbye(self._link.session))

    def _send(self, message: m.Message) -> None:
        self._emit(a.Send(message))

    @property
    def _queue(self) -> int:
        return len(self._execution.jobs)
