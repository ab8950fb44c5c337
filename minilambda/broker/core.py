"""The broker's heart: a state machine without socket, clock, thread or randomness.

A peer's message goes in as an event and what must be done about it comes out as actions. In between:

    client: run ──► accept ──► queue ──► place ──► dispatch ──► worker
    worker: done ──► end ──► every waiting request is answered, and the result is kept for a while
    worker lost ──► lose ──► back to the queue, or failed when that happened too often

The parts (queue, scheduler, registry, module store, results) are plain data; only this file and the two that
read the messages, ``client_side`` and ``worker_side``, change them. Time is monotonic seconds, given by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minilambda.broker.client_side import ClientSide
from minilambda.broker.events import Action, Event, ModuleSlice, Received, Rejected, Route, Send, Unreachable
from minilambda.broker.invariants import check_core
from minilambda.broker.jobs import Job, JobKey
from minilambda.broker.modules import ModuleStore
from minilambda.broker.queue import FairQueue
from minilambda.broker.registry import Registry, Worker
from minilambda.broker.results import Results
from minilambda.broker.scheduler import Scheduler
from minilambda.broker.timers import Timers
from minilambda.broker.unclaimed import Unclaimed
from minilambda.broker.views import failed, final_result, result_reply, status_reply
from minilambda.broker.worker_side import WorkerSide
from minilambda.errors import Busy, MinilambdaError, RequestError
from minilambda.messages import Acknowledge, Dispatch, Message, Recall, Refused, RegisterAgain, Request, Result
from minilambda.settings import BrokerSettings
from minilambda.wire import Malformed

Handler = Callable[[Route, str, Any, float], None]


class Core:
    """The state of a broker and the steps that change it."""

    def __init__(self, settings: BrokerSettings, name: str = "minilambda-broker", session_start: int = 1) -> None:
        self.settings = settings
        self.name = name  # what clients are told
        self.jobs: dict[JobKey, Job] = {}  # unfinished ones, and ended ones that are kept
        self.queue = FairQueue()  # jobs that wait for a worker
        self.workers = Registry(session_start)  # numbers must not come again after a restart of the broker
        self.scheduler = Scheduler(settings.prefetch)
        self.modules = ModuleStore(settings.store_bytes)
        self.results = Results(settings.result_ttl, settings.results_bytes)
        self.unclaimed = Unclaimed(settings.resend + settings.liveness)  # of a time before this broker
        self.timers = Timers()  # ("queue", job key), ("wait", job key, connection), ("alive", session)
        self.rejected: dict[str, int] = {}  # what peers got wrong, counted by kind
        self.accepted = 0  # jobs so far
        self.input_bytes = 0  # cost of all unfinished jobs
        self.recalls = 0  # recalls without an answer
        self.awake_since = 0.0  # end of the broker's own last pause, seconds
        self._actions: list[Action] = []  # of this step
        self._client_side = ClientSide(self)
        self._worker_side = WorkerSide(self)
        self._handlers: dict[type[Message], Handler] = {**self._client_side.handlers, **self._worker_side.handlers}

    # --- the shell's side ------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event in; returns what the shell must do, in order."""
        if type(event) is Received:
            message = event.message
            try:
                self._handlers[type(message)](event.route, event.principal, message, now)
            except RequestError as error:
                self.refuse(event.route, message, error)
        elif type(event) is Rejected:
            self._reject(event.route, event.error)
        elif type(event) is Unreachable:
            self._worker_side.unreachable(event.route, event.message, now)
        else:
            self.awake_since = now
        return self._settle(now)

    def tick(self, now: float) -> list[Action]:
        """Do what has become due."""
        for kind, *rest in self.timers.due(now):
            if kind == "alive":
                self._worker_side.look_at(rest[0], now)
            elif kind == "wait":
                self._client_side.wait_over(rest[0], rest[1], now)
            else:
                job = self.jobs[rest[0]]
                self.queue.remove(job)
                self.end(job, failed("queue_timeout"), {}, now)
        for job in self.results.expire(now):
            del self.jobs[job.key]
        self.modules.expire(now)
        return self._settle(now)

    def next_deadline(self) -> float | None:
        """When ``tick`` is needed next, seconds; None when only a message can change anything."""
        first = None
        for time in (self.timers.next(), self.results.next(), self.modules.next(), self._recall_at()):
            if time is not None and (first is None or time < first):
                first = time
        return first

    def check(self) -> None:
        """Raise ``InvariantError`` where the state contradicts itself. For tests: it looks at everything."""
        check_core(self)

    # --- the life of a job -----------------------------------------------------------------------

    def accept(self, job: Job, now: float) -> None:
        """A new job is in the broker's hands; its module is in the store."""
        self.jobs[job.key] = job
        self.accepted += 1
        self.input_bytes += job.cost
        self.enqueue(job, now)

    def enqueue(self, job: Job, now: float, *, first: bool = False) -> None:
        """A job that is in the state queued waits for a worker."""
        job.queued_since = now
        self.queue.push(job, first=first)
        if job.spec.queue_timeout_ms:
            self.timers.set(("queue", job.key), now + job.spec.queue_timeout_ms / 1000 - job.waited)

    def claim(self, job: Job, now: float) -> None:
        """A new job that a worker has had since before this broker began goes on there."""
        worker, ref = self.unclaimed.take(job.key) or (None, job.ref)
        if worker is None or self.workers.sessions.get(worker.session) is not worker:
            return
        job.attempt = ref.attempt
        self.adopt(job, worker, now)
        worker.jobs[job.key] = job
        self.scheduler.update(worker)
        self.send(worker.route, RegisterAgain())  # then it says whether it has finished the job

    def adopt(self, job: Job, worker: Worker, now: float) -> None:
        """A queued job is at a worker already, with its latest attempt."""
        self.queue.remove(job)
        job.move("adopt", now)
        self.dequeue(job, worker, now)

    def dequeue(self, job: Job, worker: Worker, now: float) -> None:
        """A job that has just left the queue belongs to a worker."""
        job.waited += now - job.queued_since
        job.worker, job.holder, job.ran_on = worker, worker.id, worker.name
        if job.spec.queue_timeout_ms:
            self.timers.clear(("queue", job.key))

    def place(self, now: float) -> None:
        """Give waiting jobs to workers that have room; then ask for jobs back that wait while others are free."""
        while self.queue and self.scheduler.has_room:
            job = self.queue.pop()
            self._dispatch(job, self.scheduler.choose(job.spec.module), now)
        while self.scheduler.free_slots > self.recalls:
            surplus = self.scheduler.surplus(now, self.settings.recall_after)
            if surplus is None or surplus.worker is None:
                break
            surplus.recalled = True
            self.recalls += 1
            self.send(surplus.worker.route, Recall(surplus.worker.session, surplus.ref))

    def _recall_at(self) -> float | None:
        since = self.scheduler.surplus_at() if self.scheduler.free_slots > self.recalls else None
        return None if since is None else since + self.settings.recall_after

    def _dispatch(self, job: Job, worker: Worker, now: float) -> None:
        job.move("dispatch", now)
        job.attempt += 1
        job.begun = False
        self.dequeue(job, worker, now)
        worker.jobs[job.key] = job
        worker.dispatched += 1
        spec, inline = job.spec, self.settings.inline_bytes
        size = self.modules.size(spec.module)
        part = None
        if size <= inline and spec.module not in worker.warm:
            part = ModuleSlice("wasm", spec.module, 0, size)
        stdin, values = job.stdin, job.values
        withheld: dict[str, int] = {}
        if len(stdin) > inline:
            withheld["stdin"], stdin = len(stdin), b""
        if len(values) > inline:
            withheld["values"], values = len(values), b""
        message = Dispatch(worker.session, worker.dispatched, job.ref, spec, size, withheld, b"", stdin, values)
        self.send(worker.route, message, part)
        self.scheduler.sent(worker, spec.module, now)

    def release(self, job: Job) -> None:
        """The worker of a job does not have it any more."""
        worker = job.worker
        if worker is None:
            return
        job.worker = None
        self.recall_over(job)
        if worker.leaving.pop(job.key, None) is None:
            worker.jobs.pop(job.key, None)
            if worker.session in self.workers.sessions:
                self.scheduler.update(worker)

    def recall_over(self, job: Job) -> None:
        """A recall was answered, or has lost its object."""
        if job.recalled:
            job.recalled = False
            self.recalls -= 1

    def requeue(self, job: Job, now: float) -> None:
        """The job goes back to where it came from, and its next attempt has another number."""
        self.release(job)
        if job.cancelling:
            self.end(job, failed("cancelled"), {}, now)
            return
        job.move("requeue", now)
        self.enqueue(job, now, first=True)

    def lose(self, job: Job, now: float) -> None:
        """The worker was lost with the job: it runs again, unless that happened too often."""
        job.losses += 1
        if job.cancelling:
            self.requeue(job, now)
        elif job.losses >= self.settings.max_losses:
            self.end(job, failed("poisoned", f"The job lost {job.losses} workers and will not run again."), {}, now)
        elif job.losses > job.spec.retries:
            text = f"The job lost its worker {job.losses} times and allows {job.spec.retries} retries."
            self.end(job, failed("worker_lost", text), {}, now)
        else:
            self.requeue(job, now)

    def end(self, job: Job, result: Result, bodies: dict[str, bytes], now: float) -> None:
        """The job reaches its terminal state: answer those who wait, keep the result for those who come later."""
        self.release(job)
        self.input_bytes -= job.cost
        self.modules.release(job.spec.module, now)
        if job.state == "queued":
            job.waited += now - job.queued_since
            self.timers.clear(("queue", job.key))
        job.end(final_result(job, result, now), bodies, now)
        for connection, waiter in job.waiters.items():
            if waiter.timed:
                self.timers.clear(("wait", job.key, connection))
            self.send(waiter.route, result_reply(job, waiter.request))
        job.waiters.clear()
        for gone in self.results.keep(job):
            del self.jobs[gone.key]

    def end_at(self, worker: Worker, job: Job, result: Result, bodies: dict[str, bytes], now: float) -> None:
        """The worker has finished the job and may forget it."""
        worker.done += 1
        self.end(job, result, bodies, now)
        self.send(worker.route, Acknowledge(worker.session, job.ref))

    # --- answers ---------------------------------------------------------------------------------

    def send(self, route: Route, message: Message, part: ModuleSlice | None = None) -> None:
        self._actions.append(Send(route, message, part))

    def refuse(self, route: Route, message: Message, error: MinilambdaError) -> None:
        """Answer a request with an error."""
        request = message.request if isinstance(message, Request) else 0
        retry = getattr(error, "retry_after", None)
        if retry is None and isinstance(error, Busy):
            retry = self.settings.busy_retry
        retry_ms = None if retry is None else int(retry * 1000)
        self.send(route, Refused(request, error.code, error.message, retry_ms, getattr(message, "job", None)))

    def _reject(self, route: Route, malformed: Malformed) -> None:
        error = malformed.error
        self.count(error.code)
        if route[0] not in self.workers.by_connection:
            self.send(route, Refused(malformed.request, error.code, error.message, job=malformed.job))

    def state(self, route: Route, request: int, job: Job, now: float) -> None:
        """Answer a request with the state of a job."""
        self.send(route, status_reply(job, request, now))

    def count(self, kind: str) -> None:
        """A peer got something wrong."""
        self.rejected[kind] = self.rejected.get(kind, 0) + 1

    def _settle(self, now: float) -> list[Action]:
        self.place(now)
        store = self.modules
        for digest in store.dropped:
            self.scheduler.forget_module(digest)
        store.dropped.clear()
        # What is stored comes before the messages that may need it, what is dropped is needed by none of them.
        actions: list[Action] = [*store.actions, *self._actions]
        store.actions.clear()
        self._actions = []
        return actions
