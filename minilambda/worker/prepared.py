"""Loaded modules: all that can be done once per module, so that a run only instantiates and calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgpack
import wasmtime
import wasmtime.component as wc

from minilambda.errors import MinilambdaError, OutputLimit, UnknownExport
from minilambda.worker import engine, toolchain
from minilambda.worker.component_values import Lifter, Lowered, signature_of
from minilambda.worker.events import RunOrder
from minilambda.worker.linking import (
    PREVIEW1,
    component_fault,
    component_linker,
    core_linker,
    link_core,
    unknown_in_component,
)
from minilambda.worker.outcome import Ending
from minilambda.worker.places import Place, Places
from minilambda.worker.values import arguments
from minilambda.worker.valuetypes import Signature, Type

_LISTED: Final = 20  # exports named in one message
_NAME_LENGTH: Final = 100  # characters of one export's name in a message
_RUN: Final = "wasi:cli/run@0.2."
_DONE: Final = Ending(exit_code=0)


Leave = Callable[[], None]
"""To be called as soon as the guest has ended, before anything takes memory; not after a command's good end."""

Run = Callable[[], Ending]
"""Instantiates and calls, all else being prepared. Raises what the guest's end raises, or an error of ours."""


def _pack(value: Any, limit: int) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    if len(packed) > limit:
        raise OutputLimit(f"The result takes {len(packed)} bytes, the output limit is {limit}.")
    return packed


def _not_exported(kind: str, wanted: str, names: Iterable[str]) -> UnknownExport:
    listed = list(names)
    shown = ", ".join(toolchain.one_line(name, _NAME_LENGTH) for name in listed[:_LISTED])
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    there = f"it exports {shown}{more}" if listed else "it exports no function"
    return UnknownExport(f"The {kind} {wanted}; {there}.")


class CoreGuest:
    """A loaded core module."""

    def __init__(self, places: Places, path: str, leave: Leave, measure: Callable[[], int]) -> None:
        """``measure`` is for ``Place.accepts``. Raises BadArtifact."""
        self._leave = leave
        self._measure = measure
        self._linked: dict[bool, wasmtime.InstancePre] = {}  # by whether unknown imports trap
        self._commands: dict[bool, Run] = {}  # what runs _start, likewise
        if places.pool is None or not self._load(places.pool, path, pooled=True):
            self._load(places.general, path, pooled=False)

    def _load(self, place: Place, path: str, pooled: bool) -> bool:
        """Load the module. With ``pooled``, False where the pool does not suit it."""
        try:
            module = toolchain.load_module(place.engine, path)
        except toolchain.BadArtifact:
            if pooled:
                return False
            raise
        functions: dict[str, wasmtime.FuncType] = {}  # exported functions by name
        memories: dict[str, wasmtime.MemoryType] = {}  # exported memories by name
        for export in module.exports:
            if isinstance(type_ := export.type, wasmtime.FuncType):
                functions[export.name] = type_
            elif isinstance(type_, wasmtime.MemoryType):
                memories[export.name] = type_
        if pooled and not self._fits(place, module, list(memories.values())):
            module.close()
            return False
        self.place, self.pooled, self._module = place, pooled, module
        self._functions = functions
        self._memories = [name.encode() for name in memories]
        self.needs_wasi = any(item.module == PREVIEW1 for item in module.imports)
        self.shows_memory = bool(memories)  # its memory can be seen from outside
        return True

    def _fits(self, place: Place, module: wasmtime.Module, memories: list[wasmtime.MemoryType]) -> bool:
        """The module's one memory can be seen, so that what the pool holds for it is known, and nothing is missing."""
        if len(memories) != 1 or memories[0].is_64:
            return False
        try:
            pre = place.linker.instantiate_pre(module)
        except wasmtime.WasmtimeError:
            return False
        if not place.accepts(pre, self._measure):
            pre.close()
            return False
        self._linked[False] = pre
        return True

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
        type_ = self._functions.get(order.invoke)
        if type_ is None:
            wanted = f"has no function {toolchain.one_line(order.invoke, _NAME_LENGTH)!r}"
            raise _not_exported("module", wanted, self._functions)
        signature = _core_signature(order.invoke, type_)
        values = arguments(signature, order.args, order.values)
        return functools.partial(self._invoke, pre, order, signature, values)

    def _command(self, trap_unknown: bool) -> Run:
        pre = self._pre(trap_unknown)
        type_ = self._functions.get("_start")
        if type_ is None:
            raise _not_exported("module", "is not a command: it has no _start", self._functions)
        if type_.params or type_.results:
            raise UnknownExport(
                f"The module is not a command: {_core_signature('_start', type_)} takes or answers something."
            )
        where, leave = self.place.cell, self._leave

        def run() -> Ending:
            where.instantiate(pre)
            where.start(leave)
            return _DONE

        self._commands[trap_unknown] = run
        return run

    def _invoke(self, pre: wasmtime.InstancePre, order: RunOrder, signature: Signature, values: list[Any]) -> Ending:
        assert order.invoke is not None
        where = self.place.cell
        where.instantiate(pre)
        if self.needs_wasi and order.invoke != "_initialize" and self._has_initialize():
            where.call(b"_initialize", (), (), (), lambda: None)
        kinds, results = [t.kind for _, t in signature.params], [t.kind for t in signature.results]
        answers = where.call(order.invoke.encode(), kinds, values, results, self._leave)
        value = None if not answers else answers[0] if len(answers) == 1 else answers
        return Ending(value=_pack(value, order.output_bytes))

    def _has_initialize(self) -> bool:
        type_ = self._functions.get("_initialize")
        return type_ is not None and not type_.params and not type_.results

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
    return Signature(toolchain.one_line(name, _NAME_LENGTH), params, results)


