"""Loaded core modules: all that can be done once per module, so that a run only instantiates and calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgpack
import wasmtime

from minilambda.errors import OutputLimit, UnknownExport
from minilambda.worker import engine, toolchain
from minilambda.worker.events import RunOrder
from minilambda.worker.exports import exports_of, type_of
from minilambda.worker.linking import PREVIEW1, core_linker, link_core
from minilambda.worker.outcome import Ending
from minilambda.worker.places import Place, Places
from minilambda.worker.values import arguments
from minilambda.worker.valuetypes import Signature, Type

NAME_LENGTH: Final = 100
"""Characters of one export's name in a message."""

_LISTED: Final = 20  # exports named in one message
_DONE: Final = Ending(exit_code=0)


Leave = Callable[[], None]
"""To be called as soon as the guest has ended, before anything takes memory; not after a command's good end."""

Run = Callable[[], Ending]
"""Instantiates and calls, all else being prepared. Raises what the guest's end raises, or an error of ours."""


def pack(value: Any, limit: int) -> bytes:
    """What a function answered, as it travels. Raises OutputLimit."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    if len(packed) > limit:
        raise OutputLimit(f"The result takes {len(packed)} bytes, the output limit is {limit}.")
    return packed


def not_exported(kind: str, wanted: str, names: Iterable[str]) -> UnknownExport:
    """The error for a ``kind`` of module that is not what is ``wanted``; ``names`` are of the functions that it has."""
    listed = list(names)
    shown = ", ".join(toolchain.one_line(name, NAME_LENGTH) for name in listed[:_LISTED])
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    there = f"it exports {shown}{more}" if listed else "it exports no function"
    return UnknownExport(f"The {kind} {wanted}; {there}.")


class CoreGuest:
    """A loaded core module."""

    def __init__(self, places: Places, path: str, leave: Leave, pooled: bool = True) -> None:
        """With ``pooled`` it goes to the pool if that suits it: see ``suits``. Raises BadArtifact."""
        self._leave = leave
        self._linked: dict[bool, wasmtime.InstancePre] = {}  # by whether unknown imports trap
        self._commands: dict[bool, Run] = {}  # what runs _start, likewise
        self._signatures: dict[str, Signature] = {}  # of functions that were invoked
        if not pooled or places.pool is None or not self._load(places.pool, path, pooled=True):
            self._load(places.general, path, pooled=False)

    def _load(self, place: Place, path: str, pooled: bool) -> bool:
        """Load the module. With ``pooled``, False where the pool does not suit it."""
        try:
            module = toolchain.load_module(place.engine, path)
        except toolchain.BadArtifact:
            if pooled:
                return False
            raise
        functions, memories = exports_of(module)
        if pooled and not self._fits(place, module, list(memories.values())):
            module.close()
            return False
        self.place, self.pooled, self._module = place, pooled, module
        self._functions = functions  # exported functions by name: whether they take and answer nothing
        self._memories = [name.encode() for name in memories]
        self.shows_memory = bool(memories)  # its memory can be seen from outside
        return True

    def _fits(self, place: Place, module: wasmtime.Module, large: list[bool]) -> bool:
        """The module's one memory can be seen, so that what the pool holds for it is known, and nothing is missing.

        ``large`` has an item for each memory that is exported: whether its addresses have 64 bits.
        """
        if large != [False]:
            return False
        try:
            pre = place.linker.instantiate_pre(module)
        except wasmtime.WasmtimeError:
            return False
        self._linked[False] = pre
        return True

    def suits(self, measure: Callable[[], int]) -> bool:
        """Whether its place has all that its instances need, to be asked where the first one could not be made.

        Closes the cell. ``measure`` is for ``Place.accepts``.
        """
        return not self.pooled or self.place.accepts(self._linked[False], measure)

    @functools.cached_property
    def needs_wasi(self) -> bool:
        """It imports something of WASI. Takes a look at all imports, which a first run can do without."""
        return any(item.module == PREVIEW1 for item in self._module.imports)

    def _pre(self, trap_unknown: bool) -> wasmtime.InstancePre:
        pre = self._linked.get(trap_unknown)
        if pre is None:
            linker = core_linker(self.place.engine) if trap_unknown else self.place.linker
            pre = self._linked[trap_unknown] = link_core(linker, self._module, trap_unknown)
        return pre

    def check(self, order: RunOrder) -> Run:
        """Link and find the function; answers what runs it.

        Raises UnknownImport, UnknownExport and BadArguments.
        """
        trap_unknown = order.unknown_imports == "trap"
        if order.invoke is None:
            return self._commands.get(trap_unknown) or self._command(trap_unknown)
        pre = self._pre(trap_unknown)
        if order.invoke not in self._functions:
            wanted = f"has no function {toolchain.one_line(order.invoke, NAME_LENGTH)!r}"
            raise not_exported("module", wanted, self._functions)
        signature = self._signature(order.invoke)
        values = arguments(signature, order.args, order.values)
        initialize = order.invoke != "_initialize" and self._functions.get("_initialize", False) and self.needs_wasi
        return functools.partial(self._invoke, pre, order, signature, values, initialize)

    def _signature(self, function: str) -> Signature:
        known = self._signatures.get(function)
        if known is None:
            known = self._signatures[function] = _core_signature(function, type_of(self._module, function))
        return known

    def _command(self, trap_unknown: bool) -> Run:
        pre = self._pre(trap_unknown)
        if "_start" not in self._functions:
            raise not_exported("module", "is not a command: it has no _start", self._functions)
        if not self._functions["_start"]:
            signature = self._signature("_start")
            raise UnknownExport(f"The module is not a command: {signature} takes or answers something.")
        where, leave = self.place.cell, self._leave

        def run() -> Ending:
            where.instantiate(pre)
            where.start(leave)
            return _DONE

        self._commands[trap_unknown] = run
        return run

    def _invoke(
        self, pre: wasmtime.InstancePre, order: RunOrder, signature: Signature, values: list[Any], initialize: bool
    ) -> Ending:
        assert order.invoke is not None
        where = self.place.cell
        where.instantiate(pre)
        if initialize:
            where.call(b"_initialize", (), (), (), lambda: None)
        kinds, results = [t.kind for _, t in signature.params], [t.kind for t in signature.results]
        answers = where.call(order.invoke.encode(), kinds, values, results, self._leave)
        value = None if not answers else answers[0] if len(answers) == 1 else answers
        return Ending(value=pack(value, order.output_bytes))

    def memory_bytes(self) -> int | None:
        """The size of the exported memories, bytes; None where none is exported, or before there is an instance."""
        where = self.place.cell
        if not self._memories or not where.instantiated:
            return None
        if len(self._memories) == 1:
            return where.memory_size(self._memories[0])
        return sum(where.memory_size(name) for name in self._memories)

    def close(self) -> None:
        """Free the module's code."""
        for pre in self._linked.values():
            pre.close()
        self._module.close()


def _core_signature(name: str, type_: wasmtime.FuncType) -> Signature:
    params = tuple(("", Type(engine.kind_of(t))) for t in type_.params)
    results = tuple(Type(engine.kind_of(t)) for t in type_.results)
    return Signature(toolchain.one_line(name, NAME_LENGTH), params, results)
