"""The broker's heart: a state machine without socket, clock, thread or randomness.

A peer's message goes in as an event and what must be done about it comes out as actions. In between:

    client: run ──► accept ──► queue ──► place ──► dispatch ──► worker
    worker: done ──► end ──► every waiting request is answered, and the result is kept for a while
    worker lost ──► lose ──► back to the queue, or failed when that happened too often

Each step of a job that must outlive the broker is written down, and what is said about the job waits for that
(``promises``). After a restart ``recovery`` takes up what was written.

The parts (queue, scheduler, registry, module store, results, promises) are plain data; only this file, ``placement``,
``recovery`` and those that read the messages, ``client_side`` and ``worker_side``, change them. Time is monotonic
seconds, given by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from minilambda.broker.access_side import AccessSide
from minilambda.broker.accounts import ALL, NOBODY, account_of
from minilambda.broker.answers import Answers
from minilambda.broker.client_side import ClientSide
from minilambda.broker.disk_side import DiskSide
from minilambda.broker.events import Action, Event, Paused, Received, Rejected, Route, Unreachable
from minilambda.broker.invariants import check_core
from minilambda.broker.jobs import HANDED_BACK, MAX_ATTEMPTS, Job, JobKey
from minilambda.broker.meters import Meters
from minilambda.broker.modules import ModuleStore
from minilambda.broker.placement import Placement
from minilambda.broker.queue import FairQueue
from minilambda.broker.quotas import Quotas, quotas_of
from minilambda.broker.records import ModuleDropped, Recovered
from minilambda.broker.recovery import Recovery
from minilambda.broker.registry import Registry, Worker
from minilambda.broker.results import Forgotten, Results
from minilambda.broker.scheduler import Scheduler
from minilambda.broker.settling import Settling
from minilambda.broker.stream_side import StreamSide
from minilambda.broker.timers import Timers
from minilambda.broker.unclaimed import Unclaimed
from minilambda.broker.views import failed, final_result, result_reply
from minilambda.broker.worker_side import WorkerSide
from minilambda.errors import RequestError
from minilambda.messages import JobRef, Message, Request, Result
from minilambda.settings import BrokerSettings

Handler = Callable[[Route, str, Any, float], None]


class Core(Answers):
    """The state of a broker and the steps that change it. ``durable``: there is a journal."""

    def __init__(
        self, settings: BrokerSettings, name: str = "minilambda-broker", session_start: int = 1, durable: bool = False
    ) -> None:
        super().__init__(settings, durable)
        self.name = name  # what clients are told
        self.jobs: dict[JobKey, Job] = {}  # unfinished ones, and ended ones that are kept
        self.queue = FairQueue(settings.quotas.running)  # jobs that wait for a worker
        self.quotas: Quotas | None = quotas_of(settings.quotas)  # None where nobody has any
        self.workers = Registry(session_start)  # numbers must not come again after a restart of the broker
        self.scheduler = Scheduler(settings.prefetch, settings.prefetch_time)
        self.modules = ModuleStore(settings.store_bytes)
        self.results = Results(settings.result_ttl, settings.results_bytes)
        self.forgotten = Forgotten()  # jobs whose results were kept for their time
        self.meters = Meters()
        self.telling = NOBODY  # of which jobs the shell gets an account when they end, see ``accounts``
        self.settling = Settling()  # jobs in limbo
        self.unclaimed = Unclaimed(settings.resend + settings.liveness)  # of a time before this broker
        self.timers = Timers()  # by kind, then what it is about: see ``tick``
        self.accepted = 0  # jobs so far
        self.input_bytes = 0  # cost of all unfinished jobs
        self.recalls = 0  # recalls without an answer
        self.awake_since = 0.0  # end of the broker's own last pause, seconds
        self.placement = Placement(self)
        self.streams = StreamSide(self)
        self._client_side = ClientSide(self)
        self.functions = self._client_side.functions
        self.recovery = Recovery(self)
        self._worker_side = WorkerSide(self)
        self._disk_side = DiskSide(self)
        self.access = AccessSide(self, self._worker_side.forget)
        self._handlers: dict[type[Message], Handler] = {**self._client_side.handlers, **self._worker_side.handlers}
        self._requests = frozenset(kind for kind in self._handlers if issubclass(kind, Request))

    # --- the shell's side ------------------------------------------------------------------------

    def recover(self, found: Recovered, wall: float, now: float) -> list[Action]:
        """Take up what an earlier broker has left, before anything else. ``wall`` is the wall time, seconds."""
        self.meters.began = now
        self.recovery.restore(found, wall, now)
        return self._settle(now)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event in; returns what the shell must do, in order."""
        if type(event) is Received:
            return self.receive(event.route, event.principal, event.message, now)
        if type(event) is Rejected:
            self._client_side.reject(event.route, event.error)
        elif type(event) is Unreachable:
            if event.behind:
                self.streams.behind(event.route, event.message)
            self._worker_side.unreachable(event.route, event.message, now)
        elif type(event) is Paused:
            self.awake_since = now
        elif not self.access.handle(event, now):
            self._disk_side.handle(event, now)
        return self._settle(now)

    def receive(self, route: Route, principal: str, message: Message, now: float) -> list[Action]:
        """The same as ``handle`` of a ``Received``."""
        kind = type(message)
        try:
            if self.access.authority is not None:
                self.access.check(principal, kind)
            if kind in self._requests and (meter := self.meters.clients.get(principal)) is not None:
                meter.seen_at = now
            self._handlers[kind](route, principal, message, now)
        except RequestError as error:
            self.refuse(route, message, error)
        return self._settle(now)

    def tick(self, now: float) -> list[Action]:
        """Do what has become due."""
        for kind, *rest in self.timers.due(now) if self.timers.soonest <= now else ():
            if kind == "alive":
                self._worker_side.look_at(rest[0], now)
            elif kind == "wait":
                self._client_side.wait_over(rest[0], rest[1], now)
            elif kind == "settle":
                self.recovery.settle(now)
            elif kind == "doubt":
                self.recovery.doubt(self.jobs[rest[0]], now)
            else:
                job = self.jobs[rest[0]]
                self.queue.remove(job)
                self.end(job, failed("queue_timeout"), {}, now)
        for job in self.results.expire(now) if self.results.soonest <= now else ():
            self.forget(job)
        if self.modules.soonest <= now:
            self.modules.expire(now)
        if self.scheduler.donors and self.queue.size:
            self.placement.unstick(now)
        return self._settle(now)

    def next_deadline(self) -> float | None:
        """When ``tick`` is needed next, or earlier, seconds; None when only a message can change anything."""
        first = min(self.timers.soonest, self.results.soonest, self.modules.soonest)
        if self.scheduler.donors:
            first = min(first, self.placement.recall_at())
        return None if first == inf else first

    def check(self) -> None:
        """Raise ``InvariantError`` where the state contradicts itself. For tests: it looks at everything."""
        check_core(self)

    # --- the life of a job -----------------------------------------------------------------------

    def accept(self, job: Job, now: float, *, resent: bool, straight: bool) -> None:
        """A new job is in the broker's hands; its module is in the store. ``resent``: a worker may have it already.

        ``straight``: where nothing else waits, it may go to a worker at once, before it is promised to anybody.
        """
        self.jobs[job.key] = job
        self.accepted += 1
        meters, who = self.meters, job.key[0]
        (meters.clients.get(who) or meters.client(who, now)).unfinished += 1
        self.input_bytes += job.cost
        if job.doubtful or (resent and self.settling.open):
            self.hold(job, now)
        elif straight and self.scheduler.has_room() and not (self.queue.size or self.unclaimed.refs or self._full(job)):
            self.queue.pass_through(job)
            self.placement.dispatch(job, self.scheduler.choose(job.spec.module), now)
            return
        else:
            self.enqueue(job, now)
        self.placement.claim(job, now)

    @property
    def unfinished(self) -> int:
        """Jobs that have not ended."""
        return len(self.jobs) - len(self.results)

    def _full(self, job: Job) -> bool:
        return self.quotas is not None and self.queue.full(job.key[0])

    def hold(self, job: Job, now: float) -> None:
        """A job waits in limbo: some worker may have it."""
        job.move("hold", now)
        self.settling.add(job)
        if job.doubtful:
            self.timers.set(("doubt", job.key), now + self.settings.liveness)

    def unhold(self, job: Job) -> None:
        """A job leaves limbo."""
        self.settling.remove(job)
        if job.doubtful:
            self.timers.clear(("doubt", job.key))

    def enqueue(self, job: Job, now: float, *, first: bool = False) -> None:
        """A job that is in the state queued waits for a worker."""
        job.queued_since = now
        self.queue.push(job, first=first)
        if job.spec.queue_timeout_ms:
            self.timers.set(("queue", job.key), now + job.spec.queue_timeout_ms / 1000 - job.waited)

    def requeue(self, job: Job, now: float) -> None:
        """The job goes back to where it came from, and its next attempt has another number."""
        self.queue.settle(job, now - job.dispatched_at if job.begun else None)
        self.placement.release(job)
        if job.cancelling or job.attempt >= MAX_ATTEMPTS:
            self.end(job, failed("cancelled") if job.cancelling else failed("poisoned", HANDED_BACK), {}, now)
            return
        if job.state == "limbo":
            self.unhold(job)
        job.move("requeue", now)
        if self.streams.jobs:
            self.streams.left(job)
        self.promises.moved(job)
        self.enqueue(job, now, first=True)

    def lose(self, job: Job, now: float) -> None:
        """The worker was lost with the job: it runs again, unless that happened too often."""
        job.losses += 1
        self.meters.losses += 1
        if job.cancelling:
            self.requeue(job, now)
        elif job.losses >= self.settings.max_losses:
            self.end(job, failed("poisoned", f"The job lost {job.losses} workers and will not run again."), {}, now)
        elif job.losses > job.retries:
            text = f"The job lost its worker {job.losses} times and allows {job.retries} retries."
            self.end(job, failed("worker_lost", text), {}, now)
        else:
            self.requeue(job, now)

    def end(self, job: Job, result: Result, bodies: dict[str, bytes], now: float) -> None:
        """The job reaches its terminal state: answer those who wait, keep the result for those who come later."""
        usage = result.usage
        used = (usage.compile_ms + usage.load_ms + usage.run_ms) / 1000
        if self.quotas is not None and usage.compile_ms:
            self.quotas.compiled(job.key[0], job.spec.module, job.holder, job.dispatched_at, usage.compile_ms / 1000)
        if used:
            self.scheduler.forecast.note(job.spec.module, usage.load_ms + usage.run_ms)
        self.queue.settle(job, min(used, now - job.dispatched_at) if used else None)
        if job.worker is not None:
            self.placement.release(job)
        self.input_bytes -= job.cost
        self.modules.release(job.spec.module, now)
        if job.files:
            self.modules.release_all(job.files, now)
        if job.state == "queued":
            job.waited += now - job.queued_since
            self.timers.clear(("queue", job.key))
        elif job.state == "limbo":
            self.unhold(job)
        final = final_result(job, result, now)
        job.end(final, bodies, now)
        self.meters.ended(job, final)
        if self.telling and (job.traceparent or self.telling == ALL):
            self._actions.append(account_of(job, final))
        if job.journaled:
            self.promises.ended(job)
        if job.waiters:
            for waiter in job.waiters:
                if waiter.timed:
                    self.timers.clear(("wait", job.key, waiter.route[0]))
                self.reply(waiter.route, result_reply(job, waiter.request), job)
            job.waiters = ()
        if self.streams.jobs:
            self.streams.ended(job)
        self.keep(job)

    def answered(self, ref: JobRef) -> bool:
        """The job has ended with this very attempt, so its result is the one that everybody is told."""
        job = self.jobs.get((ref.principal, ref.job))
        return job is not None and job.ended and job.attempt == ref.attempt

    def keep(self, job: Job) -> None:
        """Keep an ended job for those who ask later, in place of older ones where there are too many."""
        for gone in self.results.keep(job):
            self.forget(gone)

    def forget(self, job: Job) -> None:
        """A result was kept for its time; only the id is remembered."""
        if self.streams.jobs:
            self.streams.forgotten(job)
        del self.jobs[job.key]
        self.forgotten.add(job.key)
        self.promises.forgotten(job)

    def end_at(self, worker: Worker, job: Job, result: Result, bodies: dict[str, bytes], now: float) -> None:
        """The worker has finished the job and may forget it."""
        worker.done += 1
        self.end(job, result, bodies, now)
        self.placement.settle(worker, job, now)

    def _settle(self, now: float) -> list[Action]:
        if self.queue.size or self.scheduler.donors:
            self.placement.place(now)
        store, promises = self.modules, self.promises
        if not (store.dropped or store.actions or promises.records):  # as it is for nearly every message
            sends, self._actions = self._actions, []
            return sends
        for digest in store.dropped:
            self.scheduler.forget_module(digest)
            promises.note(ModuleDropped(digest))
        store.dropped.clear()
        # What is stored comes before the records and messages that need it, what is dropped is needed by none of them.
        actions: list[Action] = [*store.actions]
        write = promises.take()
        if write is not None:
            actions.append(write)
        actions += self._actions
        store.actions.clear()
        self._actions = []
        return actions
