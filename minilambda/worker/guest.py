"""Runs guests, one at a time, in a runner process: the sandbox's inner half. The walls around it are the runner's."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any, Final

import wasmtime

from minilambda.errors import BadArguments, DeadlineExceeded, MinilambdaError, OutputLimit, Trap
from minilambda.worker import engine, toolchain
from minilambda.worker.deadline import DeadlineTimer
from minilambda.worker.events import Outcome, RunOrder
from minilambda.worker.limits import DATA_SLACK, RESULT_SLACK, KernelLimits
from minilambda.worker.outcome import Ending, from_error, from_failure
from minilambda.worker.prepared import ComponentGuest, CoreGuest, Linkers, Run, Stage
from minilambda.worker.toolchain import BadArtifact

__all__ = ["BadArtifact", "GuestHost"]

PROGRAM_NAME: Final = "main.wasm"  # argv[0] of every guest
TABLE_ELEMENTS: Final = 1_000_000  # per table
INSTANCES: Final = 1_000  # core instances in one component
TABLES: Final = 1_000
MEMORIES: Final = 100
_NEAR: Final = 1 << 20  # bytes below the memory limit that count as near it; a tenth of the limit does too

_PRIMER: Final = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\01\\00\\00\\00")
  (func (export "_start")
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""
_PRIMER_ORDER: Final = RunOrder(
    digest="primer",
    component=False,
    load=True,
    evict=(),
    args=("primer",),
    env=(("PRIMER", "1"),),
    invoke=None,
    values=None,
    stdin=b"x",
    timeout_ms=10_000,
    memory_bytes=1 << 20,
    output_bytes=1 << 20,
    unknown_imports="error",
)


class GuestHost:
    """One per runner process, used by one thread. Makes its engine and a timer thread, and opens a file of /proc.

    ``stdout_fd`` and ``stderr_fd`` are memory files of the caller that hold the last guest's output after ``run``.
    Raises ValueError for an unknown compiler and OSError where /proc/self is out of reach.
    """

    def __init__(self, stdout_fd: int, stderr_fd: int, compiler: str = "cranelift") -> None:
        self._stdout = stdout_fd  # memory file
        self._stderr = stderr_fd  # memory file
        # Of their own, for their offsets: looking for the end must not move the caller's.
        self._ends = [os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC) for fd in (stdout_fd, stderr_fd)]
        self._stdout_path = f"/proc/self/fd/{stdout_fd}"
        self._stderr_path = f"/proc/self/fd/{stderr_fd}"
        self._limits = KernelLimits()
        self._linkers = Linkers(compiler)
        self._compiler = compiler
        self._timer = DeadlineTimer(self._linkers.engine.increment_epoch)
        self._guests: dict[str, CoreGuest | ComponentGuest] = {}  # loaded modules by digest

    def run(self, order: RunOrder, artifact_path: str | None) -> Outcome:
        """Run one guest to its end; ``artifact_path`` is given where ``order.load`` is set.

        Never raises for what a guest does. Raises BadArtifact where the artifact does not load, or where the
        module is neither given nor held. ``stdout`` and ``stderr`` of the answer are empty: the caller reads
        the memory files. ``peak_memory_bytes`` is the size of the exported memories at the end (memories never
        shrink), and where none is exported the growth of this process's writable memory during the run.
        """
        started = time.perf_counter()
        guest = self._guest(order, artifact_path)
        load_ms = (time.perf_counter() - started) * 1e3 if order.load else 0.0
        started, cpu = time.perf_counter(), time.process_time()
        try:
            ending, memory = self._contained(guest, guest.check(order), order)
        except MinilambdaError as error:
            self._empty_output()
            ending, memory = from_failure(error), 0
        except Exception as error:  # what happens before a guest runs is no failure of the guest
            self._empty_output()
            text = toolchain.one_line(f"{type(error).__name__}: {error}", 300)
            ending, memory = Ending(MinilambdaError.code, f"The runner can't run the guest: {text}"), 0
        run_ms, cpu_ms = (time.perf_counter() - started) * 1e3, (time.process_time() - cpu) * 1e3
        return Outcome(
            code=ending.code,
            message=ending.message,
            exit_code=ending.exit_code,
            value=ending.value,
            stdout=b"",
            stderr=b"",
            trap=ending.trap,
            backtrace=ending.backtrace,
            load_ms=load_ms,
            run_ms=run_ms,
            cpu_ms=cpu_ms,
            peak_memory_bytes=memory,
        )

    def _guest(self, order: RunOrder, artifact_path: str | None) -> CoreGuest | ComponentGuest:
        for digest in order.evict:
            self._drop(digest)
        if order.load:
            self._drop(order.digest)
            kind = ComponentGuest if order.component else CoreGuest
            if artifact_path is None:
                raise BadArtifact(f"The order to load {order.digest} came without an artifact.")
            self._guests[order.digest] = kind(self._linkers, artifact_path)
        guest = self._guests.get(order.digest)
        if guest is None:
            raise BadArtifact(f"The runner does not hold {order.digest}.")
        return guest

    def _drop(self, digest: str) -> None:
        guest = self._guests.pop(digest, None)
        if guest is not None:
            guest.close()

    def _contained(self, guest: CoreGuest | ComponentGuest, run: Run, order: RunOrder) -> tuple[Ending, int]:
        """Run under all limits; answers the ending and the memory used, bytes."""
        instances: list[Any] = []  # the guest's instance, once there is one
        store = wasmtime.Store(self._linkers.engine)
        stdin_fd = None
        try:
            store.set_limits(order.memory_bytes, TABLE_ELEMENTS, INSTANCES, TABLES, MEMORIES)
            store.set_epoch_deadline(1)
            if guest.needs_wasi:
                stdin_fd = self._grant(store, order)
            else:
                self._empty_output()
            slack = RESULT_SLACK if order.component and order.invoke is not None else DATA_SLACK
            measure = order.load or not guest.shows_memory
            before = self._limits.cap(order.output_bytes, order.memory_bytes, slack, measure)
            self._timer.arm(order.timeout_ms / 1e3)
            try:
                ending = run(Stage(store, instances.append, self._leave))
            except MinilambdaError as error:
                ending = from_failure(error)
            except Exception as error:
                ending = from_error(error)
            finally:
                self._leave()
            rang = self._timer.rang
            memory = self._memory(guest, instances, store, before, order.memory_bytes, ending)
        finally:
            store.close()
            if stdin_fd is not None:
                os.close(stdin_fd)
        return self._judged(ending, order, rang, memory), memory

    def _leave(self) -> None:
        """The guest has ended: no deadline, and memory for us again."""
        self._limits.lift()
        self._timer.disarm()

    def _grant(self, store: wasmtime.Store, order: RunOrder) -> int | None:
        """Give the guest its arguments, environment and streams, and nothing else; answers a descriptor to close."""
        args = () if order.invoke is not None else order.args
        if any("\0" in text for text in (*args, *(part for pair in order.env for part in pair))):
            raise BadArguments("An argument or environment variable holds a zero character.")
        return engine.grant(store, (PROGRAM_NAME, *args), order.env, order.stdin, self._stdout_path, self._stderr_path)

    def _memory(
        self,
        guest: CoreGuest | ComponentGuest,
        instances: list[Any],
        store: wasmtime.Store,
        before: int,
        limit: int,
        ending: Ending,
    ) -> int:
        """The guest's memory, bytes: what it exports; where that is nothing or maybe not all, the process's growth."""
        exported = guest.memory_bytes(instances[0], store) if instances else None
        if exported is not None and ending.code != Trap.code:
            return exported
        return max(min(self._limits.data_bytes() - before, limit), exported or 0)

    def _judged(self, ending: Ending, order: RunOrder, rang: bool, memory: int) -> Ending:
        """The ending in the light of the limits that were passed."""
        written = sum(os.lseek(fd, 0, os.SEEK_END) for fd in self._ends)
        if written > order.output_bytes:
            return Ending(OutputLimit.code, f"The guest wrote over the output limit of {order.output_bytes} bytes.")
        if ending.interrupted and rang:
            message = f"The guest was stopped at its deadline of {order.timeout_ms} ms."
            return Ending(DeadlineExceeded.code, message, backtrace=ending.backtrace)
        if ending.code == Trap.code and memory + max(_NEAR, order.memory_bytes // 10) >= order.memory_bytes:
            limit = f" Its memory was near the limit of {order.memory_bytes} bytes."
            return dataclasses.replace(ending, message=ending.message + limit)
        return ending

    def prime(self) -> None:
        """Run a small guest of our own, so that the first job finds all warm: code paths, pages, WASI's threads."""
        _, artifact = toolchain.compile_wasm(bytes(wasmtime.wat2wasm(_PRIMER)), self._compiler, parallel=False)
        fd = os.memfd_create("primer", os.MFD_CLOEXEC)
        try:
            os.write(fd, artifact)
            outcome = self.run(_PRIMER_ORDER, f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
            self._drop(_PRIMER_ORDER.digest)
        if outcome.code is not None:
            raise MinilambdaError(f"The runner can't run a guest: {outcome.message}")
        self._empty_output()

    def _empty_output(self) -> None:
        """What WASI does when it opens the files, for a run that does not come so far."""
        os.ftruncate(self._stdout, 0)
        os.ftruncate(self._stderr, 0)
