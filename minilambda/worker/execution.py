"""The jobs of a worker on their way through module and slot, from dispatch to result. Pure.

It knows no broker: the core hands jobs in and takes results out (``on_finished``). A job goes fetching → preparing →
ready → running → done (``jobs.PHASES``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from minilambda.messages import Dispatch, JobRef
from minilambda.notation import MIB
from minilambda.settings import WorkerSettings
from minilambda.transfers import Puller
from minilambda.worker import actions as a
from minilambda.worker import events as e
from minilambda.worker import results
from minilambda.worker.jobs import Job, limits_for
from minilambda.worker.live import Live
from minilambda.worker.module import UNKNOWN, Module, Settled
from minilambda.worker.modules import Modules
from minilambda.worker.needs import Needs
from minilambda.worker.slots import Slots

WINDOW = MIB
"""Bytes asked of the broker and not arrived, at most."""


class Execution:
    """The jobs that a worker holds. ``emit`` takes actions, ``on_finished`` takes each job's one result.

    ``say`` takes what is to be said of a job while it runs: a kind of message and its fields but the session.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        emit: Callable[[a.Action], None],
        on_finished: Callable[[results.Finished, float], None],
        say: Callable[..., None],
    ) -> None:
        self._settings = settings
        self._on_finished = on_finished
        self.jobs: dict[JobRef, Job] = {}  # dispatched and unfinished
        self.ready: OrderedDict[JobRef, Job] = OrderedDict()  # wait for a slot, oldest first
        self.open = False  # whether jobs may start: not without a session, they may be elsewhere by now
        self.dropped = 0  # jobs that left without a result, as the broker wished or at the end; the core resets it
        self.moved = False  # whether other times than those of the slots may have come nearer; the core resets it
        self.puller = Puller(WINDOW)
        self.modules = Modules(settings, self.puller, emit)
        self.needs = Needs(settings, self.puller, emit, self._supplied, self._fail)
        self.slots = Slots(settings, emit)
        self.live = Live(self.slots, emit, say)

    # --- from the broker, by way of the core ---

    def have(self, found: Iterable[a.ArtifactFound]) -> None:
        """Before the first job: artifacts of the best compiler that are open already."""
        for each in found:
            module = Module(each.digest, UNKNOWN, "ready", hand=each.compiler, component=each.component)
            self.modules.by_digest[each.digest] = module

    def at_hand(self) -> tuple[str, ...]:
        """The modules of which there is an artifact, the one that was used last at the end."""
        return tuple(digest for digest, module in self.modules.by_digest.items() if module.hand)

    def accept(self, message: Dispatch, now: float) -> None:
        """A new job."""
        ref, spec = message.ref, message.spec
        limits = limits_for(spec, self._settings)
        job = Job(ref, spec, limits, message.module_size, now, message.stdin, message.values)
        self.jobs[ref] = job
        if spec.stream:
            self.live.open(job)
        if message.withheld or spec.files or spec.scratch or spec.collect:
            self.moved = True
            if not self.needs.want(job, message.withheld, now):
                return
        module = self.modules.lend(job)
        if module is None:
            self.moved = True
            self._settle(self.modules.need(job, message.wasm, now), now)
        elif not job.missing:
            self._make_ready(job, module, now)

    def _supplied(self, job: Job, now: float) -> None:
        """The job has all but its module."""
        job.move("preparing")
        if self.modules.has(job):
            self._make_ready(job, self.modules.of(job), now)

    def _fail(self, job: Job, code: str, message: str, now: float) -> None:
        self.finish(job, results.ended(job, code, message), now)

    def chunk(self, handle: str, offset: int, total: int, data: bytes, now: float) -> None:
        """A piece of a module's bytes, of a file or of a job's input."""
        if not self.needs.chunk(self.jobs, handle, offset, total, data, now):
            self._settle(self.modules.arrived(handle, offset, total, data, now), now)

    def kill(self, job: Job, why: str) -> None:
        """Ends a job that has begun; its runner goes with it. The first reason stands, unless nobody wants the job."""
        for slot in self.slots.busy:
            if slot.job is job:
                job.ending = why if why == "stale" else job.ending or why
                self.slots.kill(slot)

    def finish(self, job: Job, finished: results.Finished, now: float) -> None:
        self.forget(job, now)
        self._on_finished(finished, now)

    def drop(self, job: Job, now: float) -> None:
        """A job leaves without a word to the broker."""
        self.forget(job, now)
        self.dropped += 1

    def forget(self, job: Job, now: float) -> None:
        """A job is no longer held; whoever asks tells the broker why."""
        if job.phase == "ready":
            del self.ready[job.ref]
        job.move("done")
        del self.jobs[job.ref]
        if self.live.jobs:
            self.live.forget(job.ref)
        if job.missing or job.tree:
            self.needs.release(job)
        self.modules.release(job, now, last=not self.jobs)

    # --- module and slot ---

    def _settle(self, settled: Settled, now: float) -> None:
        for job in settled.jobs:
            if settled.code is not None and job.overflowed is not None:
                self.finish(job, results.from_outcome(job, job.overflowed), now)
            elif settled.code is not None:
                self.finish(job, results.ended(job, settled.code, settled.message), now)
            elif not job.missing:
                self._make_ready(job, self.modules.of(job), now)

    def _make_ready(self, job: Job, module: Module, now: float) -> None:
        """The job has all that it needs: it starts if a runner is free, unless others wait that it must not pass."""
        if self.open and not self.ready:
            slot = self.slots.take(job, 0)
            if slot is not None:
                job.move("running")
                self.slots.run(slot, job, module, now)
                return
        job.move("ready")
        self.ready[job.ref] = job
        if len(self.ready) > 1:
            self.assign(now)

    def assign(self, now: float) -> None:
        """Starts what can start, oldest first. A job that waits for another runner holds up nobody else."""
        if not self.open or not self.ready or not self.slots.idle:
            return
        waiting = 0
        for job in list(self.ready.values()):
            slot = self.slots.take(job, waiting)
            if slot is None:
                waiting += 1
                continue
            del self.ready[job.ref]
            job.move("running")
            self.slots.run(slot, job, self.modules.of(job), now)
            if not self.slots.idle:
                return

    def _runner_ready(self, event: e.RunnerReady, now: float) -> None:
        self.slots.ready(event.slot, now)
        self.assign(now)

    def _runner_finished(self, event: e.RunnerFinished, now: float) -> None:
        slot = self.slots.all[event.slot]
        job = slot.job
        if job is None or (job.ending and (event.bad_artifact or job.ending not in ("deadline", "output"))):
            return  # its death follows, and decides
        # A guest that ended before the kill reached it is judged by how it ended.
        self.slots.finished(slot)
        self.moved = event.bad_artifact or event.outcome.code is not None
        if event.bad_artifact:
            self.slots.unload(event.slot, job.spec.module)
            if not job.retried and not self.live.spent(job):
                self._prepare_again(job, now)
                self.assign(now)
                return
        overflowed = event.outcome.code == "stack_overflow" and not job.ending and not job.spec.stream
        if overflowed and self._run_deeper(job, event.outcome, now):
            self.assign(now)
            return
        self.forget(job, now)
        if self.ready:
            self.assign(now)  # before the result is told: a slot does not wait for that
        self._on_finished(results.bring(results.from_outcome(job, event.outcome), event.collected), now)

    def _prepare_again(self, job: Job, now: float) -> None:
        """The artifact was no good: it is made anew, for all jobs that have not begun, unless it was meanwhile."""
        job.retried = True
        if not self.modules.has(job) or self.modules.of(job).hand != job.compiler:
            job.move("preparing")
            self._settle(self.modules.need(job, b"", now), now)
            return
        for each in self.modules.spoiled(job, now):
            if self.ready.pop(each.ref, None) or each is job:
                each.move("preparing")

    def _run_deeper(self, job: Job, outcome: e.Outcome, now: float) -> bool:
        """The guest used up its stack: it runs again on better code, which takes less of it, where there is such code.

        A guest has no effect but its result, so nobody can tell that it ran twice.
        """
        settled = self.modules.improve(job, now)
        if settled is None:
            return False
        job.overflowed = outcome
        job.move("preparing")
        self._settle(settled, now)
        return True

    def _runner_died(self, event: e.RunnerDied, now: float) -> None:
        job = self.slots.died(event.slot, now)
        if job is not None and job.ending in ("stale", "drain"):
            self.drop(job, now)
        elif job is not None:
            self.finish(job, results.from_death(job, event, now), now)
        if self.ready:
            self.assign(now)  # where a job had a runner of its own, no other one has to come up first

    def _output_seen(self, event: e.OutputSeen, now: float) -> None:
        job = self.slots[event.slot].job
        if job is not None and event.size > job.limits.output_bytes:
            self.kill(job, "output")

    def _measured(self, event: e.Measured, now: float) -> None:
        self.moved = self.live.measured(event, now)

    def _output_read(self, event: e.OutputRead, now: float) -> None:
        self.live.read(event, now)

    def _poured(self, event: e.Poured, now: float) -> None:
        self.live.poured(event, now)
        self.moved = True

    def _compile_finished(self, event: e.CompileFinished, now: float) -> None:
        self._settle(self.modules.compiled(event, now), now)

    def _artifact_found(self, event: a.ArtifactFound, now: float) -> None:
        self._settle(self.modules.found(event.digest, event.compiler, event.component, now), now)

    def _artifact_absent(self, event: a.ArtifactAbsent, now: float) -> None:
        self._settle(self.modules.absent(event.digest, event.compiler, now), now)

    def _artifact_locked(self, event: a.ArtifactLocked, now: float) -> None:
        self.modules.locked(event.digest, now)

    def _files(self, event: a.FileEvent, now: float) -> None:
        self.needs.handle(event, now)

    # --- time ---

    def tick(self, now: float) -> None:
        for job in self.slots.tick(now):
            job.ending = job.ending or "deadline"
        self.modules.tick(now)
        if self.live.jobs:
            self.live.tick(now)

    def next_deadline(self) -> float:
        """When ``tick`` must be called at the latest, seconds; ``inf``: not before something happens."""
        slots, modules = self.slots.next_deadline(), self.modules.next_deadline()
        first = slots if modules is None else min(slots, modules)
        return min(first, self.live.next_deadline()) if self.live.jobs else first

    HANDLERS: ClassVar[dict[type, Callable[[Any, Any, float], None]]] = {
        a.ArtifactFound: _artifact_found,
        a.ArtifactAbsent: _artifact_absent,
        a.ArtifactLocked: _artifact_locked,
        **dict.fromkeys((a.FilesSeen, a.FileLost, a.TreeBuilt, a.TreeFailed), _files),
        e.RunnerReady: _runner_ready,
        e.RunnerFinished: _runner_finished,
        e.RunnerDied: _runner_died,
        e.OutputSeen: _output_seen,
        e.Measured: _measured,
        e.OutputRead: _output_read,
        e.Poured: _poured,
        e.CompileFinished: _compile_finished,
    }
