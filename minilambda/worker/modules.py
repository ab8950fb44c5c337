"""The modules that a worker's jobs need: from a digest to an artifact in hand. Pure.

A module is looked for on disk first; if it is not there, its bytes are fetched (unless they rode along) and
compiled, once however many jobs wait. Where there are two compilers the quick one makes the first artifact; the other
one makes a better artifact later, while jobs run on the first. The artifacts themselves are in the shell's hands,
under digest and compiler.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from minilambda.settings import COMPILERS, WorkerSettings
from minilambda.transfers import Puller
from minilambda.worker.actions import (
    Action,
    DropArtifact,
    FindArtifact,
    KillCompiler,
    ReleaseArtifact,
)
from minilambda.worker.compilations import Compilations
from minilambda.worker.elsewhere import Elsewhere
from minilambda.worker.events import CORRUPT, CompileFinished
from minilambda.worker.fetching import WHOLE, Fetching
from minilambda.worker.jobs import Job
from minilambda.worker.module import NOTHING, Module, Settled
from minilambda.worker.upgrades import Upgrades

KEPT = 64
"""Artifacts that a worker keeps open when no job needs them."""


class Modules:
    """All modules of a worker. ``emit`` takes the actions that follow from a call."""

    def __init__(self, settings: WorkerSettings, puller: Puller, emit: Callable[[Action], None]) -> None:
        self._compilers = COMPILERS[settings.compiler]  # the best code first, the quickest compilation last
        self._emit = emit
        self.by_digest: OrderedDict[str, Module] = OrderedDict()  # least recently used first
        self.compilations = Compilations(settings, emit)
        self._fetching = Fetching(puller, emit)
        self._upgrades = Upgrades()
        self._elsewhere = Elsewhere()

    def has(self, job: Job) -> bool:
        """The job's artifact is in hand."""
        module = self.by_digest.get(job.spec.module)
        return module is not None and job.ref in module.users

    def of(self, job: Job) -> Module:
        """The module of a job that has its artifact."""
        return self.by_digest[job.spec.module]

    def lend(self, job: Job) -> Module | None:
        """The job's module if its best artifact is in hand: the job has it from now on. Else nothing has changed.

        The short way of ``need``, for nearly all jobs.
        """
        module = self.by_digest.get(job.spec.module)
        if module is None or module.hand != self._compilers[0]:
            return None
        self._upgrades.idle_since = None
        self.by_digest.move_to_end(module.digest)
        module.users[job.ref] = job
        return module

    def need(self, job: Job, wasm: bytes, now: float) -> Settled:
        """A job needs its module; ``wasm`` is the module's bytes where they rode along."""
        digest = job.spec.module
        self._upgrades.idle_since = None
        module = self.by_digest.get(digest)
        if module is None:
            module = self.by_digest[digest] = Module(digest, job.module_size)
            self._look(module, now)
        self.by_digest.move_to_end(digest)
        if module.hand:
            module.users[job.ref] = job
            if digest in self._upgrades:
                self._upgrades.again(module)
                self._upgrade(now)
            return Settled((job,))
        module.waiting[job.ref] = job
        if len(wasm) == module.size and module.state in ("looking", "locked"):
            module.inline = wasm
        return NOTHING

    def release(self, job: Job, now: float, last: bool) -> None:
        """A job needs its module no more; what is done for nobody is stopped. ``last``: no job is left."""
        if last:
            self._upgrades.idle_since = now
        module = self.by_digest.get(job.spec.module)
        if module is None:
            return
        if module.users.pop(job.ref, None) is None:
            module.waiting.pop(job.ref, None)
        if not module.hand and not module.waiting:
            self._abort(module, now)
        if len(self.by_digest) > KEPT:
            self._trim()

    def _abort(self, module: Module, now: float) -> None:
        if module.state == "compiling":
            module.enter("aborting", now)
            self._emit(KillCompiler(module.digest))
        elif module.state != "aborting":
            self._forget(module)

    def _forget(self, module: Module) -> None:
        self._stop(module)
        self._upgrades.remove(module)
        self._upgrades.done(module)
        self._fetching.drop(module)
        del self.by_digest[module.digest]

    def _stop(self, module: Module) -> None:
        """End what is done for an artifact, short of the compiler."""
        self._elsewhere.remove(module)
        self._fetching.stop(module)
        if module.state == "queued":
            self.compilations.remove(module)
        if module.state in ("fetching", "queued"):
            self._emit(ReleaseArtifact(module.digest, module.compiler))

    # --- looking for an artifact ---

    def _look(self, module: Module, now: float) -> None:
        wanted = module.better(self._compilers)
        module.compiler = wanted[-1]
        module.enter("looking", now)
        self._elsewhere.remove(module)
        self._emit(FindArtifact(module.digest, wanted, self._elsewhere.given_up(module, now)))

    def found(self, digest: str, compiler: str, component: bool, now: float) -> Settled:
        """An artifact is on disk, and open."""
        module = self.by_digest.get(digest)
        if module is None or module.state not in ("looking", "locked"):
            if module is None:
                self._emit(DropArtifact(digest, compiler))
            return NOTHING
        module.component = component
        return self._ready(module, compiler, now)

    def absent(self, digest: str, compiler: str, now: float) -> Settled:
        """No artifact is on disk, and the lock for making it by that compiler is ours."""
        module = self.by_digest.get(digest)
        if module is None or module.state not in ("looking", "locked") or module.compiler != compiler:
            self._emit(ReleaseArtifact(digest, compiler))
            return NOTHING
        self._elsewhere.remove(module)
        if module.whole:
            self.compilations.add(module, now)
            return NOTHING
        return self._fetched(module, self._fetching.begin(module, now), now)

    def locked(self, digest: str, now: float) -> None:
        """No artifact is on disk, and another worker makes it."""
        module = self.by_digest.get(digest)
        if module is not None and module.state == "looking":
            module.enter("locked", now)
            self._elsewhere.add(module, now)

    # --- the bytes arrive ---

    def arrived(self, digest: str, offset: int, total: int, data: bytes, now: float) -> Settled:
        """A piece of a module's bytes from the broker."""
        module = self.by_digest.get(digest)
        answer = self._fetching.arrived(module, digest, offset, total, data)
        return NOTHING if module is None else self._fetched(module, answer, now)

    def _fetched(self, module: Module, answer: str | None, now: float) -> Settled:
        if answer is None:
            return NOTHING
        if answer != WHOLE:
            return self._fail(module, "internal", answer, now)
        for job in module.waiting.values():
            job.fetched = max(job.fetched, now - max(module.since, job.received))
        self.compilations.add(module, now)
        return NOTHING

    # --- compiling ---

    def compiled(self, event: CompileFinished, now: float) -> Settled:
        """A compiler ended, well or not, or killed."""
        self.compilations.ended(event.digest, now)
        module = self.by_digest.get(event.digest)
        if module is None or module.state not in ("compiling", "aborting"):
            if event.code is None:
                self._emit(DropArtifact(event.digest, event.compiler))
            return NOTHING
        for job in module.waiting.values():
            job.tier = "compiled"
            job.compiled += min(event.compile_ms / 1000, now - max(module.since, job.received))
        if event.code is None:
            module.component = event.component
            return self._ready(module, event.compiler, now)
        self._emit(ReleaseArtifact(module.digest, event.compiler))
        if module.state == "compiling":
            return self._refused(module, event.code, self.compilations.sentence(module) or event.message, now)
        if module.waiting:  # wanted again while its compiler was being killed
            self._look(module, now)
        else:
            self._forget(module)
        return NOTHING

    def _refused(self, module: Module, code: str, message: str, now: float) -> Settled:
        """A compiler can't make an artifact of the module. Perhaps another one can, unless there was no time."""
        module.refused.add(module.compiler)
        if code == CORRUPT or module.hand or module.timed_out or not module.better(self._compilers):
            return self._fail(module, "internal" if code == CORRUPT else code, message, now)
        self._upgrades.done(module)
        self._look(module, now)
        return NOTHING

    def spoiled(self, job: Job, now: float) -> list[Job]:
        """The artifact that the job was given can't be loaded: it is thrown away, here and on disk, and made again.

        Returns the jobs that had it in hand and now wait for the next one; those that run elsewhere have loaded it.
        """
        module = self.by_digest[job.spec.module]
        module.size = job.module_size
        again = [user for user in module.users.values() if user is job or not user.begun]
        module.users.clear()
        module.waiting.update((each.ref, each) for each in again)
        self._emit(DropArtifact(module.digest, module.hand, corrupt=True))
        self._upgrades.remove(module)
        module.hand = ""
        if module.state == "ready":
            self._look(module, now)
        return again

    # --- better artifacts ---

    def improve(self, job: Job, now: float) -> Settled | None:
        """The job needs a better artifact than the one that it ran on; None when there is none to be had.

        It has that one at once, or waits for it.
        """
        module = self.by_digest.get(job.spec.module)
        if module is None or job.ref not in module.users:
            return None
        if module.hand != job.compiler:
            return Settled((job,))
        if not module.better(self._compilers):
            return None
        del module.users[job.ref]
        module.waiting[job.ref] = job
        if module.state == "ready":
            self._upgrades.remove(module)
            self._look(module, now)
        return NOTHING

    def _upgrade(self, now: float) -> None:
        module = self._upgrades.take(now)
        if module is not None:
            self._look(module, now)

    # --- time ---

    def tick(self, now: float) -> None:
        """What follows from the time alone."""
        if self.compilations.running:
            self.compilations.tick(now)
        for module in self._elsewhere.due(now):
            self._look(module, now)
        self._upgrade(now)

    def next_deadline(self) -> float | None:
        """When ``tick`` must be called at the latest, seconds."""
        parts = (self.compilations, self._upgrades, self._elsewhere)
        return min((t for t in (part.next_deadline() for part in parts) if t is not None), default=None)

    # --- the ends ---

    def _ready(self, module: Module, compiler: str, now: float) -> Settled:
        if module.hand not in ("", compiler):
            self._emit(DropArtifact(module.digest, module.hand))
        module.hand, module.inline = compiler, b""
        jobs = self._at_rest(module, now)
        module.users.update((job.ref, job) for job in jobs)
        if len(jobs) > 1:
            self._upgrades.again(module)
        self._trim()
        self._upgrade(now)
        return Settled(jobs)

    def _fail(self, module: Module, code: str, message: str, now: float) -> Settled:
        """Nothing more comes of it. What is in hand stays, and is not improved."""
        self._stop(module)
        if module.hand:
            module.refused.update(module.better(self._compilers))
            return Settled(self._at_rest(module, now), code, message)
        jobs = tuple(module.waiting.values())
        module.waiting.clear()
        module.enter("ready", now)
        self._forget(module)
        return Settled(jobs, code, message)

    def _at_rest(self, module: Module, now: float) -> tuple[Job, ...]:
        """Nothing is being made of a module with an artifact in hand; the jobs that waited for what was."""
        module.enter("ready", now)
        self._elsewhere.remove(module)
        self._upgrades.done(module)
        if not module.better(self._compilers):
            self._fetching.drop(module)
        else:
            for old in self._upgrades.add(module):
                self._fetching.drop(old)
        jobs = tuple(module.waiting.values())
        module.waiting.clear()
        return jobs

    def _trim(self) -> None:
        for module in list(self.by_digest.values()):
            if len(self.by_digest) <= KEPT:
                return
            if module.state == "ready" and not module.users:
                self._emit(DropArtifact(module.digest, module.hand))
                self._forget(module)
