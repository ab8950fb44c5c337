"""The compilations under an agent: which wait, which run, and the compiler that rests until it is needed.

A process that has just been forked needs three times as long for its first small module, so one waits, warm.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Callable

from minilambda.worker.channel import ChannelError
from minilambda.worker.events import CompileFinished, CompileOrder, ProcessEvent
from minilambda.worker.handles import CompilerHandle


class Compilers:
    """Orders and compilers. ``make`` makes a handle (and raises OSError), ``fork`` has it forked, ``report`` tells
    events that no process tells."""

    def __init__(
        self,
        at_once: int,
        make: Callable[[], CompilerHandle],
        fork: Callable[[CompilerHandle], None],
        report: Callable[[list[ProcessEvent]], None],
    ) -> None:
        self._at_once = at_once  # compilations at the same time, at most
        self._make = make
        self._fork = fork
        self._report = report
        self._orders: deque[tuple[CompileOrder, int]] = deque()  # those that wait, and their wasm
        self._busy: dict[int, CompilerHandle] = {}  # those with an order, until they are gone, by number
        self._resting: CompilerHandle | None = None
        self._artifacts: dict[str, int] = {}  # finished, until they are taken: digest -> sealed memfd

    def compile(self, order: CompileOrder, wasm_fd: int) -> None:
        """Compile a module, after those ordered before it. ``wasm_fd`` stays the caller's."""
        try:
            self._orders.append((order, fcntl.fcntl(wasm_fd, fcntl.F_DUPFD_CLOEXEC, 3)))
        except OSError as error:
            self._refuse(order, error)
        self.proceed()

    def proceed(self) -> None:
        """Start what can start."""
        while self._orders and len(self._busy) < self._at_once:
            order, wasm_fd = self._orders.popleft()
            try:
                self._start(order, wasm_fd)
            except (OSError, ChannelError) as error:
                self._refuse(order, error)
            finally:
                os.close(wasm_fd)

    def _start(self, order: CompileOrder, wasm_fd: int) -> None:
        compiler, self._resting = self._resting, None
        if compiler is not None:
            try:
                compiler.give(order, wasm_fd)
            except ChannelError:  # it died at rest
                compiler.kill()
            except OSError:
                self._resting = compiler
                raise
            else:
                self._busy[compiler.number] = compiler
                return
        compiler = self._make()
        try:
            compiler.give(order, wasm_fd)
        except (OSError, ChannelError):
            compiler.close()
            raise
        self._busy[compiler.number] = compiler
        self._fork(compiler)

    def rest(self) -> None:
        """Have a compiler ready for the next order. Without one, that order takes longer."""
        if self._resting is None and not self._orders:
            try:
                self._resting = self._make()
            except OSError:
                return
            self._fork(self._resting)

    def stop(self, digest: str) -> None:
        """End the compilation of a module, or its wait."""
        for compiler in self._busy.values():
            if compiler.order is not None and compiler.order.digest == digest:
                compiler.stop()
        for order, wasm_fd in [waiting for waiting in self._orders if waiting[0].digest == digest]:
            self._orders.remove((order, wasm_fd))
            os.close(wasm_fd)
            message = "Compiling the module was stopped by the worker."
            self._report([CompileFinished(digest, "compile_limit", message, False, 0, 0.0)])

    def keep(self, compiler: CompilerHandle, events: list[ProcessEvent]) -> None:
        """Hold the artifact, if the events of a compiler tell of one."""
        for event in events:
            if isinstance(event, CompileFinished) and event.code is None:
                if (old := self._artifacts.pop(event.digest, None)) is not None:
                    os.close(old)
                self._artifacts[event.digest] = compiler.take_artifact()

    def take_artifact(self, digest: str) -> int:
        """A sealed memfd with a compiled module, which the caller owns. Raises KeyError when there is none."""
        return self._artifacts.pop(digest)

    def gone(self, compiler: CompilerHandle) -> None:
        """A compiler is dead."""
        if compiler is self._resting:
            self._resting = None
        elif self._busy.pop(compiler.number, None) is not None:
            self.rest()

    def close(self) -> None:
        """Forget all, and close what is held. The processes are the caller's to kill."""
        for fd in [*self._artifacts.values(), *(wasm_fd for _order, wasm_fd in self._orders)]:
            os.close(fd)
        self._orders.clear()
        self._busy.clear()
        self._artifacts.clear()
        self._resting = None

    def _refuse(self, order: CompileOrder, error: Exception) -> None:
        message = f"The compiler could not be started: {error}"
        self._report([CompileFinished(order.digest, "internal", message, False, 0, 0.0)])
