"""The only file that touches wasmtime's private names: what its public interface lacks, or does slowly.

Each group of names is looked for once, when this module is imported; where it is missing, the public way is
taken. The short way through a run of a small guest (``cell``) halves its cost, and a pool halves it again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NoReturn

import wasmtime
from wasmtime import component as wasm_component

try:
    from wasmtime import _bindings as _b
    from wasmtime import _ffi as _binding
    from wasmtime._func import maybe_raise_last_exn as _raise_callback_error
    from wasmtime._trap import FrameList as _FrameList
except ImportError:  # a wasmtime without these modules: everything below takes the public way
    _b = None  # type: ignore[assignment]

_byref = ctypes.byref
_address = ctypes.addressof


def _have(*names: str) -> bool:
    return bool(_b) and all(hasattr(_b, name) for name in names)


HAS_WINCH: Final = _have("wasmtime_config_strategy_set")
"""Whether the baseline compiler can be chosen."""

RAW_VALUES: Final = _have("wasmtime_component_val_t", "wasmtime_component_func_call", "wasmtime_component_val_delete")
"""Whether components' values can be exchanged; without it a component runs as a command only."""

_ASYNC_STACK: Final = 2 << 20  # wasmtime's default, bytes

_VALTYPES: Final = _have("wasmtime_valtype_t", "wasmtime_valtype_new", "wasmtime_valtype_delete")
KINDS: Final = ("i32", "i64", "f32", "f64", "v128", "reference")
"""The kinds of core values, by wasmtime's numbers."""

_ERROR_TRACE: Final = _have("wasmtime_error_wasm_trace", "wasm_frame_vec_t")


_POOL: Final = "wasmtime_pooling_allocation_config_"


def use_winch(config: wasmtime.Config) -> None:
    """Choose the baseline compiler; only where HAS_WINCH."""
    _b.wasmtime_config_strategy_set(config.ptr(), 2)


def leave_out_unwinding(config: wasmtime.Config) -> None:
    """No tables in artifacts for debuggers and profilers of this machine: traps have their backtraces without them."""
    if _have("wasmtime_config_native_unwind_info_set"):
        _b.wasmtime_config_native_unwind_info_set(config.ptr(), False)


def set_stack(config: wasmtime.Config, size: int) -> None:
    """Native stack for guest code, bytes; less where this wasmtime has no more to give."""
    if _have("wasmtime_config_async_stack_size_set"):  # it refuses more than it has for guests that it never runs
        _b.wasmtime_config_async_stack_size_set(config.ptr(), max(size, _ASYNC_STACK))
    else:
        size = min(size, _ASYNC_STACK)
    config.max_wasm_stack = size


def compiled(engine: wasmtime.Engine, wasm: Any, component: bool) -> wasmtime.Module | wasm_component.Component:
    """Compile a module or component. Raises WasmtimeError.

    A writable buffer that is neither bytes nor bytearray, as a mapped file, is compiled where it is.
    """
    what, kind = ("component", wasm_component.Component) if component else ("module", wasmtime.Module)
    names = (f"wasmtime_{what}_new", f"wasmtime_{what}_t")
    if isinstance(wasm, (bytes, bytearray)) or not _have(*names):
        return kind(engine, bytes(wasm))
    new, pointer = getattr(_b, names[0]), ctypes.POINTER(getattr(_b, names[1]))()
    error = new(engine.ptr(), (ctypes.c_uint8 * len(wasm)).from_buffer(wasm), len(wasm), _byref(pointer))
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
    return kind._from_ptr(pointer)


@contextlib.contextmanager
def serialized(code: wasmtime.Module | wasm_component.Component) -> Iterator[memoryview]:
    """The artifact of a compiled module or component, for as long as the context lasts. Raises WasmtimeError."""
    what = "component" if isinstance(code, wasm_component.Component) else "module"
    if what == "module" and _have("wasmtime_module_image_range"):  # the same bytes where they are: no copy of them
        start, end = ctypes.c_void_p(), ctypes.c_void_p()
        _b.wasmtime_module_image_range(code.ptr(), _byref(start), _byref(end))
        first = start.value or 0
        yield memoryview((ctypes.c_uint8 * ((end.value or 0) - first)).from_address(first)).cast("B")
        return
    if not _have(f"wasmtime_{what}_serialize", "wasm_byte_vec_t", "wasm_byte_vec_delete"):
        yield memoryview(code.serialize())
        return
    held = _b.wasm_byte_vec_t()
    error = getattr(_b, f"wasmtime_{what}_serialize")(code.ptr(), _byref(held))
    if error:
        raise wasmtime.WasmtimeError._from_ptr(error)
    try:
        yield memoryview((ctypes.c_uint8 * held.size).from_address(_address(held.data.contents))).cast("B")
    finally:
        _b.wasm_byte_vec_delete(_byref(held))


