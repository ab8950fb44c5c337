"""The agent's state machine: what a worker does, without a socket, a clock, a thread or a process.

``handle`` takes what happened, ``tick`` what time it is; both answer with the actions that the shell carries out.
The core keeps the tie to the broker and the results that the broker has not acknowledged; ``execution`` takes each
job from its dispatch to its result. A job that the broker takes back before its guest began leaves no trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from minilambda import messages as m
from minilambda.settings import WorkerSettings
from minilambda.worker import actions as a
from minilambda.worker import invariants, results
from minilambda.worker.events import Measured, RunnerFinished, RunnerReady
from minilambda.worker.execution import Execution
from minilambda.worker.link import Link
from minilambda.worker.meters import Meters
from minilambda.worker.upgrades import IDLE_AFTER
from minilambda.worker.words import Identity, Words

TELL_AFTER = 0.02
"""A guest that runs for so long is reported as running, seconds; shorter ones are not worth a message."""

OPEN_AFTER = 0.01
"""Jobs that outlived a session start so long after the next began, seconds.

The broker's word on those that it has given to others follows the registration at once.
"""

_BRIEF = frozenset({m.Dispatch, m.Acknowledge, m.Beat})
"""Messages that set no time but those of slots: after them, what is due next need not be worked out anew."""


class Core:
    """One worker. ``jitter`` gives numbers in [0, 1) that spread the registrations of many workers."""

    def __init__(self, settings: WorkerSettings, identity: Identity, jitter: Callable[[], float]) -> None:
        self.settings = settings
        self.identity = identity
        self.link = Link(jitter)
        self._actions: list[a.Action] = []  # that follow from the present event
        self._emit = self._actions.append
        self.execution = Execution(settings, self._emit, self._job_finished, self._say)
        self.meters = Meters()
        self.telling = False  # whether the shell hears of each job that has ended
        self.finished = results.Kept()  # not acknowledged
        self.words = Words(identity, settings, self.link, self.execution, self.finished, self._emit)
        self.draining = False  # takes nothing new
        self.exited = False  # has said goodbye
        self._grace_ends: float | None = None  # when running jobs are killed, seconds
        self._tell_at: float | None = None  # when to report what runs, seconds
        self.due = 0.0  # ``tick`` has nothing to do before this time, seconds; 0: it must find out

    def __repr__(self) -> str:
        jobs, kept = len(self.execution.jobs), len(self.finished)
        return f"<worker {self.identity.name}: session {self.link.session}, {jobs} jobs, {kept} results>"

    # --- the interface to the shell ---

    def start(self) -> list[a.Action]:
        """The first actions: runners for all slots."""
        self.execution.slots.start()
        return self._take_actions()

    def handle(self, event: a.Event, now: float) -> list[a.Action]:
        """What follows from an event. ``now`` is monotonic, seconds."""
        if isinstance(event, a.Received):
            return self.receive(event.message, now)
        kind = type(event)
        if kind is a.Drain:
            self._drain(now)
        else:
            self.execution.HANDLERS[kind](self.execution, event, now)
            if kind is RunnerReady:
                self.link.begin(now)
        return self._settle((kind is RunnerFinished or kind is Measured) and not self.draining, now)

    def receive(self, message: m.Message, now: float) -> list[a.Action]:
        """What follows from a message of the broker: ``handle`` for the event ``Received``."""
        link, kind = self.link, type(message)
        link.heard = now
        handler = self._MESSAGES.get(kind)
        if handler is not None:
            if link.session and message.session == link.session:  # type: ignore[attr-defined]
                handler(self, message, now)
        elif isinstance(message, m.Registered):
            self._registered(message, now)
        elif isinstance(message, m.RegisterAgain) and link.session:
            self._lost(now, soon=True)
        return self._settle(kind in _BRIEF and not self.draining, now)

    def _settle(self, brief: bool, now: float) -> list[a.Action]:
        """The end of each event. ``brief``: one that sets no time but those that are looked at here."""
        execution = self.execution
        slots = execution.slots
        if slots.untold and self._tell_at is None:
            self._tell_at = now + TELL_AFTER
            self.due = min(self.due, self._tell_at)
        self.due = min(self.due, slots.soonest)
        if not brief or execution.moved:
            self.due, execution.moved = 0.0, False
        elif not execution.jobs:
            self.due = min(self.due, now + IDLE_AFTER)
        if execution.dropped:
            execution.dropped = 0
            self.words.report(self.draining, now)
        if execution.puller.transfers or execution.needs.trees.pulls.pulls:
            self.words.fetch()
        taken = self._actions.copy()
        self._actions.clear()
        return taken

    def tick(self, now: float) -> list[a.Action]:
        """What follows from the time alone."""
        if now < self.due:
            return []
        self._tick_link(now)
        self.execution.tick(now)
        if self._tell_at is not None and now >= self._tell_at:
            self._tell(now)
        self.finished.expire(now, self.link.result_keep)
        self._tick_drain(now)
        self.due = self.earliest()
        return self._take_actions()

    def next_deadline(self) -> float | None:
        """When ``tick`` must be called at the latest, seconds. May be early. After a ``tick`` it lies in the future."""
        due = self.due or self.earliest()
        return due if due < math.inf else None

    def earliest(self) -> float:
        """When something is due, exactly and at some cost, seconds; ``inf``: nothing is."""
        times = [self.link.next_deadline(), self.execution.next_deadline()]
        times += [t for t in (self._grace_ends, self._tell_at) if t is not None]
        if self.finished:
            times.append(self.finished.oldest + self.link.result_keep)
        return min(times)

    def check(self) -> None:
        """Raises ``InvariantError`` when the state contradicts itself."""
        invariants.check(self)

    def _take_actions(self) -> list[a.Action]:
        taken = self._actions.copy()
        self._actions.clear()
        return taken

    # --- messages from the broker ---

    def _registered(self, message: m.Registered, now: float) -> None:
        known = message.session in (0, self.link.session)
        if message.worker != self.identity.worker or known or self.exited:
            return
        times = (message.heartbeat_ms / 1000, message.liveness_ms / 1000, message.result_keep_ms / 1000)
        self.link.registered(message.session, *times, now)
        self.execution.open = False
        self.link.open_at = now + (OPEN_AFTER if self.execution.jobs else 0.0)
        self.execution.puller.reset()
        self.execution.needs.trees.pulls.reset()
        self.execution.live.leave_session()
        self.words.catch_up()
        self.words.report(self.draining, now)
        self._open(now)

    def _open(self, now: float) -> None:
        if self.link.open_at is not None and now >= self.link.open_at:
            self.link.open_at = None
            self.execution.open = True
            self.execution.assign(now)

    def _dispatch(self, message: m.Dispatch, now: float) -> None:
        ref, link = message.ref, self.link
        link.seen = max(link.seen, message.sequence)
        for settled in message.settled:
            self.finished.acknowledge(settled, now)
        finished = self.finished.get(ref)
        if finished is not None:
            self.words.done(finished)
        elif ref in self.execution.jobs:
            return
        elif self.draining:
            self.words.returned(ref)
        else:
            self.execution.accept(message, now)

    def _recall(self, message: m.Recall, now: float) -> None:
        job = self.execution.jobs.get(message.ref)
        if job is not None and not job.begun:
            self.execution.forget(job, now)
        self.words.returned(message.ref, begun=message.ref in self.execution.jobs or message.ref in self.finished)

    def _stop(self, message: m.Stop, now: float) -> None:
        job = self.execution.jobs.get(message.ref)
        if job is None:
            finished = self.finished.get(message.ref)
            if finished is not None:
                self.words.done(finished)
        elif job.begun:
            self.execution.kill(job, "cancelled")
        else:
            self.execution.finish(job, results.ended(job, "cancelled", ""), now)

    def _acknowledge(self, message: m.Acknowledge, now: float) -> None:
        self.finished.acknowledge(message.ref, now, message.stale)
        job = self.execution.jobs.get(message.ref)
        if job is not None and job.begun:
            self.execution.kill(job, "stale")
        elif job is not None:
            self.execution.drop(job, now)
        self._tick_drain(now)

    def _beat(self, message: m.Beat, now: float) -> None:
        """Mostly hearing it is all."""
        if message.settled:
            for settled in message.settled:
                self.finished.acknowledge(settled, now)
            self._tick_drain(now)

    def _serve(self, message: m.Fetch, now: float) -> None:
        self.words.piece(message.handle, message.offset, message.size, now)

    def _chunk(self, message: m.Chunk, now: float) -> None:
        self.execution.chunk(message.handle, message.offset, message.total, message.data, now)

    def _live(self, message: m.Watch | m.Allow | m.Unwatch | m.Feed, now: float) -> None:
        job = self.execution.jobs.get(message.ref)
        if job is not None:
            self.execution.live.hear(job, message, now)

    # --- words to the broker ---

    def _say(self, kind: type[m.Written | m.Fed], *about: Any) -> None:
        self._emit(a.Send(kind(self.link.session, *about)))

    def _job_finished(self, finished: results.Finished, now: float) -> None:
        link = self.link
        if self.meters.counting:
            self.meters.ended(finished)
        self.finished.add(finished, now)
        self.words.done(finished)
        if self.telling:
            self._emit(a.JobEnded(finished))
        self.due = min(self.due, now + link.result_keep)
        link.report_at = now + link.heartbeat if link.session else None

    def _tell(self, now: float) -> None:
        """Reports what runs, where something has run for longer than ``TELL_AFTER``."""
        self._tell_at = None
        slots = self.execution.slots
        if slots.settle(now - TELL_AFTER):
            self.words.report(self.draining, now)
        if slots.untold:
            self._tell_at = now + TELL_AFTER

    # --- time ---

    def _tick_link(self, now: float) -> None:
        link = self.link
        if link.silent(now):
            self._lost(now, soon=False)
            self._emit(a.Reconnect())
        if link.session == 0 and link.register_at is not None and now >= link.register_at and not self.exited:
            self.words.register(self.draining, now)
        if link.report_at is not None and now >= link.report_at:
            self.words.report(self.draining, now)
        self._open(now)

    def _lost(self, now: float, soon: bool) -> None:
        self.link.lost(now, soon)
        self.execution.open = False
        self.execution.live.leave_session()

    # --- drain ---

    def _drain(self, now: float) -> None:
        if self.draining:
            if not self.exited:
                self._exit()
            return
        self.draining = True
        self._grace_ends = now + self.settings.grace
        for job in [job for job in self.execution.jobs.values() if not job.begun]:
            self.execution.forget(job, now)
            self.words.returned(job.ref)
        self.words.report(self.draining, now)
        self._tick_drain(now)

    def _tick_drain(self, now: float) -> None:
        if not self.draining or self.exited:
            return
        if not self.execution.jobs and not self.finished:
            self._exit()
        elif self._grace_ends is not None and now >= self._grace_ends:
            for job in list(self.execution.jobs.values()):
                self.execution.kill(job, "drain")
            self._exit()

    def _exit(self) -> None:
        self.exited = True
        self._grace_ends = None
        self.words.goodbye()
        self._lost(0.0, soon=False)
        self.link.register_at = None
        self._emit(a.Exit())

    _MESSAGES: ClassVar[dict[type, Callable[[Any, Any, float], None]]] = {
        m.Dispatch: _dispatch,
        m.Recall: _recall,
        m.Stop: _stop,
        m.Acknowledge: _acknowledge,
        m.Beat: _beat,
        m.Fetch: _serve,
        m.Chunk: _chunk,
        **dict.fromkeys((m.Watch, m.Allow, m.Unwatch, m.Feed), _live),
    }
