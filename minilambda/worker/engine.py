"""The only file that touches wasmtime's private names: what its public interface lacks, or does slowly.

Each group of names is looked for once, when this module is imported; where it is missing, the public way is
taken. The short way through a run of a small guest halves its cost.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import wasmtime
from wasmtime import component as wasm_component

try:
    from wasmtime import _bindings as _b
    from wasmtime._extern import wrap_extern as _wrap_extern
    from wasmtime._func import maybe_raise_last_exn as _raise_callback_error
    from wasmtime._trap import FrameList as _FrameList
except ImportError:  # a wasmtime without these modules: everything below takes the public way
    _b = None  # type: ignore[assignment]

_byref = ctypes.byref


def _have(*names: str) -> bool:
    return bool(_b) and all(hasattr(_b, name) for name in names)


HAS_WINCH: Final = _have("wasmtime_config_strategy_set")
"""Whether the baseline compiler can be chosen."""

RAW_VALUES: Final = _have("wasmtime_component_val_t", "wasmtime_component_func_call", "wasmtime_component_val_delete")
"""Whether components' values can be exchanged; without it a component runs as a command only."""

_WASI: Final = _have(
    "wasi_config_new",
    "wasi_config_set_argv",
    "wasi_config_set_env",
    "wasi_config_set_stdin_bytes",
    "wasi_config_set_stdout_file",
    "wasi_config_set_stderr_file",
    "wasm_byte_vec_new",
    "wasmtime_context_set_wasi",
)
_INSTANCES: Final = _have(
    "wasmtime_instance_pre_instantiate",
    "wasmtime_instance_export_get",
    "wasmtime_func_call",
    "wasmtime_memory_data_size",
    "wasmtime_instance_t",
    "wasmtime_extern_t",
    "wasmtime_val_t",
    "wasm_trap_t",
)
_VALTYPES: Final = _have("wasmtime_valtype_t", "wasmtime_valtype_new", "wasmtime_valtype_delete")
_KINDS: Final = ("i32", "i64", "f32", "f64", "v128", "reference")
_NUMBERS: Final = {"i32": 0, "i64": 1, "f32": 2, "f64": 3}  # wasmtime's tag of a raw value
_ERROR_TRACE: Final = _have("wasmtime_error_wasm_trace", "wasm_frame_vec_t")


def use_winch(config: wasmtime.Config) -> None:
    """Choose the baseline compiler; only where HAS_WINCH."""
    _b.wasmtime_config_strategy_set(config.ptr(), 2)


# --- WASI ---------------------------------------------------------------------------------------------


def grant(
    store: wasmtime.Store,
    argv: Sequence[str],
    env: Sequence[tuple[str, str]],
    stdin: bytes,
    stdout_path: str,
    stderr_path: str,
) -> int | None:
    """Give a store its arguments, environment and streams, and nothing else. The output files are emptied.

    Answers a descriptor to close after the run, or None. Raises WasmtimeError where a file can't be opened.
    """
    if not _WASI:
        return _grant_publicly(store, argv, env, stdin, stdout_path, stderr_path)
    config = _b.wasi_config_new()
    try:
        done = _b.wasi_config_set_argv(config, len(argv), _strings(argv))
        if env:
            names, values = zip(*env, strict=True)
            done = done and _b.wasi_config_set_env(config, len(env), _strings(names), _strings(values))
        if stdin:
            vec = _b.wasm_byte_vec_t()
            _b.wasm_byte_vec_new(
                _byref(vec), len(stdin), ctypes.cast(ctypes.c_char_p(stdin), ctypes.POINTER(_b.wasm_byte_t))
            )
            _b.wasi_config_set_stdin_bytes(config, _byref(vec))
        done = done and _b.wasi_config_set_stdout_file(config, _text(stdout_path))
        done = done and _b.wasi_config_set_stderr_file(config, _text(stderr_path))
        if not done:
            raise wasmtime.WasmtimeError("the guest's arguments, environment or streams can't be set")
    except BaseException:
        _b.wasi_config_delete(config)
        raise
    error = _b.wasmtime_context_set_wasi(store._context(), config)
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
    return None


def _grant_publicly(
    store: wasmtime.Store,
    argv: Sequence[str],
    env: Sequence[tuple[str, str]],
    stdin: bytes,
    stdout_path: str,
    stderr_path: str,
) -> int | None:
    config = wasmtime.WasiConfig()
    config.argv = list(argv)
    config.env = env
    config.stdout_file = stdout_path
    config.stderr_file = stderr_path
    fd = None
    if stdin:
        fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
        view = memoryview(stdin)
        while view:
            view = view[os.write(fd, view) :]
        config.stdin_file = f"/proc/self/fd/{fd}"
    store.set_wasi(config)
    return fd


def _strings(texts: Sequence[str]) -> Any:
    array = (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts])
    return ctypes.cast(array, ctypes.POINTER(ctypes.POINTER(ctypes.c_char)))


@functools.lru_cache(maxsize=64)
def _text(text: str) -> Any:
    return ctypes.create_string_buffer(text.encode())


