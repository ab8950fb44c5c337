"""The compilations under an agent: which wait, which run, and the compiler that rests until it is needed.

A process that has just been forked needs three times as long for its first small module, so one waits, warm.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque
from collections.abc import Callable

from minilambda.worker.channel import ChannelError
from minilambda.worker.compiler import PAUSE_S
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
        self._at_once = at_once  # compilations that someone waits for, at the same time, at most
        self._make = make
        self._fork = fork
        self._report = report
        self._orders: deque[tuple[CompileOrder, int]] = deque()  # those that wait, and their wasm
        self._background: deque[tuple[CompileOrder, int]] = deque()  # likewise those that nobody waits for
        self._busy: dict[int, CompilerHandle] = {}  # those with an order, until they are gone, by number
        self._resting: CompilerHandle | None = None
        self._ending: deque[tuple[CompilerHandle, float]] = deque()  # may still end by itself, until then, seconds
        self._artifacts: dict[tuple[str, str], int] = {}  # finished, until taken: digest, compiler -> sealed memfd

    def compile(self, order: CompileOrder, wasm_fd: int) -> None:
        """Compile a module, after those ordered before it. ``wasm_fd`` stays the caller's."""
        orders = self._background if order.background else self._orders
        try:
            orders.append((order, fcntl.fcntl(wasm_fd, fcntl.F_DUPFD_CLOEXEC, 3)))
        except OSError as error:
            self._refuse(order, error)
        self.proceed()
        self.dismiss()

    def proceed(self) -> None:
        """Start what can start."""
        while (next_order := self._next()) is not None:
            order, wasm_fd = next_order
            try:
                self._start(order, wasm_fd)
            except (OSError, ChannelError) as error:
                self._refuse(order, error)
            finally:
                os.close(wasm_fd)

    def _next(self) -> tuple[CompileOrder, int] | None:
        behind = sum(compiler.in_background for compiler in self._busy.values())
        if self._orders and len(self._busy) - behind < self._at_once:
            return self._orders.popleft()
        return self._background.popleft() if self._background and not behind else None

    def _start(self, order: CompileOrder, wasm_fd: int) -> None:
        compiler = None
        if not order.background:  # that one can wait for a fork
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

    def dismiss(self) -> None:
        """End the compilers that should have ended by now, and all that have a result if others wait for their place.

        A compiler has no more to do once it has told its result, and might think otherwise.
        """
        while self._ending and (self._orders or time.monotonic() >= self._ending[0][1]):
            self._ending.popleft()[0].kill()

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
        for orders in (self._orders, self._background):
            for order, wasm_fd in [waiting for waiting in orders if waiting[0].digest == digest]:
                orders.remove((order, wasm_fd))
                os.close(wasm_fd)
                message = "Compiling the module was stopped by the worker."
                self._report([CompileFinished(digest, order.compiler, "compile_limit", message, False, 0, 0.0)])

    def keep(self, compiler: CompilerHandle, events: list[ProcessEvent]) -> None:
        """Hold the artifact, if the events of a compiler tell of one."""
        for event in events:
            if isinstance(event, CompileFinished) and event.code is None:
                if (old := self._artifacts.pop((event.digest, event.compiler), None)) is not None:
                    os.close(old)
                self._artifacts[event.digest, event.compiler] = compiler.take_artifact()
                self._ending.append((compiler, time.monotonic() + 2 * PAUSE_S[1]))
                self.dismiss()

    def take_artifact(self, digest: str, compiler: str) -> int:
        """A sealed memfd with a compiled module, which the caller owns. Raises KeyError when there is none."""
        return self._artifacts.pop((digest, compiler))

    def gone(self, compiler: CompilerHandle) -> None:
        """A compiler is dead."""
        if compiler is self._resting:
            self._resting = None
        elif self._busy.pop(compiler.number, None) is not None:
            self.rest()

    def close(self) -> None:
        """Forget all, and close what is held. The processes are the caller's to kill."""
        waiting = [*self._orders, *self._background]
        for fd in [*self._artifacts.values(), *(wasm_fd for _order, wasm_fd in waiting)]:
            os.close(fd)
        self._orders.clear()
        self._background.clear()
        self._busy.clear()
        self._ending.clear()
        self._artifacts.clear()
        self._resting = None

    def _refuse(self, order: CompileOrder, error: Exception) -> None:
        message = f"The compiler could not be started: {error}"
        self._report([CompileFinished(order.digest, order.compiler, "internal", message, False, 0, 0.0)])
