"""Runs guests, one at a time, in a runner process: the sandbox's inner half. The walls around it are the runner's."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Final

from minilambda.errors import BadArguments, DeadlineExceeded, MinilambdaError, OutputLimit, Trap
from minilambda.worker import engine, toolchain
from minilambda.worker.cell import Folder
from minilambda.worker.components import ComponentGuest
from minilambda.worker.deadline import DeadlineTimer
from minilambda.worker.events import Outcome, RunOrder
from minilambda.worker.limits import DATA_SLACK, PIPE_SLACK, RESULT_SLACK, KernelLimits
from minilambda.worker.outcome import Ending, from_error, from_failure
from minilambda.worker.places import Cell, Place, Places
from minilambda.worker.prepared import CoreGuest
from minilambda.worker.sentences import past_deadline, past_output
from minilambda.worker.streams import SMALL, Streams
from minilambda.worker.toolchain import BadArtifact

__all__ = ["BadArtifact", "GuestHost"]

PROGRAM_NAME: Final = "main.wasm"  # argv[0] of every guest
TABLE_ELEMENTS: Final = 1_000_000  # per table
INSTANCES: Final = 1_000  # core instances in one component
TABLES: Final = 1_000
MEMORIES: Final = 100
_NO_ARGS: Final = (PROGRAM_NAME,)
_NEAR: Final = 1 << 20  # bytes below the memory limit that count as near it; a tenth of the limit does too


class GuestHost:
    """One per runner process, used by one thread. Makes a timer thread, and WASI's own.

    ``stdout_fd`` and ``stderr_fd`` are memory files of the caller for a guest's output; with ``standard`` they become
    this process's standard streams, which saves opening them. ``places`` are this host's alone; primers are of the
    first one's compiler. ``limits`` were made before the walls were raised, if there are any. Guests get ``folders``,
    and may make files of ``file_bytes`` in them. With ``still`` no thread is made: there are no deadlines, and the
    cells must be bare. Raises OSError where /proc/self is out of reach.
    """

    def __init__(
        self,
        stdout_fd: int,
        stderr_fd: int,
        places: Mapping[str, Places],
        limits: KernelLimits | None = None,
        *,
        standard: bool = False,
        folders: Sequence[Folder] = (),
        file_bytes: int = 0,
        still: bool = False,
    ) -> None:
        if not still:
            engine.start_io()
        self._streams = Streams(stdout_fd, stderr_fd, standard)
        self._limits = limits or KernelLimits()
        self._places = places  # by compiler
        self._folders = folders
        self._file_bytes = file_bytes
        self._timer = DeadlineTimer(self._interrupt)
        if not still:
            self._timer.start()
        self._guests: dict[str, CoreGuest | ComponentGuest] = {}  # loaded modules by digest
        self._ready: Cell | None = None  # open, and no guest has been in it
        self._used: Cell | None = None  # where the last guest was, to be made ready again
        self._new: CoreGuest | ComponentGuest | None = None  # loaded by the last order
        self._inside = False  # a guest runs, under its limits
        self._pooled = 0  # what the last guests in the pools left there, bytes
        self.left_output = False
        """The last guest's output was too much for its outcome: it is in the memory files, until the next run."""

    def run(self, order: RunOrder, artifact_path: str | None, pipe: bytes | None = None) -> Outcome:
        """Run one guest to its end; ``artifact_path`` is given where ``order.load`` is set, ``pipe`` where
        the guest's input comes through that instead of in the order.

        Never raises for what a guest does. Raises BadArtifact where the artifact does not load, or where the
        module is neither given nor held. ``stdout`` and ``stderr`` of the answer are empty if ``left_output`` is
        set. ``peak_memory_bytes`` is the size of the exported memories at the end (memories never shrink), and
        where none is exported the growth of this process's writable memory during the run. Limits may stay in force
        afterwards: see ``lift_limits``.
        """
        guest, load_ms = self._guests.get(order.digest), 0.0
        if guest is None or order.load or order.evict:
            began = time.perf_counter()
            guest = self._load(order, artifact_path)
            load_ms = (time.perf_counter() - began) * 1e3 if order.load else 0.0
        if self._ready is not guest.place.cell:
            self._make_ready(guest.place.cell)
        self._ready, self._used = None, self._ready
        began, cpu = time.perf_counter(), time.process_time()
        ending, memory = self._ended(guest, order, pipe)
        if order.load and not guest.place.cell.instantiated and not self._suits(guest):
            guest = self._move_out(order, artifact_path)
            ending, memory = self._ended(guest, order, pipe)
        self._new = guest if order.load else None
        run_ms, cpu_ms = (time.perf_counter() - began) * 1e3, (time.process_time() - cpu) * 1e3
        limit = order.output_bytes
        out, err = self._streams.sizes()
        if ending.code is not None or out + err > limit:
            ending = self._judged(ending, order, memory, out, err)
        self.left_output = left = out + err > SMALL
        return Outcome(
            ending.code,
            ending.message,
            ending.exit_code,
            ending.value,
            self._streams.take(0, out, limit) if out and not left else b"",
            self._streams.take(1, err, limit) if err and not left else b"",
            ending.trap,
            ending.backtrace,
            load_ms,
            run_ms,
            cpu_ms,
            memory,
        )

    def tidy(self) -> None:
        """Free what the last guest held and make ready for the next, while nobody waits for an outcome."""
        if self._new is not None:
            self._limits.lift()
            self._new.needs_wasi  # noqa: B018  # found out now, for the next run
            self._new = None
        used = self._used
        if used is None:
            return
        if self.left_output:
            used.close()  # opening it would empty the files
            self._used = None
        else:
            self._make_ready(used)

    def lift_limits(self) -> None:
        """Let this process have memory and files beyond what the last order allowed. Idempotent."""
        self._limits.lift()

    def prime(self, order: RunOrder, artifact_path: str) -> None:
        """Run a primer, so that the first job of its kind finds all warm: code paths, pages, WASI's threads."""
        outcome = self.run(order._replace(compiler=next(iter(self._places))), artifact_path)
        self._drop(order.digest)
        if outcome.code is not None:
            raise MinilambdaError(f"The runner can't run a guest: {outcome.message}")
        self.lift_limits()
        self.tidy()

    # --- what a guest runs in -------------------------------------------------------------------------

    def _make_ready(self, cell: Cell) -> None:
        """Open a cell, and close any other."""
        for other in (self._ready, self._used):
            if other is not None and other is not cell:
                other.close()
        self._ready = self._used = None
        if self.left_output:
            self._streams.empty()
            self.left_output = False
        cell.open(self._streams.paths)
        self._ready = cell

    def _load(self, order: RunOrder, artifact_path: str | None) -> CoreGuest | ComponentGuest:
        self._limits.lift()
        for digest in order.evict:
            self._drop(digest)
        if order.load:
            self._drop(order.digest)
            if self._ready is not None:
                self._ready.close()  # loading may use it
                self._ready = None
            if artifact_path is None:
                raise BadArtifact(f"The order to load {order.digest} came without an artifact.")
            places = self._places[order.compiler]
            if order.component:
                self._guests[order.digest] = ComponentGuest(places, artifact_path, self._leave)
            else:
                self._guests[order.digest] = CoreGuest(places, artifact_path, self._leave)
            self._add_up()
        guest = self._guests.get(order.digest)
        if guest is None:
            raise BadArtifact(f"The runner does not hold {order.digest}.")
        return guest

    def _suits(self, guest: CoreGuest | ComponentGuest) -> bool:
        """False where its place is to blame that there is no instance; then nothing of it has run."""
        return not isinstance(guest, CoreGuest) or guest.suits(self._limits.data_bytes)

    def _move_out(self, order: RunOrder, artifact_path: str | None) -> CoreGuest:
        """Load a module that the pool does not suit where everything runs. Raises BadArtifact."""
        assert artifact_path is not None
        self._drop(order.digest)
        guest = CoreGuest(self._places[order.compiler], artifact_path, self._leave, pooled=False)
        self._guests[order.digest] = guest
        self._add_up()
        self._make_ready(guest.place.cell)
        self._ready, self._used = None, self._ready
        return guest

    def _drop(self, digest: str) -> None:
        guest = self._guests.pop(digest, None)
        if guest is not None:
            guest.close()
            self._new = None if self._new is guest else self._new

    # --- the run --------------------------------------------------------------------------------------

    def _ended(self, guest: CoreGuest | ComponentGuest, order: RunOrder, pipe: bytes | None) -> tuple[Ending, int]:
        """``_contained``, with an ending for everything."""
        try:
            return self._contained(guest, order, pipe)
        except MinilambdaError as error:
            return from_failure(error), 0
        except Exception as error:  # what happens before a guest runs is no failure of the guest
            text = toolchain.one_line(f"{type(error).__name__}: {error}", 300)
            return Ending(MinilambdaError.code, f"The runner can't run the guest: {text}"), 0

    def _contained(self, guest: CoreGuest | ComponentGuest, order: RunOrder, pipe: bytes | None) -> tuple[Ending, int]:
        """Run under all limits; answers the ending and the memory used, bytes."""
        if order.invoke is not None:
            self._limits.lift()  # as a rule they are lifted: to look at a function takes memory of ours
        run, place = guest.check(order), guest.place
        cell = place.cell
        cell.limit(order.memory_bytes, TABLE_ELEMENTS, INSTANCES, TABLES, MEMORIES)
        given = bool(order.args or order.env)
        if (order.load and not given and pipe is None) or guest.needs_wasi:  # granted in vain, it does no harm
            argv = _argv(order) if given else _NO_ARGS
            cell.grant(argv, order.env, order.stdin, self._folders, pipe)
        slack = RESULT_SLACK if order.component and order.invoke is not None else DATA_SLACK
        if pipe is not None:
            slack += PIPE_SLACK
        measure = order.load or not guest.shows_memory
        # What its place holds of the guest before it becomes its own, unless that is more than it may have: then all
        # of it is still there when the new instance is made, and its one memory has a limit besides.
        others = self._pooled - (place.kept if place.kept <= order.memory_bytes else 0)
        largest = max(order.output_bytes, self._file_bytes)
        before = self._limits.cap(largest, order.memory_bytes, slack, measure, self._pooled, others)
        self._inside = True
        self._timer.arm(order.timeout_ms / 1e3)
        try:
            ending = run()
        except MinilambdaError as error:
            self._leave()
            ending = from_failure(error)
        except Exception as error:
            self._leave()
            ending = from_error(error)
        if self._inside:  # a command ended well: no need of more memory, and the next one may have the same limits
            self._inside = False
            self._timer.disarm()
        memory = guest.memory_bytes()
        if guest.pooled and memory != place.kept:
            self._note_pool(place, memory)
        if memory is None or ending.code == Trap.code:  # it exports none, or maybe not all
            memory = max(min(self._limits.data_bytes() - before, order.memory_bytes), memory or 0)
        return ending, memory

    def _leave(self) -> None:
        """The guest has ended: no deadline, and memory for us again. Idempotent."""
        if self._inside:
            self._inside = False
            self._limits.lift()
            self._timer.disarm()

    def _note_pool(self, place: Place, memory: int | None) -> None:
        """A pool keeps its last guest's memory mapped; ``memory`` is None where nobody knows how much that is."""
        place.kept = memory or 0
        self._add_up()
        if memory is None:
            self._limits.forget()

    def _add_up(self) -> None:
        self._pooled = sum(places.pool.kept for places in self._places.values() if places.pool)

    def _interrupt(self) -> None:
        """Trap the guest that runs. In the timer's thread."""
        for places in self._places.values():
            places.interrupt()

    def _judged(self, ending: Ending, order: RunOrder, memory: int, out: int, err: int) -> Ending:
        """The ending in the light of the limits that were passed."""
        if out > order.output_bytes:
            self._streams.distrust()
        if out + err > order.output_bytes:
            return Ending(OutputLimit.code, past_output(order.output_bytes))
        if ending.interrupted and self._timer.rang:
            return Ending(DeadlineExceeded.code, past_deadline(order.timeout_ms / 1e3), backtrace=ending.backtrace)
        if ending.code == Trap.code and memory + max(_NEAR, order.memory_bytes // 10) >= order.memory_bytes:
            limit = f" Its memory was near the limit of {order.memory_bytes} bytes."
            return dataclasses.replace(ending, message=ending.message + limit)
        return ending


def _argv(order: RunOrder) -> tuple[str, ...]:
    """The guest's arguments. Raises BadArguments where they or its environment can't be passed."""
    args = () if order.invoke is not None else order.args
    if any("\0" in text for text in (*args, *(part for pair in order.env for part in pair))):
        raise BadArguments("An argument or environment variable holds a zero character.")
    return (PROGRAM_NAME, *args)