def kind_of(type_: wasmtime.ValType) -> str:
    """The name of a core value type; "reference" for all of those. The public way ends the process at some."""
    if not _VALTYPES:
        return str(type_)
    held = _b.wasmtime_valtype_t()
    _b.wasmtime_valtype_new(type_.ptr(), _byref(held))
    kind = int(held.kind)
    _b.wasmtime_valtype_delete(_byref(held))
    return _KINDS[kind] if kind < len(_KINDS) else "reference"


# --- core modules -------------------------------------------------------------------------------------


def instantiate(pre: wasmtime.InstancePre, store: wasmtime.Store) -> wasmtime.Instance:
    """An instance of a linked module. Raises what wasmtime or a host function raises."""
    if not _INSTANCES:
        return pre.instantiate(store)
    instance = _b.wasmtime_instance_t()
    trap = ctypes.POINTER(_b.wasm_trap_t)()
    error = _b.wasmtime_instance_pre_instantiate(pre.ptr(), store._context(), _byref(instance), _byref(trap))
    if error or trap:
        _raise(error, trap)
    return wasmtime.Instance._from_raw(instance)


def exported(instance: wasmtime.Instance, store: wasmtime.Store, name: str) -> Any:
    """One export by name, None where there is none; does not build a list of them all."""
    if not _INSTANCES:
        return instance.exports(store).get(name)
    item = _export(instance, store, name)
    return None if item is None else _wrap_extern(item)


def _export(instance: wasmtime.Instance, store: wasmtime.Store, name: str) -> Any:
    item = _b.wasmtime_extern_t()
    key = _text(name)
    found = _b.wasmtime_instance_export_get(
        store._context(), _byref(instance._instance), key, len(key) - 1, _byref(item)
    )
    return item if found else None


def call(
    instance: wasmtime.Instance,
    store: wasmtime.Store,
    name: str,
    kinds: Sequence[str],
    values: Sequence[float],
    results: Sequence[str],
    leave: Callable[[], None],
) -> list[float]:
    """Call an exported function of numbers; ``kinds`` and ``results`` are its types, as in "i32".

    ``leave`` is called as soon as the guest has ended, before anything else takes memory. Raises what the
    guest's end raises.
    """
    item = _export(instance, store, name) if _INSTANCES else None
    if item is None:
        return _call_publicly(instance, store, name, values, leave)
    params = (_b.wasmtime_val_t * len(kinds))()
    for param, kind, value in zip(params, kinds, values, strict=True):
        param.kind = _NUMBERS[kind]
        setattr(param.of, kind, value)
    answers = (_b.wasmtime_val_t * len(results))()
    trap = ctypes.POINTER(_b.wasm_trap_t)()
    error = _b.wasmtime_func_call(
        store._context(), _byref(item.of.func), params, len(kinds), answers, len(results), _byref(trap)
    )
    leave()
    if error or trap:
        _raise(error, trap)
    return [getattr(answer.of, kind) for answer, kind in zip(answers, results, strict=True)]


def _call_publicly(
    instance: wasmtime.Instance, store: wasmtime.Store, name: str, values: Sequence[float], leave: Callable[[], None]
) -> list[float]:
    try:
        result = exported(instance, store, name)(store, *values)
    finally:
        leave()
    return result if isinstance(result, list) else [] if result is None else [result]


def memory_size(instance: wasmtime.Instance, store: wasmtime.Store, name: str) -> int:
    """The size of an exported memory, bytes."""
    item = _export(instance, store, name) if _INSTANCES else None
    if item is None:
        return int(exported(instance, store, name).data_len(store))
    return int(_b.wasmtime_memory_data_size(store._context(), _byref(item.of.memory)))


def _raise(error: Any, trap: Any) -> None:
    raised = wasmtime.WasmtimeError._from_ptr(error) if error else wasmtime.Trap._from_ptr(trap)
    _raise_callback_error()  # what one of our host functions raised goes first
    raise raised


def frames_of(error: Exception) -> list[wasmtime.Frame]:
    """The wasm frames that an error passed through, innermost first; empty where wasmtime gives none."""
    if isinstance(error, wasmtime.Trap):
        return error.frames
    if not (_ERROR_TRACE and isinstance(error, wasmtime.WasmtimeError)):
        return []
    held = _FrameList(error)
    _b.wasmtime_error_wasm_trace(error.ptr(), _byref(held.vec))
    return [wasmtime.Frame._from_ptr(held.vec.data[i], held) for i in range(held.vec.size)]


# --- components ---------------------------------------------------------------------------------------

if RAW_VALUES:
    RawValue: Any = _b.wasmtime_component_val_t
    RawName: Any = _b.wasm_name_t
    RawByte: Any = _b.wasm_byte_t
    RawEntry: Any = _b.wasmtime_component_valrecord_entry_t


def call_component(
    func: wasm_component.Func, store: wasmtime.Store, params: Any, result: Any, leave: Callable[[], None]
) -> None:
    """Call with raw values; ``params`` is an array of RawValue, ``result`` a RawValue or None.

    ``leave`` is called as soon as the guest has ended. Raises what wasmtime raises. The caller deletes the
    result by ``delete_value``.
    """
    target = (None, 0) if result is None else (_byref(result), 1)
    error = _b.wasmtime_component_func_call(_byref(func._func), store._context(), params, len(params), *target)
    leave()
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)


def delete_value(value: Any) -> None:
    """Free what wasmtime allocated for a raw result."""
    _b.wasmtime_component_val_delete(_byref(value))
