"""How a broker takes up what an earlier one has left, and what becomes of jobs that it can't be sure of at first.

Jobs that a worker had are in limbo until that worker is back: it names them and they go on, or it does not and they
begin anew. Waiting clients' jobs are not written down, so a job that comes in meanwhile may be one of these, and stays
in limbo too. It all ends when the earlier broker's workers are back, or have had one liveness bound for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minilambda.broker.contents import acquire, files_of
from minilambda.broker.jobs import Job, cost_of, spec_bytes
from minilambda.broker.records import Recovered, SavedJob, WorkerGone, WorkerKnown
from minilambda.broker.registry import Worker
from minilambda.broker.views import failed, final_result
from minilambda.errors import NotFound

if TYPE_CHECKING:
    from minilambda.broker.core import Core

FETCHABLE = 60.0
"""A result found after a restart can be fetched for so long at least, seconds: the wall clock may have jumped."""


class Recovery:
    """The steps around a restart."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: set[str] = set()  # ids of the workers that the journal has

    # --- at the start ----------------------------------------------------------------------------

    def restore(self, found: Recovered, wall: float, now: float) -> None:
        """Take up everything. ``wall`` is the wall time at ``now``; a clock that has jumped gives no age below 0."""
        core = self._core
        core.promises.wall = wall - now
        self._known = set(found.workers)
        core.settling.awaited = set(found.workers)
        for key in found.forgotten:
            core.forgotten.add(key)
        for module in found.modules:
            core.modules.restore(module.principal, module.digest, module.size, now)
        core.functions.restore(found, now)
        ended: list[Job] = []
        for saved in found.jobs:
            job = _job(saved, wall, now)
            core.jobs[job.key] = job
            core.accepted = max(core.accepted, job.number + 1)
            if saved.ended is None:
                self._place(job, saved.moved.waiting, now)
            else:
                oldest = max(0.0, core.settings.result_ttl - FETCHABLE)
                job.restore(saved.ended, now - min(max(0.0, wall - saved.ended.ended), oldest))
                ended.append(job)
        for job in sorted(ended, key=lambda job: job.ended_at):
            core.keep(job)
        core.modules.trim()
        if core.settling.awaited or len(core.settling):
            core.settling.open = True
            core.timers.set(("settle",), now + core.settings.liveness)
            self._settle_if_complete(now)

    def _place(self, job: Job, waiting: bool, now: float) -> None:
        """An unfinished job goes to where it was."""
        core = self._core
        try:
            acquire(core.modules, None if job.called else job.key[0], job.spec, now)  # it may have been lent
        except NotFound:
            text = "The job's module, or one of its files, is missing from the broker's disk."
            job.end(final_result(job, failed("internal", text), now), {}, now)
            core.promises.ended(job)
            core.keep(job)
            return
        job.files = files_of(job.spec)
        core.input_bytes += job.cost
        core.meters.client(job.key[0], now).unfinished += 1
        if waiting or not job.attempt:
            core.enqueue(job, now)
        else:
            core.hold(job, now)

    # --- workers ---------------------------------------------------------------------------------

    def know(self, worker: Worker) -> None:
        """A worker registers: a broker that comes after this one waits for it."""
        if worker.id not in self._known:
            self._known.add(worker.id)
            number = self._core.promises.note(WorkerKnown(worker.id))
            worker.saved = 0 if self._core.promises.stuck else number

    def back(self, worker: Worker, now: float) -> None:
        """A worker has named what it has; the rest of what it may have had is not there."""
        core = self._core
        if not core.settling.open:
            return
        for job in reversed(core.settling.of(worker.id)):
            if job.retries or job.cancelling:
                core.requeue(job, now)
            else:
                text = "The job's worker came back without it, and the job allows no retries."
                core.end(job, failed("worker_lost", text), {}, now)
        core.settling.awaited.discard(worker.id)
        self._settle_if_complete(now)

    def gone(self, worker: Worker) -> None:
        """A worker was lost, or has said goodbye."""
        if worker.id in self._known:
            self._known.discard(worker.id)
            self._core.promises.note(WorkerGone(worker.id))

    # --- the end of it ---------------------------------------------------------------------------

    def _settle_if_complete(self, now: float) -> None:
        if not self._core.settling.awaited:
            self._core.timers.clear(("settle",))
            self.settle(now)

    def settle(self, now: float) -> None:
        """Workers that are not back now are lost, and no job waits for them any longer."""
        core, settling = self._core, self._core.settling
        settling.open = False
        for worker in sorted(settling.awaited):
            self._known.discard(worker)
            core.promises.note(WorkerGone(worker))
        settling.awaited.clear()
        for job in reversed(settling.all()):
            if job.attempt:
                core.lose(job, now)
            elif not job.doubtful:
                core.requeue(job, now)

    def doubt(self, job: Job, now: float) -> None:
        """No worker has come that has the job: it may have run or not, and may not run twice."""
        if job.state == "limbo":
            text = "The broker was restarted, no worker has the job any more, and the job allows no retries."
            self._core.end(job, failed("worker_lost", text), {}, now)


def _job(saved: SavedJob, wall: float, now: float) -> Job:
    accepted, moved = saved.accepted, saved.moved
    spec, stdin, values = accepted.spec, accepted.stdin, accepted.values
    accepted_at = now - max(0.0, wall - accepted.accepted)
    cost = cost_of(spec_bytes(spec), stdin, values, len(spec.files))
    job = Job(accepted.key, spec, stdin, values, cost, accepted.number, accepted_at, now)
    job.attempt, job.holder = moved.attempt, moved.holder
    job.losses, job.cancelling, job.journaled = moved.losses, moved.cancelling, True
    job.called = accepted.called
    return job
