"""Loaded modules: all that can be done once per module, so that a run only instantiates and calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgpack
import wasmtime
import wasmtime.component as wc

from minilambda.errors import MinilambdaError, OutputLimit, UnknownExport
from minilambda.worker import engine, publicly, toolchain
from minilambda.worker.component_values import Lifter, Lowered, signature_of
from minilambda.worker.events import RunOrder
from minilambda.worker.linking import component_fault, component_linker, core_linker, link_core, unknown_in_component
from minilambda.worker.outcome import Ending
from minilambda.worker.values import arguments
from minilambda.worker.valuetypes import Signature, Type

_LISTED: Final = 20  # exports named in one message
_NAME_LENGTH: Final = 100  # characters of one export's name in a message
_RUN: Final = "wasi:cli/run@0.2."
_DONE: Final = Ending(exit_code=0)


Cell = engine.Cell | publicly.Cell
"""Where one guest runs."""

Leave = Callable[[], None]
"""To be called as soon as the guest has ended, before anything takes memory."""

Run = Callable[[Cell, Leave], Ending]
"""Instantiates and calls, all else being prepared. Raises what the guest's end raises, or an error of ours."""


class Linkers:
    """An engine and the linkers that all its modules share."""

    def __init__(self, compiler: str) -> None:
        self.engine = toolchain.make_engine(compiler)
        self.core = core_linker(self.engine)
        self._component: wc.Linker | None = None  # made at the first component

    @property
    def component(self) -> wc.Linker:
        """The linker of components, WASI 0.2 in it."""
        if self._component is None:
            self._component = component_linker(self.engine)
        return self._component


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

    def __init__(self, linkers: Linkers, path: str) -> None:
        self._linkers = linkers
        self._module = toolchain.load_module(linkers.engine, path)
        self._functions: dict[str, wasmtime.FuncType] = {}  # exported functions by name
        self._memories: list[bytes] = []  # names of exported memories
        for export in self._module.exports:
            type_ = export.type
            if isinstance(type_, wasmtime.FuncType):
                self._functions[export.name] = type_
            elif isinstance(type_, wasmtime.MemoryType):
                self._memories.append(export.name.encode())
        self.needs_wasi = any(item.module == "wasi_snapshot_preview1" for item in self._module.imports)
        self.shows_memory = bool(self._memories)  # its memory can be seen from outside
        self._linked: dict[bool, wasmtime.InstancePre] = {}  # by whether unknown imports trap
        self._commands: dict[bool, Run] = {}  # what runs _start, likewise

    def _pre(self, trap_unknown: bool) -> wasmtime.InstancePre:
        pre = self._linked.get(trap_unknown)
        if pre is None:
            linker = core_linker(self._linkers.engine) if trap_unknown else self._linkers.core
            pre = self._linked[trap_unknown] = link_core(linker, self._module, trap_unknown)
        return pre

    def check(self, order: RunOrder) -> Run:
        """Link and find the function; answers what runs it in a store.

        Raises UnknownImport, UnknownExport and BadArguments.
        """
        trap_unknown = order.unknown_imports == "trap"
        if order.invoke is None and trap_unknown in self._commands:
            return self._commands[trap_unknown]
        pre = self._pre(trap_unknown)
        name = order.invoke if order.invoke is not None else "_start"
        type_ = self._functions.get(name)
        if type_ is None:
            wanted = (
                f"has no function {toolchain.one_line(name, _NAME_LENGTH)!r}"
                if order.invoke is not None
                else "is not a command: it has no _start"
            )
            raise _not_exported("module", wanted, self._functions)
        if order.invoke is None:
            if type_.params or type_.results:
                raise UnknownExport(
                    f"The module is not a command: {_core_signature(name, type_)} takes or answers something."
                )
            self._commands[trap_unknown] = lambda cell, leave: self._command(pre, cell, leave)
            return self._commands[trap_unknown]
        signature = _core_signature(name, type_)
        values = arguments(signature, order.args, order.values)
        return lambda cell, leave: self._invoke(pre, cell, leave, name, signature, values, order.output_bytes)

    def _command(self, pre: wasmtime.InstancePre, cell: Cell, leave: Leave) -> Ending:
        cell.instantiate(pre)
        cell.call(b"_start", (), (), (), leave)
        return _DONE

    def _invoke(
        self,
        pre: wasmtime.InstancePre,
        cell: Cell,
        leave: Leave,
        name: str,
        signature: Signature,
        values: list[Any],
        limit: int,
    ) -> Ending:
        cell.instantiate(pre)
        if self.needs_wasi and name != "_initialize" and self._has_initialize():
            cell.call(b"_initialize", (), (), (), lambda: None)
        kinds, results = [t.kind for _, t in signature.params], [t.kind for t in signature.results]
        answers = cell.call(name.encode(), kinds, values, results, leave)
        return Ending(value=_pack(None if not answers else answers[0] if len(answers) == 1 else answers, limit))

    def _has_initialize(self) -> bool:
        type_ = self._functions.get("_initialize")
        return type_ is not None and not type_.params and not type_.results

    def memory_bytes(self, cell: Cell) -> int | None:
        """The size of the exported memories, bytes; None where none is exported, or before there is an instance."""
        if not self._memories or not cell.instantiated:
            return None
        return sum(cell.memory_size(name) for name in self._memories)

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

    shows_memory = False
    needs_wasi = True  # which interfaces it imports says little of what it needs in a store

    def __init__(self, linkers: Linkers, path: str) -> None:
        self._linkers = linkers
        self._component = toolchain.load_component(linkers.engine, path)
        self._type = self._component.type
        self._unknown = unknown_in_component(self._type, linkers.engine)
        self._trapping: wc.Linker | None = None  # made for this component once unknown imports may trap
        self._found: dict[str, wc.ExportIndex] = {}  # exported functions by name as invoked; "" is the command
        self._checked = False  # the command's type is as WASI has it

    def _linker(self, trap_unknown: bool) -> wc.Linker:
        if not self._unknown:
            return self._linkers.component
        if not trap_unknown:
            raise component_fault(self._unknown, "")
        if self._trapping is None:
            linker = component_linker(self._linkers.engine)
            try:
                linker.define_unknown_imports_as_traps(self._component)
            except wasmtime.WasmtimeError as error:
                raise component_fault(self._unknown, str(error)) from None
            self._trapping = linker
        return self._trapping

    def check(self, order: RunOrder) -> Run:
        """Link and find the function; answers what runs it in a store. Raises UnknownImport, UnknownExport."""
        linker = self._linker(order.unknown_imports == "trap")
        index = self._found.get(order.invoke or "")
        if index is None:
            index = self._found[order.invoke or ""] = self._find(order.invoke)
        return lambda cell, leave: self._run(linker, cell.store, leave, index, order)

    def _run(
        self, linker: wc.Linker, store: wasmtime.Store, leave: Leave, index: wc.ExportIndex, order: RunOrder
    ) -> Ending:
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
        exports = self._type.exports(self._linkers.engine)
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
                names.extend(f"{name}#{inner}" for inner in item.exports(self._linkers.engine))
        return names

    def memory_bytes(self, cell: Cell) -> int | None:
        """None: a component shows none of its memories."""
        return None

    def close(self) -> None:
        """Free the component's code."""
        self._component.close()
