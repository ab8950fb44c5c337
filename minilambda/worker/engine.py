"""The only file that touches wasmtime's private names: what its public interface lacks, or does slowly.

Each group of names is looked for once, when this module is imported; where it is missing, the public way is
taken. The short way through a run of a small guest halves its cost.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
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

_VALTYPES: Final = _have("wasmtime_valtype_t", "wasmtime_valtype_new", "wasmtime_valtype_delete")
_KINDS: Final = ("i32", "i64", "f32", "f64", "v128", "reference")
_ERROR_TRACE: Final = _have("wasmtime_error_wasm_trace", "wasm_frame_vec_t")


def use_winch(config: wasmtime.Config) -> None:
    """Choose the baseline compiler; only where HAS_WINCH."""
    _b.wasmtime_config_strategy_set(config.ptr(), 2)


def kind_of(type_: wasmtime.ValType) -> str:
    """The name of a core value type; "reference" for all of those. The public way ends the process at some."""
    if not _VALTYPES:
        return str(type_)
    held = _b.wasmtime_valtype_t()
    _b.wasmtime_valtype_new(type_.ptr(), _byref(held))
    kind = int(held.kind)
    _b.wasmtime_valtype_delete(_byref(held))
    return _KINDS[kind] if kind < len(_KINDS) else "reference"


def frames_of(error: Exception) -> list[wasmtime.Frame]:
    """The wasm frames that an error passed through, innermost first; empty where wasmtime gives none."""
    if isinstance(error, wasmtime.Trap):
        return error.frames
    if not (_ERROR_TRACE and isinstance(error, wasmtime.WasmtimeError)):
        return []
    held = _FrameList(error)
    _b.wasmtime_error_wasm_trace(error.ptr(), _byref(held.vec))
    return [wasmtime.Frame._from_ptr(held.vec.data[i], held) for i in range(held.vec.size)]


# --- one run ------------------------------------------------------------------------------------------

_FUNCTIONS: Final = {
    "wasi_config_new": 0,
    "wasi_config_delete": 1,
    "wasi_config_set_argv": 3,
    "wasi_config_set_env": 4,
    "wasi_config_set_stdin_bytes": 2,
    "wasi_config_set_stdout_file": 2,
    "wasi_config_set_stderr_file": 2,
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
}  # what a run calls, and how many arguments each takes


_STRUCTURES: Final = (
    "wasmtime_instance_t wasmtime_extern_t wasmtime_val_t wasmtime_store_t wasmtime_context_t wasmtime_error_t "
    "wasm_trap_t wasm_byte_vec_t"
).split()
_FUNCTION_POINTER: Final = ctypes.CFUNCTYPE(None).__mro__[1]


def _plain(type_: Any) -> Any:
    """A type of the binding's, pointers made addresses: ctypes then makes no objects of them."""
    return ctypes.c_void_p if issubclass(type_, (ctypes._Pointer, _FUNCTION_POINTER)) else type_


def _short_way() -> Any:
    """The C functions of ``_FUNCTIONS`` on addresses, as attributes of one object; None where this wasmtime differs."""
    if not _have(*_FUNCTIONS, *_STRUCTURES):
        return None
    library: Any = ctypes.CDLL(_binding.dll._name)  # function objects of our own: the binding's keep their types
    for name, count in _FUNCTIONS.items():
        known = getattr(_b, "_" + name, None)
        if known is None or len(known.argtypes) != count:
            return None
        function = getattr(library, name)
        function.argtypes = [_plain(type_) for type_ in known.argtypes]
        function.restype = known.restype if known.restype is None else _plain(known.restype)
    return library


_c: Final = _short_way()

SHORT: Final = _c is not None
"""Whether ``Cell`` can be used; ``publicly.Cell`` can always be."""


