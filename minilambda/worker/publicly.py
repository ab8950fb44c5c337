"""A run by wasmtime's public interface only: what ``cell.Cell`` does, where its short way is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import wasmtime

from minilambda.worker.cell import Folder


class Cell:
    """As ``cell.Cell``, and twice as slow."""

    def __init__(self, engine: wasmtime.Engine) -> None:
        self._engine = engine
        self._store: wasmtime.Store | None = None  # None: closed
        self._wasi: wasmtime.WasiConfig | None = None
        self._instance: wasmtime.Instance | None = None
        self._stdin: int | None = None  # memfd with the guest's input, to be closed

    def open(self, paths: tuple[bytes, bytes] | None) -> None:
        self.close()
        self._wasi = wasmtime.WasiConfig()
        if paths is None:
            self._wasi.inherit_stdout()
            self._wasi.inherit_stderr()
        else:
            self._wasi.stdout_file, self._wasi.stderr_file = (path.decode() for path in paths)
        self._store = wasmtime.Store(self._engine)

    def close(self) -> None:
        for held in (self._wasi, self._store):
            if held is not None:
                held.close()
        self._wasi = self._store = self._instance = None
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None

    @property
    def instantiated(self) -> bool:
        return self._instance is not None

    @property
    def store(self) -> wasmtime.Store:
        assert self._store is not None
        return self._store

    def limit(self, memory: int, table_elements: int, instances: int, tables: int, memories: int) -> None:
        self.store.set_limits(memory, table_elements, instances, tables, memories)
        self.store.set_epoch_deadline(1)

    def grant(
        self,
        argv: Sequence[str],
        env: Sequence[tuple[str, str]],
        stdin: bytes,
        folders: Sequence[Folder] = (),
        pipe: bytes | None = None,
    ) -> None:
        assert self._wasi is not None
        self._wasi.argv = list(argv)
        self._wasi.env = env
        if stdin:
            self._stdin = os.memfd_create("stdin", os.MFD_CLOEXEC)
            view = memoryview(stdin)
            while view:
                view = view[os.write(self._stdin, view) :]
            self._wasi.stdin_file = f"/proc/self/fd/{self._stdin}"
        elif pipe is not None:
            self._wasi.stdin_file = pipe.decode()
        for path, name, writable in folders:
            self._wasi.preopen_dir(path.decode(), name.decode(), writable)
        self.store.set_wasi(self._wasi)

    def instantiate(self, pre: wasmtime.InstancePre) -> None:
        self._instance = pre.instantiate(self.store)

    def start(self, failed: Callable[[], None]) -> None:
        try:
            self._export(b"_start")(self.store)
        except BaseException:
            failed()
            raise

    def call(
        self,
        name: bytes,
        kinds: Sequence[str],
        values: Sequence[float],
        results: Sequence[str],
        leave: Callable[[], None],
    ) -> list[float]:
        try:
            result = self._export(name)(self.store, *values)
        finally:
            leave()
        return result if isinstance(result, list) else [] if result is None else [result]

    def memory_size(self, name: bytes) -> int:
        return int(self._export(name).data_len(self.store))

    def _export(self, name: bytes) -> Any:
        assert self._instance is not None
        return self._instance.exports(self.store)[name.decode()]
