"""The slots of a worker: one runner each, which guest it runs, what it has loaded, whom it serves. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from minilambda.messages import JobRef
from minilambda.settings import WorkerSettings
from minilambda.worker.actions import Action, Kill, Look, Spawn, StartRun
from minilambda.worker.events import RunOrder
from minilambda.worker.jobs import Job

MAX_BACKOFF = 5.0
"""Longest pause before another runner is tried after one did not come up, seconds."""

UP_PATIENCE = 30.0
"""A runner that is not ready after so long is killed, seconds."""


@dataclass(slots=True)
class Slot:
    """One slot. Its runner serves one principal in its life."""

    index: int  # from 0
    state: str = "down"  # "down", "starting", "idle", "busy" or "dying"
    principal: str | None = None  # whom its runner has served; None: nobody yet
    loaded: OrderedDict[str, None] = field(default_factory=OrderedDict)  # digests, least recently used first
    job: Job | None = None  # what it runs
    kill_at: float | None = None  # when the guest has outlived its deadline, seconds
    look_at: float | None = None  # when to measure the output next, seconds
    up_by: float | None = None  # when its starting runner must be ready, seconds; None: not set yet
    failures: int = 0  # runners in a row that died without having finished a run
    spawn_at: float | None = None  # when to try the next runner, seconds


class Slots:
    """All slots of a worker. ``emit`` takes the actions that follow from a call."""

    def __init__(self, settings: WorkerSettings, emit: Callable[[Action], None]) -> None:
        self._settings = settings
        self._emit = emit
        self.all = [Slot(index) for index in range(settings.slots)]
        self.started: dict[JobRef, float] = {}  # runs that nobody has reported, and when they started, seconds

    def __getitem__(self, index: int) -> Slot:
        return self.all[index]

    @property
    def busy(self) -> list[Slot]:
        """The slots that run a job, those whose runner is being killed too."""
        return [slot for slot in self.all if slot.job is not None]

    @property
    def idle(self) -> bool:
        """Whether a runner waits for an order."""
        return any(slot.state == "idle" for slot in self.all)

    def start(self) -> None:
        for slot in self.all:
            self._spawn(slot)

    def _spawn(self, slot: Slot) -> None:
        slot.state, slot.principal, slot.spawn_at = "starting", None, None
        slot.up_by = None
        slot.loaded.clear()
        self._emit(Spawn(slot.index))

    def ready(self, index: int) -> None:
        slot = self.all[index]
        if slot.state == "starting":
            slot.state, slot.up_by = "idle", None

    def take(self, job: Job, ahead: int) -> Slot | None:
        """The best idle slot for a job, or None.

        A runner that has the module loaded, else one that serves the principal, else one that served nobody; where
        only runners of other principals idle, one of those makes room for a new runner, unless one is coming already
        that the ``ahead`` older jobs that wait do not take.
        """
        best, rank = None, 0
        foreign = None
        coming = 0
        for slot in self.all:
            if slot.state in ("starting", "dying"):
                coming += 1
            if slot.state != "idle":
                continue
            if slot.principal not in (None, job.ref.principal):
                foreign = foreign or slot
                continue
            fit = 3 if job.spec.module in slot.loaded else 2 if slot.principal is not None else 1
            if fit > rank:
                best, rank = slot, fit
        if best is None and foreign is not None and coming <= ahead:
            self.kill(foreign)
        return best

    def run(self, slot: Slot, job: Job, component: bool, now: float) -> None:
        """Starts a job on an idle slot."""
        digest = job.spec.module
        load = digest not in slot.loaded
        evict: list[str] = []
        if load:
            while len(slot.loaded) >= self._settings.modules_per_runner:
                evict.append(slot.loaded.popitem(last=False)[0])
        slot.loaded[digest] = None
        slot.loaded.move_to_end(digest)
        if not load:
            job.tier = "warm"
        slot.state, slot.principal, slot.job = "busy", job.ref.principal, job
        slack = self._settings.kill_after * (2 if load else 1)
        slot.kill_at = now + job.limits.timeout + slack
        slot.look_at = now + self._settings.look_every
        job.started = self.started[job.ref] = now
        self._emit(StartRun(slot.index, _order(job, component, load, tuple(evict))))

    def settle(self, before: float) -> bool:
        """Whether an unreported run started before that time; those are taken as reported."""
        old = [ref for ref, started in self.started.items() if started <= before]
        for ref in old:
            del self.started[ref]
        return bool(old)

    def _free(self, slot: Slot) -> Job | None:
        job, slot.job = slot.job, None
        slot.kill_at = slot.look_at = None
        if job is not None:
            self.started.pop(job.ref, None)
        return job

    def finished(self, index: int) -> Job | None:
        """The runner is free again; the job that it ran."""
        slot = self.all[index]
        job = self._free(slot)
        if slot.state == "busy":
            slot.state, slot.failures = "idle", 0
        return job

    def unload(self, index: int, digest: str) -> None:
        """The runner does not hold that module after all."""
        self.all[index].loaded.pop(digest, None)

    def kill(self, slot: Slot) -> None:
        if slot.state in ("idle", "busy"):
            slot.state, slot.kill_at, slot.look_at = "dying", None, None
            self._emit(Kill(slot.index))

    def died(self, index: int, now: float) -> Job | None:
        """The runner is gone, a new one follows, later if it died by itself before it was of use; the job it ran."""
        slot = self.all[index]
        job = self._free(slot)
        if slot.state in ("starting", "idle"):
            slot.state, slot.up_by = "down", None
            slot.failures += 1
            slot.spawn_at = now + min(MAX_BACKOFF, 0.05 * 2 ** min(slot.failures, 10))
        elif slot.state != "down":
            self._spawn(slot)
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
                self._spawn(slot)
            elif slot.state == "starting" and (slot.up_by is None or now >= slot.up_by):
                if slot.up_by is not None:
                    self._emit(Kill(slot.index))
                slot.up_by = now + UP_PATIENCE
        return late

    def next_deadline(self) -> float | None:
        """When ``tick`` must be called at the latest, seconds."""
        times = [
            t for slot in self.all for t in (slot.kill_at, slot.look_at, slot.spawn_at, slot.up_by) if t is not None
        ]
        return min(times, default=None)


def _order(job: Job, component: bool, load: bool, evict: tuple[str, ...]) -> RunOrder:
    spec, limits = job.spec, job.limits
    return RunOrder(
        digest=spec.module,
        component=component,
        load=load,
        evict=evict,
        args=spec.args,
        env=tuple(spec.env.items()),
        invoke=spec.invoke,
        values=job.values or None,
        stdin=job.stdin,
        timeout_ms=max(1, int(limits.timeout * 1000)),
        memory_bytes=limits.memory_bytes,
        output_bytes=limits.output_bytes,
        unknown_imports=spec.unknown_imports,
    )