def use_pool(config: wasmtime.Config, settings: Mapping[str, int]) -> bool:
    """Have instances take what they need from a pool; ``settings`` are wasmtime's. False where that can't be."""
    names = {f"{_POOL}{name}_set": value for name, value in settings.items()}
    if not _have(f"{_POOL}new", f"{_POOL}delete", "wasmtime_pooling_allocation_strategy_set", *names):
        return False
    pool = getattr(_b, f"{_POOL}new")()
    for name, value in names.items():
        getattr(_b, name)(pool, value)
    _b.wasmtime_pooling_allocation_strategy_set(config.ptr(), pool)
    getattr(_b, f"{_POOL}delete")(pool)
    return True


def kind_of(type_: wasmtime.ValType) -> str:
    """The name of a core value type; "reference" for all of those. The public way ends the process at some."""
    if not _VALTYPES:
        return str(type_)
    held = _b.wasmtime_valtype_t()
    _b.wasmtime_valtype_new(type_.ptr(), _byref(held))
    kind = int(held.kind)
    _b.wasmtime_valtype_delete(_byref(held))
    return KINDS[kind] if kind < len(KINDS) else "reference"


def frames_of(error: Exception) -> list[wasmtime.Frame]:
    """The wasm frames that an error passed through, innermost first; empty where wasmtime gives none."""
    if isinstance(error, wasmtime.Trap):
        return error.frames
    if not (_ERROR_TRACE and isinstance(error, wasmtime.WasmtimeError)):
        return []
    held = _FrameList(error)
    _b.wasmtime_error_wasm_trace(error.ptr(), _byref(held.vec))
    return [wasmtime.Frame._from_ptr(held.vec.data[i], held) for i in range(held.vec.size)]


def give_folder(wasi: Any, path: bytes, name: bytes, writable: bool) -> None:
    """Let a guest have the directory at ``path`` as ``name``; ``wasi`` is the address of its configuration.

    Raises WasmtimeError where there is no such directory.
    """
    if not _b.wasi_config_preopen_dir(ctypes.cast(wasi, ctypes.POINTER(_b.wasi_config_t)), path, name, writable):
        raise wasmtime.WasmtimeError(f"the guest's {name.decode()} can't be opened")


def start_io() -> None:
    """Have WASI start the one thread in which it waits for input and output, while no guest's limits are in force.

    By itself it wants one for each processor. Those that it may not start wait for the next thread that it does start,
    and take it from the guest whose input or file that was to read. WASI asks the environment how many there are to be.
    """
    held = os.memfd_create("input", os.MFD_CLOEXEC)
    os.environ["TOKIO_WORKER_THREADS"] = "1"
    try:
        for path in (f"/proc/self/fd/{held}", str(held)):  # by its name, where the working directory is that one
            config = wasmtime.WasiConfig()
            with contextlib.suppress(wasmtime.WasmtimeError):
                config.stdin_file = path
                break
    finally:
        del os.environ["TOKIO_WORKER_THREADS"]
        os.close(held)


# --- one run ------------------------------------------------------------------------------------------

