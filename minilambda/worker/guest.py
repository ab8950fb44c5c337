"""Runs guests, one at a time, in a runner process: the sandbox's inner half. The walls around it are the runner's."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Final

from minilambda.errors import BadArguments, DeadlineExceeded, MinilambdaError, OutputLimit, Trap
from minilambda.worker import engine, primer, publicly, toolchain
from minilambda.worker.deadline import DeadlineTimer
from minilambda.worker.events import Outcome, RunOrder
from minilambda.worker.limits import DATA_SLACK, RESULT_SLACK, KernelLimits
from minilambda.worker.outcome import Ending, from_error, from_failure
from minilambda.worker.prepared import Cell, ComponentGuest, CoreGuest, Linkers, Run
from minilambda.worker.sentences import past_deadline, past_output
from minilambda.worker.toolchain import BadArtifact

__all__ = ["BadArtifact", "GuestHost"]

PROGRAM_NAME: Final = "main.wasm"  # argv[0] of every guest
TABLE_ELEMENTS: Final = 1_000_000  # per table
INSTANCES: Final = 1_000  # core instances in one component
TABLES: Final = 1_000
MEMORIES: Final = 100
SMALL_OUTPUT: Final = 4096  # bytes of stdout and stderr together that go into the outcome itself
_NEAR: Final = 1 << 20  # bytes below the memory limit that count as near it; a tenth of the limit does too


class GuestHost:
    """One per runner process, used by one thread. Makes its engine and a timer thread, and opens a file of /proc.

    ``stdout_fd`` and ``stderr_fd`` are memory files of the caller for a guest's output. ``short`` takes the short way
    through wasmtime. Raises ValueError for an unknown compiler and OSError where /proc/self is out of reach.
    """

    def __init__(
        self, stdout_fd: int, stderr_fd: int, compiler: str = "cranelift", *, short: bool = engine.SHORT
    ) -> None:
        self._files = (stdout_fd, stderr_fd)  # memory files
        paths = [f"/proc/self/fd/{fd}".encode() for fd in self._files]
        # Of their own, for their offsets: looking for the end must not move the caller's.
        self._ends = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
        self._limits = KernelLimits()
        self._linkers = Linkers(compiler)
        self._timer = DeadlineTimer(self._linkers.engine.increment_epoch)
        self._guests: dict[str, CoreGuest | ComponentGuest] = {}  # loaded modules by digest
        self._cell: Cell = (engine.Cell if short else publicly.Cell)(self._linkers.engine, paths[0], paths[1])
        self._fresh = False  # the cell is open, and no guest has been in it
        self._inside = False  # a guest runs, under its limits
        self.left_output = False
        """The last guest's output was too much for its outcome: it is in the memory files, until the next run."""

    def run(self, order: RunOrder, artifact_path: str | None) -> Outcome:
        """Run one guest to its end; ``artifact_path`` is given where ``order.load`` is set.

        Never raises for what a guest does. Raises BadArtifact where the artifact does not load, or where the
        module is neither given nor held. ``stdout`` and ``stderr`` of the answer are empty if ``left_output`` is
        set. ``peak_memory_bytes`` is the size of the exported memories at the end (memories never shrink), and
        where none is exported the growth of this process's writable memory during the run.
        """
        started = time.perf_counter()
        guest = self._guest(order, artifact_path)
        load_ms = (time.perf_counter() - started) * 1e3 if order.load else 0.0
        if not self._fresh:
            self._cell.open()
        self._fresh = False
        started, cpu = time.perf_counter(), time.process_time()
        try:
            ending, memory = self._contained(guest, guest.check(order), order)
        except MinilambdaError as error:
            ending, memory = from_failure(error), 0
        except Exception as error:  # what happens before a guest runs is no failure of the guest
            text = toolchain.one_line(f"{type(error).__name__}: {error}", 300)
            ending, memory = Ending(MinilambdaError.code, f"The runner can't run the guest: {text}"), 0
        run_ms, cpu_ms = (time.perf_counter() - started) * 1e3, (time.process_time() - cpu) * 1e3
        sizes = [os.lseek(fd, 0, os.SEEK_END) for fd in self._ends]
        ending = self._judged(ending, order, memory, sum(sizes))
        stdout, stderr = self._take_output(sizes, order.output_bytes)
        return Outcome(
            ending.code,
            ending.message,
            ending.exit_code,
            ending.value,
            stdout,
            stderr,
            ending.trap,
            ending.backtrace,
            load_ms,
            run_ms,
            cpu_ms,
            memory,
        )

    def tidy(self) -> None:
        """Free what the last guest held and make ready for the next, while nobody waits for an outcome."""
        if self.left_output:
            self._cell.close()  # opening it would empty the files
        elif not self._fresh:
            self._cell.open()
            self._fresh = True

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
        cell = self._cell
        cell.limit(order.memory_bytes, TABLE_ELEMENTS, INSTANCES, TABLES, MEMORIES)
        if guest.needs_wasi:
            cell.grant(*_granted(order), order.stdin)
        slack = RESULT_SLACK if order.component and order.invoke is not None else DATA_SLACK
        measure = order.load or not guest.shows_memory
        before = self._limits.cap(order.output_bytes, order.memory_bytes, slack, measure)
        self._timer.arm(order.timeout_ms / 1e3)
        self._inside = True
        try:
            ending = run(cell, self._leave)
        except MinilambdaError as error:
            ending = from_failure(error)
        except Exception as error:
            ending = from_error(error)
        finally:
            self._leave()
        memory = guest.memory_bytes(cell)
        if memory is None or ending.code == Trap.code:  # it exports none, or maybe not all
            memory = max(min(self._limits.data_bytes() - before, order.memory_bytes), memory or 0)
        return ending, memory

    def _leave(self) -> None:
        """The guest has ended: no deadline, and memory for us again. Idempotent."""
        if self._inside:
            self._inside = False
            self._limits.lift()
            self._timer.disarm()

    def _judged(self, ending: Ending, order: RunOrder, memory: int, written: int) -> Ending:
        """The ending in the light of the limits that were passed."""
        if written > order.output_bytes:
            return Ending(OutputLimit.code, past_output(order.output_bytes))
        if ending.interrupted and self._timer.rang:
            return Ending(DeadlineExceeded.code, past_deadline(order.timeout_ms / 1e3), backtrace=ending.backtrace)
        if ending.code == Trap.code and memory + max(_NEAR, order.memory_bytes // 10) >= order.memory_bytes:
            limit = f" Its memory was near the limit of {order.memory_bytes} bytes."
            return dataclasses.replace(ending, message=ending.message + limit)
        return ending

    def prime(self, artifact_path: str) -> None:
        """Run the primer, so that the first job finds all warm: code paths, pages, WASI's threads."""
        outcome = self.run(primer.ORDER, artifact_path)
        self._drop(primer.ORDER.digest)
        if outcome.code is not None:
            raise MinilambdaError(f"The runner can't run a guest: {outcome.message}")
        self.tidy()

    def _take_output(self, sizes: list[int], limit: int) -> list[bytes]:
        """At most ``limit`` bytes of each stream, and the files emptied, where that is little enough for an outcome."""
        self.left_output = sum(sizes) > SMALL_OUTPUT
        taken = [b"", b""]
        for stream, size in enumerate(sizes):
            if size and not self.left_output:
                taken[stream] = os.pread(self._files[stream], min(size, limit), 0)
                os.ftruncate(self._files[stream], 0)
        return taken


def _granted(order: RunOrder) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The guest's arguments and environment. Raises BadArguments for what can't be passed."""
    args = () if order.invoke is not None else order.args
    if (args or order.env) and any("\0" in text for text in (*args, *(part for pair in order.env for part in pair))):
        raise BadArguments("An argument or environment variable holds a zero character.")
    return (PROGRAM_NAME, *args), order.env
