"""The modules that a worker's jobs need: from a digest to an artifact in hand. Pure.

A module is looked for on disk first; if it is not there, its bytes are fetched (unless they rode along) and
compiled, once however many jobs wait. The artifact itself is in the shell's hands, under its digest.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minilambda.messages import JobRef
from minilambda.settings import MIB, WorkerSettings
from minilambda.transfers import Puller
from minilambda.worker.actions import (
    Action,
    Compile,
    DropArtifact,
    DropWasm,
    FindArtifact,
    KeepWasm,
    KillCompiler,
    ReleaseArtifact,
)
from minilambda.worker.events import CompileFinished, CompileOrder
from minilambda.worker.jobs import Job

LOCK_RETRY = 0.05
"""How often a worker looks for an artifact that another one compiles, seconds."""

SMALL = MIB
"""A module up to this size finds a compiler free, however many larger ones are being compiled; bytes."""

COMPILE_BASE, COMPILE_PER_MIB = 10.0, 10.0
"""What a compilation may take, and more for each MiB of wasm, seconds: several times what honest modules need."""

KEPT = 64
"""Artifacts that a worker keeps open when no job needs them."""


@dataclass(slots=True)
class Module:
    """One module at this worker."""

    digest: str  # "sha256:" and 64 hex digits
    size: int  # of the wasm bytes
    state: str = "looking"  # "looking", "locked", "fetching", "queued", "compiling", "aborting" or "ready"
    since: float = 0.0  # when the state began, seconds
    component: bool = False  # known once ready
    inline: bytes = b""  # wasm that rode along, until it is known whether it is needed
    waiting: dict[JobRef, Job] = field(default_factory=dict)  # jobs that wait for the artifact
    users: dict[JobRef, Job] = field(default_factory=dict)  # jobs that have it and have not ended
    hasher: Any = None  # sha256 of the bytes that arrived
    timed_out: bool = False  # its compiler was killed at the time limit


@dataclass(frozen=True, slots=True)
class Settled:
    """Jobs whose module is in hand, or can't be had (``code`` and ``message`` say why)."""

    jobs: tuple[Job, ...]
    code: str | None = None
    message: str = ""


NOTHING = Settled(())