_FUNCTIONS: Final = {
    "wasi_config_new": 0,
    "wasi_config_delete": 1,
    "wasi_config_set_argv": 3,
    "wasi_config_set_env": 4,
    "wasi_config_set_stdin_bytes": 2,
    "wasi_config_set_stdin_file": 2,
    "wasi_config_set_stdout_file": 2,
    "wasi_config_set_stderr_file": 2,
    "wasi_config_inherit_stdout": 1,
    "wasi_config_inherit_stderr": 1,
    "wasm_byte_vec_new": 3,
    "wasmtime_store_new": 3,
    "wasmtime_store_context": 1,
    "wasmtime_store_delete": 1,
    "wasmtime_context_set_wasi": 2,
    "wasmtime_context_set_epoch_deadline": 2,
    "wasmtime_store_limiter": 6,
    "wasmtime_instance_pre_instantiate": 4,
    "wasmtime_instance_export_get": 5,
    "wasmtime_func_call": 7,
    "wasmtime_memory_data_size": 2,
    "wasmtime_module_exports": 2,
    "wasm_exporttype_vec_delete": 1,
    "wasm_exporttype_name": 1,
    "wasm_exporttype_type": 1,
    "wasm_externtype_kind": 1,
    "wasm_externtype_as_functype_const": 1,
    "wasm_functype_params": 1,
    "wasm_functype_results": 1,
    "wasm_externtype_as_memorytype_const": 1,
    "wasmtime_memorytype_is64": 1,
}  # what loading and a run call, and how many arguments each takes

_GUEST_RUNS: Final = {"wasmtime_instance_pre_instantiate", "wasmtime_func_call"}
"""Those of them that let other threads run meanwhile; the others are too short to be worth it."""

_STRUCTURES: Final = (
    "wasmtime_instance_t wasmtime_extern_t wasmtime_val_t wasmtime_store_t wasmtime_context_t wasmtime_error_t "
    "wasm_trap_t wasm_byte_vec_t wasm_exporttype_vec_t"
).split()
_FUNCTION_POINTER: Final = ctypes.CFUNCTYPE(None).__mro__[1]


def _plain(type_: Any) -> Any:
    """A type of the binding's, pointers made addresses: ctypes then makes no objects of them."""
    return ctypes.c_void_p if issubclass(type_, (ctypes._Pointer, _FUNCTION_POINTER)) else type_


class _Functions:
    """The C functions of ``_FUNCTIONS``, each an attribute."""


def _short_way() -> Any:
    """The C functions of ``_FUNCTIONS`` on addresses; None where this wasmtime differs."""
    if not _have(*_FUNCTIONS, *_STRUCTURES):
        return None
    # Function objects of our own: the binding's keep their types.
    short, long = ctypes.PyDLL(_binding.dll._name), ctypes.CDLL(_binding.dll._name)
    found = _Functions()
    for name, count in _FUNCTIONS.items():
        known = getattr(_b, "_" + name, None)
        if known is None or len(known.argtypes) != count:
            return None
        function = getattr(long if name in _GUEST_RUNS else short, name)
        function.argtypes = [_plain(type_) for type_ in known.argtypes]
        function.restype = known.restype if known.restype is None else _plain(known.restype)
        setattr(found, name, function)
    return found


c: Final = _short_way()
"""The C functions that ``cell`` and ``exports`` call; None where this wasmtime lacks one."""

SHORT: Final = c is not None
"""Whether ``cell.Cell`` can be used; ``publicly.Cell`` can always be."""

if SHORT:
    Instance: Any = _b.wasmtime_instance_t
    Extern: Any = _b.wasmtime_extern_t
    Value: Any = _b.wasmtime_val_t
    Bytes: Any = _b.wasm_byte_vec_t
    Exports: Any = _b.wasm_exporttype_vec_t


def address_of(held: wasmtime.Engine | wasmtime.Module | wasmtime.InstancePre) -> int:
    """Where the C library has it; valid as long as ``held`` is."""
    return _address(held.ptr().contents)


class LentStore(wasmtime.Store):
    """A store that belongs to a cell, as the public interface knows it."""

    def __init__(self, store: Any, context: int, engine: wasmtime.Engine) -> None:
        self._set_ptr(ctypes.cast(store, ctypes.POINTER(_b.wasmtime_store_t)))
        self._lent_context = ctypes.cast(context, ctypes.POINTER(_b.wasmtime_context_t))
        self.engine = engine

    def _context(self) -> Any:
        return self._lent_context

    def _delete(self, ptr: Any) -> None:
        """The cell does that."""


def fail(error: int | None, trap: Any = None) -> NoReturn:
    """Raise what a C function answered."""
    raised: Exception
    if error:
        raised = wasmtime.WasmtimeError._from_ptr(ctypes.cast(error, ctypes.POINTER(_b.wasmtime_error_t)))
    else:
        raised = wasmtime.Trap._from_ptr(ctypes.cast(trap, ctypes.POINTER(_b.wasm_trap_t)))
    _raise_callback_error()  # what one of our host functions raised goes first
    raise raised


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
