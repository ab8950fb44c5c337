"""The slots of a worker: one runner each, which guest it runs, what it has loaded, whom it serves. Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minilambda.messages import JobRef, JobSpec
from minilambda.settings import WorkerSettings
from minilambda.worker.actions import Action, Kill, Look, Spawn, StartRun
from minilambda.worker.events import HomeOrder, RunOrder
from minilambda.worker.jobs import Job
from minilambda.worker.module import Module

if TYPE_CHECKING:
    from minilambda.worker.live import LiveJob

MAX_BACKOFF = 5.0
"""Longest pause before another runner is tried after one did not come up, seconds."""

ENDS = ("deadline", "cancelled", "output", "stale", "drain", "crashed", "replaced", "idle", "not_ready")
"""Why runners end: what their job was killed for, or a crash; without a job to make room, by itself, or too early."""

UP_PATIENCE = 30.0
"""A runner that is not ready after so long is killed, seconds."""


@dataclass(slots=True)
class Slot:
    """One slot. Its runner serves one principal in its life."""

    index: int  # from 0
    state: str = "down"  # "down", "starting", "idle", "busy" or "dying"; "unused": no runner, until a job has its own
    single: bool = False  # each of its runners is made for one job, with files
    principal: str | None = None  # whom its runner has served; None: nobody yet
    loaded: OrderedDict[str, str] = field(default_factory=OrderedDict)  # digest to compiler, least recently used first
    job: Job | None = None  # what it runs
    kill_at: float | None = None  # when the guest has outlived its deadline, seconds
    look_at: float | None = None  # when to measure the output next, seconds
    told: bool = True  # whether its run has been reported as running, or there is none
    up_by: float | None = None  # when its starting runner must be ready, seconds; None: the first ``tick`` sets it
    failures: int = 0  # runners in a row that died without having finished a run
    spawn_at: float | None = None  # when to try the next runner, seconds
    spec: JobSpec | None = None  # of the job that ``order`` was made for
    order: RunOrder | None = None  # the last one, if it had no input and nothing to load: the next may be the same


class Slots:
    """All slots of a worker. ``emit`` takes the actions that follow from a call."""

    def __init__(self, settings: WorkerSettings, emit: Callable[[Action], None]) -> None:
        self._settings = settings
        self._emit = emit
        self.all = [Slot(index) for index in range(settings.runners)]
        self.idle: OrderedDict[int, Slot] = OrderedDict()  # slots whose runner waits for an order, the next one first
        self.singles: list[Slot] = []  # those of ``all`` that are for jobs with files; made when they are needed
        self.untold = False  # whether a run may be going on that nobody has reported
        self.live: dict[JobRef, LiveJob] = {}  # jobs that are followed or fed; see ``live``
        self.soonest = math.inf  # ``tick`` has nothing to do before this time, seconds
        self.spawned = 0  # runners so far
        self.ends = dict.fromkeys(ENDS, 0)  # of runners so far, by reason

    def __getitem__(self, index: int) -> Slot:
        return self.all[index]

    @property
    def busy(self) -> list[Slot]:
        """The slots that run a job, those whose runner is being killed too."""
        return [slot for slot in self.all if slot.job is not None]

    def start(self) -> None:
        for slot in self.all:
            self._spawn(slot, None)

    def _spawn(self, slot: Slot, up_by: float | None) -> None:
        slot.state, slot.principal, slot.spawn_at = "starting", None, None
        slot.up_by = up_by
        slot.loaded.clear()
        self.spawned += 1
        self._emit(Spawn(slot.index))

    def ready(self, index: int, now: float) -> None:
        slot = self.all[index]
        if slot.single and slot.kill_at is not None and slot.job is not None:
            slot.kill_at = now + slot.job.limits.timeout + self._settings.kill_after * 2
            self.soonest = min(self.soonest, slot.kill_at)
        elif slot.state == "starting":
            slot.state, slot.up_by = "idle", None
            self.idle[index] = slot

    def take(self, job: Job, ahead: int) -> Slot | None:
        """The best idle slot for a job, or None.

        A runner that has the module loaded, else one that serves the principal, else one that served nobody; where
        only runners of other principals idle, one of those makes room for a new runner, unless one is coming already
        that the ``ahead`` older jobs that wait do not take.
        """
        if (self._settings.fresh_runner or self.singles or job.tree) and len(self.busy) >= self._settings.slots:
            return None  # the idle runners are for the jobs after these
        if job.tree:
            return self._single()
        digest, principal = job.spec.module, job.ref.principal
        best = foreign = None
        for slot in self.idle.values():
            if slot.principal == principal:
                if digest in slot.loaded:
                    return slot
                if best is None or best.principal is None:
                    best = slot
            elif slot.principal is not None:
                foreign = slot
            elif best is None:
                best = slot
        if best is None and foreign is not None:
            coming = sum(slot.state in ("starting", "dying") and not slot.single for slot in self.all)
            if coming <= ahead:
                self.kill(foreign)
        return best

    def _single(self) -> Slot | None:
        """A slot for one job with files, beside those whose runners stay. There are as many again for the next jobs,
        while the runners of the last ones come to their ends."""
        slot = next((slot for slot in self.singles if slot.state == "unused"), None)
        if slot is None and len(self.singles) < 2 * self._settings.slots:
            slot = Slot(len(self.all), "unused", single=True)
            self.singles.append(slot)
            self.all.append(slot)
        if slot is not None:
            slot.loaded.clear()
        return slot

    def _furnish(self, slot: Slot, job: Job) -> None:
        """Have a process made for the job, which takes the order as soon as it is up."""
        spec, limits = job.spec, job.limits
        about = (spec.scratch, limits.output_bytes, spec.collect, self._settings.collect_bytes)
        self._emit(Spawn(slot.index, HomeOrder(job.tree, *about)))
        slot.kill_at = (slot.kill_at or 0.0) + UP_PATIENCE  # until it is up

    def run(self, slot: Slot, job: Job, module: Module, now: float) -> None:
        """Starts a job on an idle slot."""
        digest, job.compiler = module.digest, module.hand
        load = slot.loaded.get(digest) != module.hand
        evict: tuple[str, ...] = ()
        if load:
            slot.loaded.pop(digest, None)
            while len(slot.loaded) >= self._settings.modules_per_runner:
                evict += (slot.loaded.popitem(last=False)[0],)
            slot.loaded[digest] = module.hand
        else:
            slot.loaded.move_to_end(digest)
            job.tier = "warm"
        slot.state, slot.principal, slot.job = "busy", job.ref.principal, job
        if not slot.single:
            del self.idle[slot.index]
        slack = self._settings.kill_after * (2 if load else 1)
        slot.kill_at = now + job.limits.timeout + slack
        slot.look_at = now + self._settings.look_every
        if slot.single:
            self._furnish(slot, job)
        soonest = slot.look_at if slot.look_at < slot.kill_at else slot.kill_at
        self.soonest = min(self.soonest, soonest)
        job.started = now
        slot.told, self.untold = False, True
        spec = job.spec
        order, again = slot.order, not (load or job.stdin or job.values)  # it may be the same as the last one
        if not again or slot.spec is not spec or order is None or order.compiler != module.hand:
            order = _order(job, module, load, evict)
            slot.spec, slot.order = (spec, order) if again else (None, None)
        self._emit(StartRun(slot.index, order, spec.stream))
        if self.live and (live := self.live.get(job.ref)) is not None:
            live.begin(now)
            self.soonest = now

    def settle(self, before: float) -> bool:
        """Whether an unreported run started before that time; those are taken as reported."""
        found, self.untold = False, False
        for slot in self.all:
            if slot.told or slot.job is None:
                continue
            if slot.job.started <= before:
                slot.told = found = True
            else:
                self.untold = True
        return found

    def finished(self, slot: Slot) -> None:
        """The runner is free again."""
        slot.job = slot.kill_at = slot.look_at = None
        slot.told = True
        if slot.state == "busy" and (slot.single or self._settings.fresh_runner):
            slot.failures = 0
            self.kill(slot)
        elif slot.state == "busy":
            slot.state, slot.failures = "idle", 0
            self.idle[slot.index] = slot
            self.idle.move_to_end(slot.index, last=False)  # what its process needs is still in the processor's caches

    def unload(self, index: int, digest: str) -> None:
        """The runner does not hold that module after all."""
        self.all[index].loaded.pop(digest, None)

    def kill(self, slot: Slot) -> None:
        if slot.state in ("idle", "busy"):
            slot.state, slot.kill_at, slot.look_at = "dying", None, None
            self.idle.pop(slot.index, None)
            self._emit(Kill(slot.index))

    def died(self, index: int, now: float) -> Job | None:
        """The runner is gone, a new one follows, later if it died by itself before it was of use; the job it ran."""
        slot = self.all[index]
        why = _why(slot)
        self.ends[why] += 1
        job, slot.job = slot.job, None
        slot.kill_at = slot.look_at = None
        slot.told = True
        if slot.single:
            slot.state, slot.principal = "unused", None
        elif slot.state in ("starting", "idle"):
            slot.state, slot.up_by = "down", None
            self.idle.pop(index, None)
            slot.failures += 1
            slot.spawn_at = now + min(MAX_BACKOFF, 0.05 * 2 ** min(slot.failures, 10))
        elif slot.state != "down":
            self._spawn(slot, now + UP_PATIENCE)
        return job

    def tick(self, now: float) -> list[Job]:
        """Looks, spawns, and the jobs that have outlived their deadline (their runners are being killed)."""
        late: list[Job] = []
        for slot in self.all:
            if slot.kill_at is not None and now >= slot.kill_at and slot.job is not None:
                late.append(slot.job)
                self.kill(slot)
            elif slot.look_at is not None and now >= slot.look_at:
                slot.look_at = now + self._settings.look_every
                self._emit(Look(slot.index))
            elif slot.spawn_at is not None and now >= slot.spawn_at:
                self._spawn(slot, now + UP_PATIENCE)
            elif slot.state == "starting" and (slot.up_by is None or now >= slot.up_by):
                if slot.up_by is not None:
                    self._emit(Kill(slot.index))
                slot.up_by = now + UP_PATIENCE
        return late

    def next_deadline(self) -> float:
        """When ``tick`` must be called at the latest, seconds; ``inf``: not before something happens."""
        times = (t for slot in self.all for t in (slot.kill_at, slot.look_at, slot.spawn_at, slot.up_by))
        self.soonest = min((t for t in times if t is not None), default=math.inf)
        if any(slot.state == "starting" and slot.up_by is None for slot in self.all):
            self.soonest = 0.0
        return self.soonest


def _order(job: Job, module: Module, load: bool, evict: tuple[str, ...]) -> RunOrder:
    spec, limits = job.spec, job.limits
    return RunOrder(
        digest=module.digest,
        component=module.component,
        load=load,
        evict=evict,
        args=spec.args,
        env=tuple(spec.env.items()),
        invoke=spec.invoke,
        values=job.values or None,
        stdin=b"" if spec.stream else job.stdin,
        timeout_ms=int(limits.timeout * 1000) or 1,
        memory_bytes=limits.memory_bytes,
        output_bytes=limits.output_bytes,
        unknown_imports=spec.unknown_imports,
        compiler=module.hand,
    )


def _why(slot: Slot) -> str:
    """The reason for which its runner has ended, one of a few words."""
    if slot.job is not None:
        return slot.job.ending if slot.job.ending in ENDS else "crashed"
    return "replaced" if slot.state == "dying" or slot.single else "not_ready" if slot.state == "starting" else "idle"
