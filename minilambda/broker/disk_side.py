"""What the disk tells the broker: a write is safe, there is no room, there is room again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from minilambda.broker.events import DiskFailing, DiskWorks, Durable, Event, ModuleUnsaved, Send
from minilambda.broker.jobs import Job
from minilambda.errors import StorageFailed
from minilambda.messages import Accepted, Dispatch, Reply

if TYPE_CHECKING:
    from minilambda.broker.core import Core


class DiskSide:
    """The handlers of the disk's events."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def handle(self, event: Event, now: float) -> None:
        promises = self._core.promises
        if isinstance(event, Durable):
            self._release(promises.done(event.number))
            self._core.functions.durable(event.number, now)
        elif isinstance(event, DiskWorks):
            promises.accepting, promises.stuck = True, False
        elif isinstance(event, DiskFailing):
            promises.accepting, promises.stuck = False, event.stuck
            if event.stuck:
                self._release(promises.free())
                self._withdraw_all(promises.fresh(), now)
                self._core.functions.withdraw(now)
        elif isinstance(event, ModuleUnsaved):
            self._core.modules.unsaved(event.digest)
            digest = event.digest
            self._core.functions.unsaved(digest, now)
            self._withdraw_all([job for job in promises.fresh() if digest in (job.spec.module, *job.files)], now)

    def _release(self, sends: list[Send]) -> None:
        """What has waited may go."""
        for send in sends:
            message = send.message
            if isinstance(message, Dispatch):
                self._dispatch(send, message)
            else:
                self._core.send(send.route, message, send.part)

    def _dispatch(self, send: Send, message: Dispatch) -> None:
        """Give a dispatch its number, if the worker is still to have the job."""
        core = self._core
        worker = core.workers.find(send.route, message.session)
        if worker is None:
            return
        worker.pending -= 1
        job = worker.jobs.get((message.ref.principal, message.ref.job))
        if job is not None and job.attempt == message.ref.attempt:
            worker.dispatched += 1
            job.sequence = worker.dispatched
            core.send(send.route, replace(message, sequence=worker.dispatched), send.part)
        else:
            core.scheduler.update(worker)

    def _withdraw_all(self, jobs: list[Job], now: float) -> None:
        withdrawn = self._core.promises.withdraw(job for job in jobs if not job.ended)
        for job, waiting in withdrawn.items():
            self._withdraw(job, waiting, now)

    def _withdraw(self, job: Job, waiting: list[Send], now: float) -> None:
        """Nobody was told that the job is safe, and nobody will be; where nobody else waits for it, it never was."""
        core = self._core
        job.journaled, job.saved = False, 0
        unseen = job.worker is None or any(isinstance(send.message, Dispatch) for send in waiting)
        if job.waiters or not unseen:
            kept = [send for send in waiting if not isinstance(send.message, Accepted)]
        else:
            kept = [send for send in waiting if not isinstance(send.message, Reply)]
            self._discard(job, now)
        for send in waiting:
            if send not in kept:
                core.refuse(send.route, send.message, StorageFailed())
        self._release(kept)

    def _discard(self, job: Job, now: float) -> None:
        """An unfinished job, of which nobody knows, never was."""
        core = self._core
        core.queue.settle(job, None)
        core.placement.release(job)
        if job.state == "queued":
            core.queue.remove(job)
            core.timers.clear(("queue", job.key))
        elif job.state == "limbo":
            core.unhold(job)
        core.streams.forgotten(job, StorageFailed())
        core.input_bytes -= job.cost
        core.meters.client(job.key[0], now).unfinished -= 1
        core.modules.release(job.spec.module, now)
        core.modules.release_all(job.files, now)
        del core.jobs[job.key]