class ComponentGuest:
    """A loaded component."""

    pooled = False
    shows_memory = False
    needs_wasi = True  # which interfaces it imports says little of what it needs in a store

    def __init__(self, places: Places, path: str, leave: Leave) -> None:
        """Raises BadArtifact."""
        self.place = places.general
        self._leave = leave
        self._engine = self.place.engine
        self._component = toolchain.load_component(self._engine, path)
        self._type = self._component.type
        self._unknown = unknown_in_component(self._type, self._engine)
        self._trapping: wc.Linker | None = None  # made for this component once unknown imports may trap
        self._found: dict[str, wc.ExportIndex] = {}  # exported functions by name as invoked; "" is the command
        self._checked = False  # the command's type is as WASI has it

    def _linker(self, trap_unknown: bool) -> wc.Linker:
        if not self._unknown:
            return self.place.components
        if not trap_unknown:
            raise component_fault(self._unknown, "")
        if self._trapping is None:
            linker = component_linker(self._engine)
            try:
                linker.define_unknown_imports_as_traps(self._component)
            except wasmtime.WasmtimeError as error:
                raise component_fault(self._unknown, str(error)) from None
            self._trapping = linker
        return self._trapping

    def check(self, order: RunOrder) -> Run:
        """Link and find the function; answers what runs it. Raises UnknownImport, UnknownExport."""
        linker = self._linker(order.unknown_imports == "trap")
        index = self._found.get(order.invoke or "")
        if index is None:
            index = self._found[order.invoke or ""] = self._find(order.invoke)
        return functools.partial(self._run, linker, index, order)

    def _run(self, linker: wc.Linker, index: wc.ExportIndex, order: RunOrder) -> Ending:
        store, leave = self.place.cell.store, self._leave
        try:
            instance = linker.instantiate(store, self._component)
        except wasmtime.WasmtimeError as error:
            if "was not found in the linker" in str(error):
                raise component_fault(self._unknown, str(error)) from None
            raise
        func = instance.get_func(store, index)
        if func is None:
            raise UnknownExport(f"The component's export {order.invoke or 'wasi:cli/run'} is not a function.")
        if order.invoke is None:
            return self._command(func, store)
        return self._invoke(func, store, leave, order)

    def _command(self, func: wc.Func, store: wasmtime.Store) -> Ending:
        if not self._checked:
            signature = str(signature_of("run", func.type(store)))
            if signature != "run() -> result":
                raise UnknownExport(
                    f"The component is not a command: its wasi:cli/run is {signature}, not run() -> result."
                )
            self._checked = True
        answer = func(store)
        return Ending(exit_code=int(getattr(answer, "tag", "ok") == "err"))

    def _invoke(self, func: wc.Func, store: wasmtime.Store, leave: Leave, order: RunOrder) -> Ending:
        if not engine.RAW_VALUES:
            raise MinilambdaError("This wasmtime can't exchange values with components.")
        assert order.invoke is not None
        signature = signature_of(toolchain.one_line(order.invoke, _NAME_LENGTH), func.type(store))
        lowered = Lowered(signature, arguments(signature, order.args, order.values))
        if not signature.results:
            engine.call_component(func, store, lowered.params, None, leave)
            return Ending(value=_pack(None, order.output_bytes))
        raw = engine.RawValue()
        try:
            engine.call_component(func, store, lowered.params, raw, leave)
        except wasmtime.WasmtimeError as error:
            if str(error).startswith("too much data is being copied"):
                raise OutputLimit("The result is larger than a component can pass: about 3 million values.") from None
            raise
        try:
            result = Lifter(order.output_bytes).lift(signature.results[0], raw)
        finally:
            engine.delete_value(raw)
        return Ending(value=_pack(result, order.output_bytes))

    def _find(self, invoke: str | None) -> wc.ExportIndex:
        exports = self._type.exports(self._engine)
        if invoke is None:
            for name in exports:
                if name.startswith(_RUN):
                    interface = self._component.get_export_index(name)
                    index = self._component.get_export_index("run", interface)
                    if index is not None:
                        return index
            raise _not_exported("component", "is not a command: it has no wasi:cli/run@0.2", self._names(exports))
        interface_name, _, function = invoke.rpartition("#")
        parent = self._component.get_export_index(interface_name) if interface_name else None
        known = parent is not None if interface_name else True
        index = self._component.get_export_index(function, parent) if known else None
        if index is None:
            raise _not_exported(
                "component", f"has no function {toolchain.one_line(invoke, _NAME_LENGTH)!r}", self._names(exports)
            )
        return index

    def _names(self, exports: dict[str, Any]) -> list[str]:
        names = []
        for name, extern in exports.items():
            try:
                item = extern.ty
            except TypeError:
                continue
            if isinstance(item, wc.FuncType):
                names.append(name)
            elif isinstance(item, wc.ComponentInstanceType):
                names.extend(f"{name}#{inner}" for inner in item.exports(self._engine))
        return names

    def memory_bytes(self) -> int | None:
        """None: a component shows none of its memories."""
        return None

    def close(self) -> None:
        """Free the component's code."""
        self._component.close()
