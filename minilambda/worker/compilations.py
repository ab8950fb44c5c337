"""Who gets a compiler next, and for how long. Pure.

What jobs wait for goes first, in the order in which it came. Beside that one compilation may run that nobody waits
for; it has a compiler of its own, so it holds up nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from minilambda.notation import MIB
from minilambda.settings import WorkerSettings
from minilambda.worker.actions import Action, Compile, KillCompiler
from minilambda.worker.events import CompileOrder
from minilambda.worker.module import Module

SMALL = MIB
"""A module up to this size finds a compiler free, however many larger ones are being compiled; bytes."""

COMPILE_BASE, COMPILE_PER_MIB = 10.0, 10.0
"""What a compilation may take, and more for each MiB of wasm, seconds: several times what honest modules need."""

BACKGROUND_PATIENCE = 4.0
"""A compilation that nobody waits for may take so many times as long: it gets the processor when others don't."""


class Compilations:
    """Modules that wait for a compiler or have one. ``emit`` takes the actions that follow from a call."""

    def __init__(self, settings: WorkerSettings, emit: Callable[[Action], None]) -> None:
        self._settings = settings
        self._emit = emit
        self.queue: deque[Module] = deque()  # wait for a compiler, oldest first
        self.running: dict[str, Module] = {}  # by digest: those with a compiler process, aborted ones too

    def add(self, module: Module, now: float) -> None:
        """Have a module compiled: as soon as it can be, or in the background if nobody waits for it any more."""
        module.background = not module.waiting and not any(other.background for other in self.running.values())
        if module.background:
            self._start(module, now)
            return
        module.enter("queued", now)
        self.queue.append(module)
        self.proceed(now)

    def remove(self, module: Module) -> None:
        """Take back one that waits."""
        self.queue.remove(module)

    def ended(self, digest: str, now: float) -> None:
        """The compiler of a module is gone."""
        self.running.pop(digest, None)
        self.proceed(now)

    def proceed(self, now: float) -> None:
        """Start what can start."""
        while (module := self._next()) is not None:
            self.queue.remove(module)
            self._start(module, now)

    def _next(self) -> Module | None:
        """The oldest that may have a compiler now. Large modules can't take the last one: they may be bombs."""
        awaited = [module for module in self.running.values() if not module.background]
        if len(awaited) >= self._settings.compilers:
            return None
        room = sum(module.size > SMALL for module in awaited) < max(1, self._settings.compilers - 1)
        return next((module for module in self.queue if room or module.size <= SMALL), None)

    def _start(self, module: Module, now: float) -> None:
        self.running[module.digest] = module
        module.enter("compiling", now)
        module.timed_out = False
        timeout_ms, memory_bytes = int(self._limit(module) * 1000), self._settings.compile_memory_bytes
        self._emit(Compile(CompileOrder(module.digest, timeout_ms, memory_bytes, module.compiler, module.background)))

    def _limit(self, module: Module) -> float:
        """How long compiling the module may take, seconds: a small one that takes minutes is a bomb."""
        limit = min(self._settings.compile_timeout, COMPILE_BASE + COMPILE_PER_MIB * module.size / MIB)
        return limit * (BACKGROUND_PATIENCE if module.background else 1.0)

    def sentence(self, module: Module) -> str:
        """Why a module's compiler was killed, for people; empty when it was not for the time it took."""
        return f"Compiling the module took longer than {self._limit(module):.3g} s." if module.timed_out else ""

    def tick(self, now: float) -> None:
        """Kill the compilers that have had their time."""
        for module in self.running.values():
            if module.state == "compiling" and not module.timed_out and now >= module.since + self._limit(module):
                module.timed_out = True
                self._emit(KillCompiler(module.digest))

    def next_deadline(self) -> float | None:
        """When ``tick`` must be called at the latest, seconds."""
        times = [
            module.since + self._limit(module)
            for module in self.running.values()
            if module.state == "compiling" and not module.timed_out
        ]
        return min(times, default=None)
