"""Where guests run, by the short way through wasmtime: its C functions on plain addresses, see ``engine``."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import wasmtime

from minilambda.worker import engine
from minilambda.worker.engine import c, fail

_START: Final = b"_start"
_PLENTY: Final = 1 << 30  # of tables and their elements, instances and memories, where they don't matter
_NO_MEMORY: Final = "exceeds memory limits"  # how wasmtime says so

Paths = tuple[bytes, bytes]
"""Of the files for a guest's output and its errors."""


class Folder(NamedTuple):
    """A directory that a guest gets."""

    path: bytes  # for this process
    name: bytes  # for the guest
    writable: bool


class Cell:
    """Where the guests of one process run, one after another, each in a store of its own with its own streams.

    ``open`` can be called before there is a run. ``close`` frees all that the guest held.
    """

    def __init__(self, owner: wasmtime.Engine) -> None:
        self.bare = False  # its guests get no WASI: they may import it, and call nothing of it
        self.instantiated = False  # there is an instance in the store
        self._engine = owner
        self._engine_at = engine.address_of(owner)
        self._held = (engine.Instance(), engine.Extern())  # what the addresses below lead to
        self._instance_at, self._extern_at = map(ctypes.addressof, self._held)
        self._func_at = ctypes.addressof(self._held[1].of.func)
        self._memory_at = ctypes.addressof(self._held[1].of.memory)
        self._trap = ctypes.c_void_p()
        self._trap_at = ctypes.addressof(self._trap)
        self._store: int | None = None  # address; None: closed
        self._context = 0  # address of the store's context
        self._wasi: int | None = None  # address; None: the store has it

    def open(self, paths: Paths | None) -> None:
        """Make a new store; its guest writes to ``paths``, emptied and opened, or to this process's own streams.

        Raises WasmtimeError where that can't be.
        """
        if self._store is not None:
            self.close()
        self._store = store = c.wasmtime_store_new(self._engine_at, None, None)
        self._context = c.wasmtime_store_context(store)
        if self.bare:
            return
        self._wasi = wasi = c.wasi_config_new()
        if paths is None:
            c.wasi_config_inherit_stdout(wasi)
            c.wasi_config_inherit_stderr(wasi)
        elif not (c.wasi_config_set_stdout_file(wasi, paths[0]) and c.wasi_config_set_stderr_file(wasi, paths[1])):
            self.close()
            raise wasmtime.WasmtimeError("the guest's streams can't be opened")

    def close(self) -> None:
        """Free the store. Idempotent."""
        wasi, self._wasi = self._wasi, None
        if wasi is not None:
            c.wasi_config_delete(wasi)
        store, self._store = self._store, None
        if store is not None:
            c.wasmtime_store_delete(store)
        self.instantiated = False

    @property
    def store(self) -> wasmtime.Store:
        """The store as the public interface knows it, until ``close``."""
        return engine.LentStore(self._store, self._context, self._engine)

    def limit(
        self, memory: int, table_elements: int, instances: int, tables: int, memories: int, epochs: int = 1
    ) -> None:
        """What each memory may have (bytes) and each table (elements), how many of each; and stop after ``epochs``."""
        c.wasmtime_store_limiter(self._store, memory, table_elements, instances, tables, memories)
        c.wasmtime_context_set_epoch_deadline(self._context, epochs)

    def grant(
        self,
        argv: Sequence[str],
        env: Sequence[tuple[str, str]],
        stdin: bytes,
        folders: Sequence[Folder] = (),
        pipe: bytes | None = None,
    ) -> None:
        """Give the guest its arguments, environment, streams and folders, and nothing else. Once per ``open``.

        With ``pipe``, a path for this process, it reads from there.
        """
        wasi = self._wasi
        if wasi is None:
            return
        done = c.wasi_config_set_argv(wasi, len(argv), _strings(argv))
        if env:
            names, values = zip(*env, strict=True)
            done = c.wasi_config_set_env(wasi, len(env), _strings(names), _strings(values)) and done
        if not done:
            raise wasmtime.WasmtimeError("the guest's arguments or environment can't be set")
        if stdin:
            held = engine.Bytes()
            c.wasm_byte_vec_new(ctypes.addressof(held), len(stdin), stdin)
            c.wasi_config_set_stdin_bytes(wasi, ctypes.addressof(held))
        elif pipe is not None and not c.wasi_config_set_stdin_file(wasi, pipe):
            raise wasmtime.WasmtimeError("the guest's pipe can't be opened")
        for folder in folders:
            engine.give_folder(wasi, *folder)
        self._wasi = None
        error = c.wasmtime_context_set_wasi(self._context, wasi)
        if error:
            fail(error)

    def instantiate(self, pre: wasmtime.InstancePre) -> None:
        """Make the instance of a linked core module. Raises what wasmtime or a host function raises."""
        trap, self._trap.value = self._trap, None
        error = c.wasmtime_instance_pre_instantiate(
            engine.address_of(pre), self._context, self._instance_at, self._trap_at
        )
        if error or trap.value:
            fail(error, trap.value)
        self.instantiated = True

    def start(self, failed: Callable[[], None]) -> None:
        """Call ``_start``, a function of nothing.

        Where the guest does not end well, ``failed`` is called before anything else takes memory. Raises what the
        guest's end raises.
        """
        self._look_up(_START)
        error = c.wasmtime_func_call(self._context, self._func_at, None, 0, None, 0, self._trap_at)
        if error or self._trap.value:
            failed()
            fail(error, self._trap.value)

    def accepts(self, pre: wasmtime.InstancePre) -> bool:
        """Whether the engine's pool has all that instances of a module need. Nothing of the module runs.

        A trial tells, which may have no memory and no time. Closes the cell.
        """
        self.open(None)
        self.limit(0, _PLENTY, _PLENTY, _PLENTY, _PLENTY, epochs=0)
        try:
            self.instantiate(pre)
        except wasmtime.WasmtimeError as error:
            return _NO_MEMORY in str(error)
        except wasmtime.Trap:
            return True  # its start function would have begun
        finally:
            self.close()
        return True

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
        params = (engine.Value * len(kinds))()
        for param, kind, value in zip(params, kinds, values, strict=True):
            param.kind = engine.KINDS.index(kind)
            setattr(param.of, kind, value)
        answers = (engine.Value * len(results))()
        trap, self._trap.value = self._trap, None
        self._look_up(name)
        error = c.wasmtime_func_call(
            self._context, self._func_at, params, len(kinds), answers, len(results), self._trap_at
        )
        leave()
        if error or trap.value:
            fail(error, trap.value)
        return [getattr(answer.of, kind) for answer, kind in zip(answers, results, strict=True)]

    def memory_size(self, name: bytes) -> int:
        """The size of an exported memory, bytes."""
        self._look_up(name)
        size: int = c.wasmtime_memory_data_size(self._context, self._memory_at)
        return size

    def _look_up(self, name: bytes) -> None:
        if not c.wasmtime_instance_export_get(self._context, self._instance_at, name, len(name), self._extern_at):
            raise wasmtime.WasmtimeError(f"no export {name.decode()!r}")


def _strings(texts: Sequence[str]) -> Any:
    return (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts])