class Modules:
    """All modules of a worker. ``emit`` takes the actions that follow from a call."""

    def __init__(self, settings: WorkerSettings, puller: Puller, emit: Callable[[Action], None]) -> None:
        self._settings = settings
        self._puller = puller
        self._emit = emit
        self.by_digest: OrderedDict[str, Module] = OrderedDict()  # least recently used first
        self.queue: deque[str] = deque()  # digests that wait for a compiler
        self.compiling: dict[str, bool] = {}  # digests with a compiler process, aborted ones too: is it a large module?

    def has(self, job: Job) -> bool:
        """The job's artifact is in hand."""
        module = self.by_digest.get(job.spec.module)
        return module is not None and job.ref in module.users

    def is_component(self, job: Job) -> bool:
        """What kind the job's artifact is; it must be in hand."""
        return self.by_digest[job.spec.module].component

    def need(self, job: Job, wasm: bytes, now: float) -> Settled:
        """A job needs its module; ``wasm`` is the module's bytes where they rode along."""
        digest = job.spec.module
        module = self.by_digest.get(digest)
        if module is None:
            module = self.by_digest[digest] = Module(digest, job.module_size, since=now)
            self._emit(FindArtifact(digest))
        self.by_digest.move_to_end(digest)
        if module.state == "ready":
            module.users[job.ref] = job
            return Settled((job,))
        module.waiting[job.ref] = job
        if len(wasm) == module.size and module.state in ("looking", "locked"):
            module.inline = wasm
        return NOTHING

    def release(self, job: Job, now: float) -> None:
        """A job needs its module no more; what is done for nobody is stopped."""
        module = self.by_digest.get(job.spec.module)
        if module is None:
            return
        module.users.pop(job.ref, None)
        module.waiting.pop(job.ref, None)
        if not module.waiting and module.state != "ready":
            self._abort(module, now)
        self._trim()

    def _abort(self, module: Module, now: float) -> None:
        if module.state == "compiling":
            self._enter(module, "aborting", now)
            self._emit(KillCompiler(module.digest))
        elif module.state != "aborting":
            if module.state == "queued":
                self.queue.remove(module.digest)
            self._puller.stop(module.digest)
            self._forget(module)

    def _forget(self, module: Module) -> None:
        if module.state in ("fetching", "queued"):
            self._emit(DropWasm(module.digest))
            self._emit(ReleaseArtifact(module.digest))
        del self.by_digest[module.digest]

    # --- what the shell found on disk ---

    def found(self, digest: str, component: bool, now: float) -> Settled:
        module = self.by_digest.get(digest)
        if module is None or module.state not in ("looking", "locked"):
            if module is None:
                self._emit(DropArtifact(digest))
            return NOTHING
        module.component = component
        return self._ready(module, now)

    def absent(self, digest: str, now: float) -> Settled:
        module = self.by_digest.get(digest)
        if module is None or module.state not in ("looking", "locked"):
            self._emit(ReleaseArtifact(digest))
            return NOTHING
        self._enter(module, "fetching", now)
        module.hasher = hashlib.sha256()
        if len(module.inline) == module.size:
            wasm, module.inline = module.inline, b""
            return self._take(module, 0, wasm, True, now)
        self._puller.start(digest, module.size)
        return NOTHING

    def locked(self, digest: str, now: float) -> None:
        module = self.by_digest.get(digest)
        if module is not None and module.state == "looking":
            self._enter(module, "locked", now)

    # --- the bytes arrive ---

    def arrived(self, digest: str, offset: int, total: int, data: bytes, now: float) -> Settled:
        """A piece of a module's bytes from the broker."""
        transfer = self._puller.arrived(digest, offset, total, data)
        module = self.by_digest.get(digest)
        if transfer is None or module is None or module.state != "fetching":
            return NOTHING
        if transfer.total < 0:
            return self._fail(module, "internal", "The broker no longer has the module's bytes.")
        transfer.pieces.clear()
        return self._take(module, offset, data, transfer.complete, now)

    def _take(self, module: Module, offset: int, data: bytes, last: bool, now: float) -> Settled:
        module.hasher.update(data)
        self._emit(KeepWasm(module.digest, offset, data))
        if not last:
            return NOTHING
        if "sha256:" + module.hasher.hexdigest() != module.digest:
            return self._fail(module, "internal", "The module's bytes do not have the hash that names them.")
        for job in module.waiting.values():
            job.fetched = max(job.fetched, now - max(module.since, job.received))
        self._enter(module, "queued", now)
        self.queue.append(module.digest)
        self._compile_next(now)
        return NOTHING

    # --- compiling ---

    def _compile_next(self, now: float) -> None:
        while (module := self._next_to_compile()) is not None:
            self.queue.remove(module.digest)
            self.compiling[module.digest] = module.size > SMALL
            self._enter(module, "compiling", now)
            module.timed_out = False
            timeout_ms = int(self._limit(module) * 1000)
            self._emit(Compile(CompileOrder(module.digest, timeout_ms, self._settings.compile_memory_bytes)))

    def _next_to_compile(self) -> Module | None:
        """The oldest that may have a compiler now. Large modules can't take the last one: they may be bombs."""
        free = self._settings.compilers - len(self.compiling)
        room = free > 0 and sum(self.compiling.values()) < max(1, self._settings.compilers - 1)
        for digest in self.queue if free > 0 else ():
            module = self.by_digest[digest]
            if room or module.size <= SMALL:
                return module
        return None

    def _limit(self, module: Module) -> float:
        """How long compiling the module may take, seconds: a small one that takes minutes is a bomb."""
        return min(self._settings.compile_timeout, COMPILE_BASE + COMPILE_PER_MIB * module.size / MIB)

    def compiled(self, event: CompileFinished, now: float) -> Settled:
        """A compiler ended, well or not, or killed."""
        self.compiling.pop(event.digest, None)
        self._emit(DropWasm(event.digest))
        self._compile_next(now)
        module = self.by_digest.get(event.digest)
        if module is None or module.state not in ("compiling", "aborting"):
            if event.code is None:
                self._emit(DropArtifact(event.digest))
            return NOTHING
        for job in module.waiting.values():
            job.tier = "compiled"
            job.compiled += min(event.compile_ms / 1000, now - max(module.since, job.received))
        if event.code is None:
            module.component = event.component
            return self._ready(module, now)
        self._emit(ReleaseArtifact(module.digest))
        if module.state == "compiling":
            return self._fail(module, event.code, self._limit_sentence(module) or event.message)
        if module.waiting:  # wanted again while its compiler was being killed
            self._enter(module, "looking", now)
            self._emit(FindArtifact(module.digest))
        else:
            del self.by_digest[module.digest]
        return NOTHING

    def _limit_sentence(self, module: Module) -> str:
        limit = self._limit(module)
        return f"Compiling the module took longer than {limit:.3g} s." if module.timed_out else ""

    def spoiled(self, job: Job, now: float) -> list[Job]:
        """The artifact that the job was given can't be loaded: it is thrown away, here and on disk, and made again.

        Returns the jobs that had it in hand and now wait for the next one; those that run elsewhere have loaded it.
        """
        module = self.by_digest[job.spec.module]
        again = [user for user in module.users.values() if user is job or not user.begun]
        module.users.clear()
        module.waiting.update((each.ref, each) for each in again)
        self._enter(module, "looking", now)
        self._emit(DropArtifact(module.digest, corrupt=True))
        self._emit(FindArtifact(module.digest))
        return again

    # --- time ---

    def tick(self, now: float) -> None:
        for digest in list(self.compiling):
            module = self.by_digest.get(digest)
            late = module is not None and now >= module.since + self._limit(module)
            if module is not None and late and module.state == "compiling" and not module.timed_out:
                module.timed_out = True
                self._emit(KillCompiler(digest))
        for module in list(self.by_digest.values()):
            if module.state == "locked" and now >= module.since + LOCK_RETRY:
                self._enter(module, "looking", now)
                self._emit(FindArtifact(module.digest))

    def next_deadline(self) -> float | None:
        times = [
            module.since + (LOCK_RETRY if module.state == "locked" else self._limit(module))
            for module in self.by_digest.values()
            if module.state == "locked" or (module.state == "compiling" and not module.timed_out)
        ]
        return min(times, default=None)

    # --- states ---

    def _enter(self, module: Module, state: str, now: float) -> None:
        module.state = state
        module.since = now

    def _ready(self, module: Module, now: float) -> Settled:
        self._enter(module, "ready", now)
        module.inline = b""
        jobs = tuple(module.waiting.values())
        module.users.update(module.waiting)
        module.waiting.clear()
        self._trim()
        return Settled(jobs)

    def _fail(self, module: Module, code: str, message: str) -> Settled:
        jobs = tuple(module.waiting.values())
        module.waiting.clear()
        self._puller.stop(module.digest)
        self._forget(module)
        return Settled(jobs, code, message)

    def _trim(self) -> None:
        if len(self.by_digest) <= KEPT:
            return
        for module in list(self.by_digest.values()):
            if len(self.by_digest) <= KEPT:
                return
            if module.state == "ready" and not module.users:
                del self.by_digest[module.digest]
                self._emit(DropArtifact(module.digest))
