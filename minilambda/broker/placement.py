"""Jobs on their way to workers: dispatched, recalled, taken back, and found at workers that have had them before."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from minilambda.broker.events import ModuleSlice
from minilambda.broker.forecast import UNKNOWN
from minilambda.broker.jobs import UNSENT, Job, ref_of
from minilambda.broker.registry import Worker
from minilambda.broker.scheduler import STUCK
from minilambda.fields import MAX_FRAME
from minilambda.messages import Acknowledge, Dispatch, JobRef, Recall, RegisterAgain

if TYPE_CHECKING:
    from minilambda.broker.core import Core

SETTLE_AFTER = 1.5
"""A worker is told that a result is safe after so many heartbeats, where nothing has told it before: a dispatch does,
and the answer to a report. It needs no timer: a worker that had nothing to say for one heartbeat reports, and when it
says that a job is done, this is looked at."""

LARGE = 128 * 1024
"""A job with so much to say is given to its worker without other news, bytes of its cost."""

MAX_SETTLED = 64
"""Results that one message tells of, at most."""


class Placement:
    """The steps between the queue and the workers."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def place(self, now: float) -> None:
        """Give waiting jobs to workers that have room; then ask for jobs back that wait while others are free."""
        core, scheduler = self._core, self._core.scheduler
        while core.queue.size and scheduler.has_room():
            job = core.queue.pop()
            if job is None:
                break
            self.dispatch(job, scheduler.choose(job.spec.module), now)
        while scheduler.donors and scheduler.free_slots > core.recalls:
            surplus = scheduler.surplus(now, core.settings.recall_after)
            if surplus is None or surplus.worker is None:
                break
            self._recall(surplus, surplus.worker)

    def unstick(self, now: float) -> None:
        """Ask for those jobs back that have waited at their workers for too long while others wait here.

        Each slot that becomes free goes to one of these, so that none is ever free for one that waits elsewhere.
        """
        while (job := self._core.scheduler.stuck(now)) is not None and job.worker is not None:
            self._recall(job, job.worker)

    def recall_at(self) -> float:
        """When ``place`` or ``unstick`` may ask for a job back, seconds; ``inf`` when there is none."""
        core = self._core
        since = core.scheduler.surplus_at()
        if since is None:
            return inf
        if core.scheduler.free_slots > core.recalls:
            return since + core.settings.recall_after
        return since + STUCK if core.queue.size else inf

    def _recall(self, job: Job, worker: Worker) -> None:
        job.recalled = job.asked_back = True
        self._core.recalls += 1
        self._core.tell(worker, Recall(worker.session, job.ref), job)

    def dispatch(self, job: Job, worker: Worker, now: float) -> None:
        """A job that is in the state queued, and not in the queue any more, goes to a worker."""
        core = self._core
        job.move("dispatch", now)
        job.attempt += 1
        job.dispatched_at = now
        job.begun = job.asked_back = False
        self._take(job, worker, now)
        if job.journaled:
            core.promises.moved(job)
        worker.take(job)
        # A dispatch that waits for the disk gets its number when it goes: others may go before it.
        number, written = 0, core.promises.written
        if job.saved > written or worker.saved > written:
            worker.pending += 1
        else:
            number = worker.dispatched = worker.dispatched + 1
        job.sequence = number or UNSENT
        spec, inline = job.spec, core.settings.inline_bytes
        size = core.modules.size(spec.module)
        part = None
        if size <= inline and not (core.scheduler.is_warm(worker, spec.module) or spec.module in worker.artifacts):
            part = ModuleSlice("wasm", spec.module, 0, size)
        stdin, values = job.stdin, job.values
        withheld: dict[str, int] = {}
        if len(stdin) > inline:
            withheld["stdin"], stdin = len(stdin), b""
        if len(values) > inline:
            withheld["values"], values = len(values), b""
        # A dispatch that waits may never go, so it takes nothing along; nor does one whose header has no room to spare.
        settled = self.take_settled(worker) if number and worker.settled and job.cost < LARGE else ()
        message = Dispatch(worker.session, number, ref_of(job), spec, size, withheld, settled, b"", stdin, values)
        if number:
            core.send(worker.route, message, part)
        else:
            core.tell(worker, message, job, part)
        if core.streams.jobs:
            core.streams.arrived(job)
        core.scheduler.sent(worker, spec.module, now)

    def settle(self, worker: Worker, job: Job, now: float) -> None:
        """The worker may forget a result: it is told with the next dispatch or beat, or with a later result."""
        core = self._core
        settled = worker.settled
        if settled and worker.settled_at + SETTLE_AFTER * core.settings.heartbeat <= now:
            self.acknowledge(worker)
        prompt = worker.draining or job.saved > core.promises.written or len(settled) >= MAX_SETTLED
        if prompt or len(job.stdout) + len(job.stderr) + len(job.value) + len(job.collected) > MAX_FRAME:
            core.tell(worker, Acknowledge(worker.session, job.ref), job)
            return
        if not settled:
            worker.settled_at = now
        worker.settled = (*settled, ref_of(job))

    def take_settled(self, worker: Worker) -> tuple[JobRef, ...]:
        """The results that the worker may forget; it will be told."""
        settled, worker.settled = worker.settled, ()
        return settled

    def acknowledge(self, worker: Worker) -> None:
        """Tell the worker now: nothing has come by that could have."""
        for ref in self.take_settled(worker):
            self._core.tell(worker, Acknowledge(worker.session, ref))

    def claim(self, job: Job, now: float) -> None:
        """A new job that a worker has had since before this broker began goes on there."""
        core = self._core
        worker, ref, recalled = core.unclaimed.take(job.key) or (None, job.ref, False)
        if worker is None or core.workers.sessions.get(worker.session) is not worker:
            return
        self.adopt(job, worker, ref.attempt, now)
        worker.take(job)
        job.recalled = job.asked_back = recalled
        core.recalls += recalled
        core.streams.arrived(job)
        core.scheduler.update(worker)
        core.send(worker.route, RegisterAgain())  # then it says whether it has finished the job

    def adopt(self, job: Job, worker: Worker, attempt: int, now: float) -> None:
        """A job that waits is at a worker already, with its latest attempt."""
        core = self._core
        if job.state == "limbo":
            core.unhold(job)
        else:
            core.queue.remove(job)
        job.attempt, job.sequence = attempt, 0
        job.move("adopt", now)
        self._take(job, worker, now)
        core.promises.moved(job)

    def _take(self, job: Job, worker: Worker, now: float) -> None:
        """A job that has just left the queue belongs to a worker."""
        core = self._core
        job.waited += now - job.queued_since
        job.worker, job.holder, job.ran_on = worker, worker.id, worker.name
        # Nobody knows of a lost worker which of its jobs had begun: few should wait there that may not run again.
        job.expected = core.scheduler.forecast.of(job.spec.module) if job.retries else UNKNOWN
        if job.spec.queue_timeout_ms:
            core.timers.clear(("queue", job.key))

    def release(self, job: Job) -> None:
        """The worker of a job does not have it any more."""
        core = self._core
        worker = job.worker
        if worker is None:
            return
        job.worker = None
        if job.recalled:
            self.recall_over(job)
        if worker.leaving.pop(job.key, None) is None:
            worker.let_go(job)
            if worker.session in core.workers.sessions:
                core.scheduler.update(worker)

    def recall_over(self, job: Job) -> None:
        """A recall was answered, or has lost its object."""
        core = self._core
        if job.recalled:
            job.recalled = False
            core.recalls -= 1
