"""Where guests run: engines, with all that the guests in them share.

Places have no thread and hold nothing of a guest between two runs, so they are made before a process forks, and its
children share their memory. No WASI is made before a fork: its random numbers would be all children's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import wasmtime
import wasmtime.component as wc

from minilambda.worker import cell, engine, publicly, toolchain
from minilambda.worker.linking import component_linker, core_linker

Cell = cell.Cell | publicly.Cell
"""Where one guest runs."""


class Place:
    """An engine, and what the guests in it share. There is one guest at a time."""

    def __init__(self, owner: wasmtime.Engine, short: bool) -> None:
        self.engine = owner
        self.linker = core_linker(owner)
        self.cell: Cell = (cell.Cell if short else publicly.Cell)(owner)
        self.kept = 0  # bytes of its last guest's memory that its pool holds

    @functools.cached_property
    def components(self) -> wc.Linker:
        """The linker of components, WASI 0.2 in it."""
        return component_linker(self.engine)

    def accepts(self, pre: wasmtime.InstancePre, measure: Callable[[], int]) -> bool:
        """Whether its pool has what instances of a module need. Nothing of the module runs.

        ``measure`` tells this process's writable memory, bytes: the trial may change what the pool holds.
        """
        before = measure()
        accepted = isinstance(self.cell, cell.Cell) and self.cell.accepts(pre)
        self.kept = max(0, self.kept + measure() - before)
        return accepted


class Places:
    """Where the guests of one compiler run: most core modules in a pool, all else outside."""

    def __init__(self, compiler: str, short: bool) -> None:
        pooled = toolchain.make_pooled_engine(compiler) if short else None
        self.pool = None if pooled is None else Place(pooled, short)
        """None where wasmtime can't pool."""
        self.general = Place(toolchain.make_engine(compiler), short)
        """Where everything runs."""
        self.general.components  # noqa: B018  # made now, and shared

    def interrupt(self) -> None:
        """Trap the guest that runs. Safe in another thread."""
        self.general.engine.increment_epoch()
        if self.pool is not None:
            self.pool.engine.increment_epoch()


def make_places(compilers: Iterable[str], short: bool = engine.SHORT) -> dict[str, Places]:
    """Places by compiler, since an artifact of one does not load in the engine of the other.

    ``short`` takes the short way through wasmtime. Raises ValueError for an unknown compiler.
    """
    return {compiler: Places(compiler, short) for compiler in compilers}
