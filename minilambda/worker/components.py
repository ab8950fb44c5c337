"""Loaded components: all that can be done once per component, so that a run only instantiates and calls."""

from __future__ import annotations

import functools
from typing import Any, Final

import wasmtime
import wasmtime.component as wc

from minilambda.errors import MinilambdaError, OutputLimit, UnknownExport
from minilambda.worker import engine, toolchain
from minilambda.worker.component_values import Lifter, Lowered, signature_of
from minilambda.worker.events import RunOrder
from minilambda.worker.linking import component_fault, component_linker, unknown_in_component
from minilambda.worker.outcome import Ending
from minilambda.worker.places import Places
from minilambda.worker.prepared import NAME_LENGTH, Leave, Run, not_exported, pack
from minilambda.worker.values import arguments
from minilambda.worker.valuetypes import Signature

_RUN: Final = "wasi:cli/run@0.2."


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
        self._signatures: dict[str, Signature] = {}  # of functions by name as invoked
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
        signature = self._signatures.get(order.invoke)
        if signature is None:
            signature = signature_of(toolchain.one_line(order.invoke, NAME_LENGTH), func.type(store))
            self._signatures[order.invoke] = signature
        lowered = Lowered(signature, arguments(signature, order.args, order.values))
        if not signature.results:
            engine.call_component(func, store, lowered.params, None, leave)
            return Ending(value=pack(None, order.output_bytes))
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
        return Ending(value=pack(result, order.output_bytes))

    def _find(self, invoke: str | None) -> wc.ExportIndex:
        if invoke is None:
            for name in (exports := self._type.exports(self._engine)):
                if name.startswith(_RUN):
                    interface = self._component.get_export_index(name)
                    index = self._component.get_export_index("run", interface)
                    if index is not None:
                        return index
            raise not_exported("component", "is not a command: it has no wasi:cli/run@0.2", self._names(exports))
        interface_name, _, function = invoke.rpartition("#")
        parent = self._component.get_export_index(interface_name) if interface_name else None
        known = parent is not None if interface_name else True
        index = self._component.get_export_index(function, parent) if known else None
        if index is None:
            wanted = f"has no function {toolchain.one_line(invoke, NAME_LENGTH)!r}"
            raise not_exported("component", wanted, self._names(self._type.exports(self._engine)))
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
