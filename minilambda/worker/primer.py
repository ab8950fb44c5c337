"""The primers: small guests of our own, which make a fresh process warm before it gets anyone else's."""

from __future__ import annotations

import fcntl
import os
from typing import Final, NamedTuple

import wasmtime

from minilambda.errors import MinilambdaError
from minilambda.worker.events import RunOrder
from minilambda.worker.toolchain import compile_wasm

_START: Final = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)"""

_MODULE: Final = f"""{_START}
  (data (i32.const 0) "\\10\\00\\00\\00\\01\\00\\00\\00")
  (func (export "_start")
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""

# It has no data: of those wasmtime may keep a file, and children close all descriptors that they don't know.
_STILL: Final = f"""{_START}
  (func (export "_start")))"""

_COMPONENT: Final = """(component
  (core module $m (func (export "same") (param i32) (result i32) local.get 0))
  (core instance $i (instantiate $m))
  (func (export "same") (param "x" u32) (result u32) (canon lift (core func $i "same"))))"""

_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

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
"""A run of the module, as ``cranelift`` compiled it; also of the still one."""

COMPONENT_ORDER: Final = ORDER._replace(
    digest="component primer", component=True, args=("1",), env=(), invoke="same", stdin=b""
)
"""A run of the component."""


class Artifacts(NamedTuple):
    """Descriptors of the compiled primers: sealed memfds."""

    module: int  # reads and writes a byte
    component: int  # answers its argument; asks nothing of WASI
    still: int  # imports what the module does, and never calls it


def artifacts(compiler: str) -> Artifacts:
    """The primers, compiled. What a runner does with a descriptor's file, no other runner sees.

    They are compiled in a child process, so that the caller can go on forking: to compile starts threads.
    Raises MinilambdaError where that fails, OSError where there is no process or no memfd to be had.
    """
    made = Artifacts(_memfd(), _memfd(), _memfd())
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for fd, text in zip(made, (_MODULE, _COMPONENT, _STILL), strict=True):
                _, code = compile_wasm(bytes(wasmtime.wat2wasm(text)), compiler, parallel=False)
                if os.write(fd, code) != len(code):
                    break
            else:
                status = 0
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1] != 0:
        for fd in made:
            os.close(fd)
        raise MinilambdaError("The primers do not compile.")
    for fd in made:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return made


def _memfd() -> int:
    return os.memfd_create("primer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