class Cell:
    """Where the guests of one process run, one after another, each in a store of its own with its own streams.

    ``open`` can be called before there is a run. ``close`` frees all that the guest held.
    """

    def __init__(self, engine: wasmtime.Engine, stdout_path: bytes, stderr_path: bytes) -> None:
        self.instantiated = False  # there is an instance in the store
        self._engine = engine
        self._engine_at = _address(engine.ptr().contents)
        self._paths = (stdout_path, stderr_path)
        self._held = (_b.wasmtime_instance_t(), _b.wasmtime_extern_t())  # what the addresses below lead to
        self._instance_at, self._extern_at = map(_address, self._held)
        self._func_at, self._memory_at = (_address(part) for part in (self._held[1].of.func, self._held[1].of.memory))
        self._trap = ctypes.c_void_p()
        self._trap_at = _address(self._trap)
        self._store: int | None = None  # address; None: closed
        self._context = 0  # address of the store's context
        self._wasi: int | None = None  # address; None: the store has it

    def open(self) -> None:
        """Make a new store, and empty and open the streams' files. Raises WasmtimeError where that can't be."""
        self.close()
        self._store = store = _c.wasmtime_store_new(self._engine_at, None, None)
        self._context = _c.wasmtime_store_context(store)
        self._wasi = wasi = _c.wasi_config_new()
        stdout, stderr = self._paths
        if not (_c.wasi_config_set_stdout_file(wasi, stdout) and _c.wasi_config_set_stderr_file(wasi, stderr)):
            self.close()
            raise wasmtime.WasmtimeError("the guest's streams can't be opened")

    def close(self) -> None:
        """Free the store. Idempotent."""
        wasi, self._wasi = self._wasi, None
        if wasi is not None:
            _c.wasi_config_delete(wasi)
        store, self._store = self._store, None
        if store is not None:
            _c.wasmtime_store_delete(store)
        self.instantiated = False

    @property
    def store(self) -> wasmtime.Store:
        """The store as the public interface knows it, until ``close``."""
        return _Lent(self._store, self._context, self._engine)

    def limit(self, memory: int, table_elements: int, instances: int, tables: int, memories: int) -> None:
        """What each memory may have (bytes) and each table (elements), how many of each; and stop at the next epoch."""
        _c.wasmtime_store_limiter(self._store, memory, table_elements, instances, tables, memories)
        _c.wasmtime_context_set_epoch_deadline(self._context, 1)

    def grant(self, argv: Sequence[str], env: Sequence[tuple[str, str]], stdin: bytes) -> None:
        """Give the guest its arguments, its environment and its streams, and nothing else. Once per ``open``."""
        wasi = self._wasi
        done = _c.wasi_config_set_argv(wasi, len(argv), _strings(argv))
        if env:
            names, values = zip(*env, strict=True)
            done = _c.wasi_config_set_env(wasi, len(env), _strings(names), _strings(values)) and done
        if not done:
            raise wasmtime.WasmtimeError("the guest's arguments or environment can't be set")
        if stdin:
            held = _b.wasm_byte_vec_t()
            _c.wasm_byte_vec_new(_address(held), len(stdin), stdin)
            _c.wasi_config_set_stdin_bytes(wasi, _address(held))
        self._wasi = None
        error = _c.wasmtime_context_set_wasi(self._context, wasi)
        if error:
            _fail(error)

    def instantiate(self, pre: wasmtime.InstancePre) -> None:
        """Make the instance of a linked core module. Raises what wasmtime or a host function raises."""
        trap, self._trap.value = self._trap, None
        error = _c.wasmtime_instance_pre_instantiate(
            _address(pre.ptr().contents), self._context, self._instance_at, self._trap_at
        )
        if error or trap.value:
            _fail(error, trap.value)
        self.instantiated = True

    def call(
        self,
        name: bytes,
        kinds: Sequence[str],
        values: Sequence[float],
        results: Sequence[str],
        leave: Callable[[], None],
    ) -> list[float]:
        """Call an exported function of numbers; ``kinds`` and ``results`` are its types, as in "i32".

        ``leave`` is called as soon as the guest has ended, before anything else takes memory. Raises what the
        guest's end raises.
        """
        params = (_b.wasmtime_val_t * len(kinds))()
        for param, kind, value in zip(params, kinds, values, strict=True):
            param.kind = _KINDS.index(kind)
            setattr(param.of, kind, value)
        answers = (_b.wasmtime_val_t * len(results))()
        trap, self._trap.value = self._trap, None
        self._look_up(name)
        error = _c.wasmtime_func_call(
            self._context, self._func_at, params, len(kinds), answers, len(results), self._trap_at
        )
        leave()
        if error or trap.value:
            _fail(error, trap.value)
        return [getattr(answer.of, kind) for answer, kind in zip(answers, results, strict=True)]

    def memory_size(self, name: bytes) -> int:
        """The size of an exported memory, bytes."""
        self._look_up(name)
        return int(_c.wasmtime_memory_data_size(self._context, self._memory_at))

    def _look_up(self, name: bytes) -> None:
        if not _c.wasmtime_instance_export_get(self._context, self._instance_at, name, len(name), self._extern_at):
            raise wasmtime.WasmtimeError(f"no export {name.decode()!r}")


class _Lent(wasmtime.Store):
    """A store that belongs to a cell."""

    def __init__(self, store: Any, context: int, engine: wasmtime.Engine) -> None:
        self._set_ptr(ctypes.cast(store, ctypes.POINTER(_b.wasmtime_store_t)))
        self._lent_context = ctypes.cast(context, ctypes.POINTER(_b.wasmtime_context_t))
        self.engine = engine

    def _context(self) -> Any:
        return self._lent_context

    def _delete(self, ptr: Any) -> None:
        """The cell does that."""


def _strings(texts: Sequence[str]) -> Any:
    return (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts])


def _fail(error: int | None, trap: Any = None) -> NoReturn:
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
