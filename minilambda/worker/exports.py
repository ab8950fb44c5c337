"""What a core module exports, as far as a run needs to know it.

The public interface makes an object of every type, which is most of what loading a small module costs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import wasmtime

from minilambda.worker import engine
from minilambda.worker.engine import c

_FUNCTION, _MEMORY = 0, 3  # wasmtime's numbers
_PAIR: Final[Any] = ctypes.c_size_t * 2  # a vector: how many, and their address


class Exports(NamedTuple):
    """The exported functions and memories by name, in the module's order."""

    functions: dict[str, bool]  # whether the function takes and answers nothing
    memories: dict[str, bool]  # whether the memory has addresses of 64 bits


def exports_of(module: wasmtime.Module) -> Exports:
    """The exports of a module, by the short way where there is one."""
    return _short(module) if engine.SHORT else _publicly(module)


def type_of(module: wasmtime.Module, function: str) -> wasmtime.FuncType:
    """The type of an exported function, which must be there."""
    types = (export.type for export in module.exports if export.name == function)
    return next(type_ for type_ in types if isinstance(type_, wasmtime.FuncType))


def _short(module: wasmtime.Module) -> Exports:
    found = Exports({}, {})
    held = engine.Exports()
    at = ctypes.addressof(held)
    c.wasmtime_module_exports(engine.address_of(module), at)
    try:
        for export in _items(at):
            type_ = c.wasm_exporttype_type(export)
            kind = c.wasm_externtype_kind(type_)
            if kind == _FUNCTION:
                function = c.wasm_externtype_as_functype_const(type_)
                takes, answers = c.wasm_functype_params(function), c.wasm_functype_results(function)
                found.functions[_name(export)] = not (_PAIR.from_address(takes)[0] or _PAIR.from_address(answers)[0])
            elif kind == _MEMORY:
                memory = c.wasm_externtype_as_memorytype_const(type_)
                found.memories[_name(export)] = bool(c.wasmtime_memorytype_is64(memory))
    finally:
        c.wasm_exporttype_vec_delete(at)
    return found


def _items(vector: int) -> Iterator[int]:
    size, first = _PAIR.from_address(vector)
    return iter((ctypes.c_size_t * size).from_address(first)) if size else iter(())


def _name(export: int) -> str:
    size, first = _PAIR.from_address(c.wasm_exporttype_name(export))
    return ctypes.string_at(first, size).decode()


def _publicly(module: wasmtime.Module) -> Exports:
    found = Exports({}, {})
    for export in module.exports:
        type_ = export.type
        if isinstance(type_, wasmtime.FuncType):
            found.functions[export.name] = not (type_.params or type_.results)
        elif isinstance(type_, wasmtime.MemoryType):
            found.memories[export.name] = type_.is_64
    return found
