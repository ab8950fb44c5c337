"""The primer: a small guest of our own, which makes a fresh process warm before it gets anyone else's."""

from __future__ import annotations

import fcntl
import os
from typing import Final

import wasmtime

from minilambda.errors import MinilambdaError
from minilambda.worker.events import RunOrder
from minilambda.worker.toolchain import compile_wasm

_TEXT: Final = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\01\\00\\00\\00")
  (func (export "_start")
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""

ORDER: Final = RunOrder(
    digest="primer",
    component=False,
    load=True,
    evict=(),
    args=("primer",),
    env=(("PRIMER", "1"),),
    invoke=None,
    values=None,
    stdin=b"x",
    timeout_ms=10_000,
    memory_bytes=1 << 20,
    output_bytes=1 << 20,
    unknown_imports="error",
)
"""A run of it, as ``cranelift`` compiled it."""


def wasm() -> bytes:
    """The module's bytes. Makes no engine."""
    return bytes(wasmtime.wat2wasm(_TEXT))


def artifact(compiler: str) -> int:
    """A sealed memfd with the compiled module: what a runner does with it, no other runner sees.

    It is compiled in a child process, so that the caller can go on forking: it has neither engine nor thread.
    Raises MinilambdaError where that fails, OSError where there is no process or no memfd to be had.
    """
    fd = os.memfd_create("primer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _, code = compile_wasm(wasm(), compiler, parallel=False)
            status = int(os.write(fd, code) != len(code))
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1] != 0:
        os.close(fd)
        raise MinilambdaError("The primer does not compile.")
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return fd
