"""What workers tell the broker. Nothing of it is believed unless the broker can square it with what it knows.

A message of a session that the broker does not know is answered with ``register_again``; a result or a job
handed back counts only for the current attempt, from the worker that has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minilambda.broker.arrivals import STALL
from minilambda.broker.body_side import BodySide
from minilambda.broker.events import Route
from minilambda.broker.job_side import JobSide
from minilambda.broker.jobs import UNSENT, Job
from minilambda.broker.registry import Worker
from minilambda.messages import (
    Acknowledge,
    Beat,
    Dispatch,
    Done,
    Goodbye,
    JobRef,
    Message,
    Recall,
    Register,
    RegisterAgain,
    Registered,
    Report,
    Returned,
    Stop,
)
from minilambda.transfers import Puller

if TYPE_CHECKING:
    from minilambda.broker.core import Core


class WorkerSide:
    """The handlers of workers' messages."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._bodies = BodySide(core, self._find)
        self.handlers: dict[type[Message], Callable[[Route, str, Any, float], None]] = {
            Register: self._register,
            Report: self._report,
            Goodbye: self._goodbye,
            **JobSide(core, self._find, self._hear, self._bodies).handlers,
            **self._bodies.handlers,
            **core.streams.for_workers(self._find),
        }

    # --- sessions --------------------------------------------------------------------------------

    def _register(self, route: Route, principal: str, message: Register, now: float) -> None:
        core = self._core
        core.unclaimed.open(now)
        old = core.workers.by_key(message.worker, principal)
        if old is not None and old.asks_again(route, message):
            old.registered_at = old.seen_at = now
            old.draining = message.draining
            core.scheduler.update(old)
            self._welcome(old)
            return
        squatter = core.workers.by_connection.get(route[0])
        if squatter is not None and squatter is not old:
            self.forget(squatter, now)
        if old is not None:
            core.workers.remove(old)
            core.scheduler.remove(old)
            core.timers.clear(("alive", old.session))
        worker = Worker(
            message.worker,
            core.workers.new_session(),
            route,
            message.name,
            message.slots,
            message.version,
            message.host,
            message.pid,
            message.draining,
            Puller(core.settings.window_bytes),
            queue=len(message.held),
            seen_at=now,
            moved_at=now,
            registered_at=now,
            walls=message.walls,
            artifacts=message.artifacts,
            done=old.done if old is not None else 0,
        )
        core.workers.add(worker, principal)
        core.timers.set(("alive", worker.session), now + core.settings.liveness)
        core.recovery.know(worker)
        self._welcome(worker)
        self._reconcile(worker, message.held, worker.jobs, now)
        self._reconcile(worker, message.finished, worker.leaving, now)
        core.scheduler.update(worker)
        worker.waits_since = now
        core.scheduler.watch(worker)
        if old is not None:
            self._missing(old, message, now)
        core.recovery.back(worker, now)

    def _welcome(self, worker: Worker) -> None:
        settings = self._core.settings
        times = [int(seconds * 1000) for seconds in (settings.heartbeat, settings.liveness, settings.result_keep)]
        self._core.tell(worker, Registered(worker.id, worker.session, *times))

    def _reconcile(self, worker: Worker, refs: tuple[JobRef, ...], into: dict[Any, Job], now: float) -> None:
        """Take over the jobs that the worker still rightly has; tell it to drop the others."""
        core = self._core
        for ref in refs:
            key = (ref.principal, ref.job)
            job = core.jobs.get(key)
            if job is not None and job.worker is worker:
                continue
            held = into is worker.jobs
            if job is None and key not in core.forgotten and core.unclaimed.put(worker, ref, held, now):
                if held:
                    core.tell(worker, Recall(worker.session, ref))  # one that has not begun need not be kept
                continue
            waits = job is not None and job.state in ("queued", "limbo")
            # A job that this broker has not dispatched, and that its client has sent again after a restart.
            earlier = waits and job is not None and not job.attempt and core.unclaimed.open(now)
            if job is None or not (earlier or (job.attempt == ref.attempt and job.holder == worker.id)):
                if held:
                    core.tell(worker, Stop(worker.session, ref))
                core.tell(worker, Acknowledge(worker.session, ref, stale=not core.answered(ref)))
                continue
            if waits:
                core.placement.adopt(job, worker, ref.attempt, now)
            else:
                core.placement.release(job)
                job.worker, job.sequence = worker, 0
            job.leaving_since = now
            if held:
                worker.take(job)
            else:
                into[key] = job
            if core.streams.jobs:
                (core.streams.arrived if held else core.streams.left)(job)
            if job.cancelling and held:
                core.tell(worker, Stop(worker.session, ref), job)

    def _find(self, route: Route, message: Any, now: float) -> Worker | None:
        """The sender's session; None, and an answer, where the broker does not know it."""
        worker = self._core.workers.sessions.get(message.session)
        if worker is None or worker.route[0] != route[0]:
            self._core.count("unknown_session")
            self._core.send(route, RegisterAgain())
            return None
        worker.seen_at = now
        return worker

    def _hear(self, worker: Worker, message: Report | Done | Returned) -> None:
        """Take over the queue length that the worker states, unless it can't be."""
        if worker.believes(message.queue, message.seen):
            worker.queue, worker.seen = message.queue, message.seen
        else:
            self._core.count("contradiction")
            if not worker.doubted or type(message) is Report:
                self._core.send(worker.route, RegisterAgain())
            worker.doubted = True
        self._core.scheduler.update(worker)

    def _report(self, route: Route, principal: str, message: Report, now: float) -> None:
        worker = self._find(route, message, now)
        if worker is None:
            return
        worker.draining = message.draining
        if message.draining:
            self._core.placement.acknowledge(worker)
        for ref in message.running:
            job = worker.jobs.get((ref.principal, ref.job))
            if job is not None and job.attempt == ref.attempt and job.state == "assigned":
                job.move("start", now)
                job.begun, job.asked_back = True, False
        if worker.reachable:
            self._hear(worker, message)
            self._core.send(route, Beat(worker.session, self._core.placement.take_settled(worker)))
        else:
            # It reads again, but it has missed something: a new session puts both ends right.
            self._core.send(route, RegisterAgain())

    def _goodbye(self, route: Route, principal: str, message: Goodbye, now: float) -> None:
        worker = self._find(route, message, now)
        if worker is not None:
            self.forget(worker, now)

    def look_at(self, session: int, now: float) -> None:
        """A worker may have been silent for too long, or a result may have been on its way for too long."""
        core = self._core
        worker = core.workers.sessions[session]
        until = max(worker.seen_at, core.awake_since) + core.settings.liveness
        if until <= now:
            core.count("silent_worker")
            self.forget(worker, now)
            return
        core.timers.set(("alive", session), until)
        core.placement.acknowledge(worker)
        for holder, ref in core.unclaimed.expired(now):
            if holder.session in core.workers.sessions:
                core.send(holder.route, Acknowledge(holder.session, ref, stale=True))
        stalled = bool(worker.arrivals) and worker.moved_at + STALL <= now
        fetched = {item.job for item in worker.arrivals.values()}
        for job in list(worker.leaving.values()):
            if stalled if job in fetched else job.leaving_since + STALL <= now:
                self._bodies.give_up(worker, job, now)

    def forget(self, worker: Worker, now: float) -> None:
        """A worker is gone, and with it the jobs that it had."""
        core = self._core
        core.workers.remove(worker)
        core.scheduler.remove(worker)
        core.timers.clear(("alive", worker.session))
        core.recovery.gone(worker)
        self._lose_all(worker, now)

    def _missing(self, old: Worker, message: Register, now: float) -> None:
        """A worker has come back without these jobs. One that it was asked to give back it has given back: the word on
        that is lost where two registrations crossed. One whose dispatch had not arrived when the worker left the
        session is not taken any more. The others are as good as lost with their worker."""
        seen = message.seen if message.ended == old.session else old.dispatched
        for job in _youngest_first(old):
            if job.key in old.jobs and (job.asked_back or job.sequence > seen or job.sequence == UNSENT):
                job.holder = ""
                self._core.requeue(job, now)
            else:
                self._core.lose(job, now)

    def _lose_all(self, worker: Worker, now: float) -> None:
        for job in _youngest_first(worker):
            if job.sequence == UNSENT and job.key in worker.jobs:
                self._core.requeue(job, now)
            else:
                self._core.lose(job, now)

    def unreachable(self, route: Route, message: Message, now: float) -> None:
        """A message could not be sent. A worker may come back under another route with its jobs: it keeps them
        until it does or has been silent for too long, except for the one that never arrived."""
        core = self._core
        core.streams.unreachable(route, message)
        worker = core.workers.by_connection.get(route[0])
        if worker is None or getattr(message, "session", worker.session) != worker.session:
            return  # a client may leave before its answer
        core.count("unreachable")
        worker.reachable = False
        core.scheduler.update(worker)
        if type(message) is Dispatch:
            job = worker.jobs.get((message.ref.principal, message.ref.job))
            if job is not None and job.attempt == message.ref.attempt:
                job.holder = ""
                core.requeue(job, now)


def _youngest_first(worker: Worker) -> list[Job]:
    """Each goes to the head of its queue, so the oldest ends up there."""
    return [*reversed(worker.jobs.values()), *reversed(worker.leaving.values())]
