"""A compiler process: it compiles one module into a memfd, and ends.

Compiling is the most expensive thing that a stranger can ask for, so it has a process, and limits, of its own.
Messages to the agent, one of them: ``["compiled", component, size, ms]``, ``["invalid", why]``, ``["limit", why]``; or
``["fault", what]``. A compiler that runs into its limit may also just die: Rust aborts when it gets no memory.
"""

from __future__ import annotations

import os
import resource
import time

from minilambda.errors import InvalidModule
from minilambda.worker import codec, walls
from minilambda.worker.channel import Channel
from minilambda.worker.toolchain import compile_wasm

_CHUNK = 1 << 20  # bytes per read of the wasm
_MEMORY_PER_CORE = 4 << 20  # bytes that each thread of the compiler may have for its stack, beyond the limit
_CPU_MARGIN_S = 10  # seconds of processor time beyond what the wall time could take on all cores
_NO_MEMORY = "os error 12"  # how wasmtime's own errors report a refused mmap


class Compiler:
    """The work of a compiler process."""

    def __init__(
        self, channel: Channel, wasm_fd: int, artifact_fd: int, compiler: str, memory_bytes: int, timeout_ms: int
    ) -> None:
        self._channel = channel
        self._wasm_fd = wasm_fd  # the module, read from its start to its end
        self._artifact_fd = artifact_fd  # memfd that receives the artifact
        self._compiler = compiler  # "cranelift" or "winch"
        self._memory_bytes = memory_bytes  # data segment beyond what the process begins with, bytes
        self._timeout_ms = timeout_ms  # wall time, milliseconds; the agent ends us, this process only guards the rest

    def serve(self) -> None:
        """Compile, and tell the agent how it went."""
        walls.set_name("ml-compiler")
        walls.raise_walls()
        self._limit()
        try:
            message = self._compile()
        except MemoryError:
            message = codec.pack("limit", memory_limit(self._memory_bytes))
        except InvalidModule as error:
            if _NO_MEMORY in error.message:
                message = codec.pack("limit", memory_limit(self._memory_bytes))
            else:
                message = codec.pack("invalid", codec.cut(error.message, codec.MAX_REASON))
        self._channel.send(message)

    def _compile(self) -> bytes:
        began = time.perf_counter()
        component, artifact = compile_wasm(self._read_wasm(), self._compiler)
        view, offset = memoryview(artifact), 0
        while offset < len(view):
            offset += os.pwrite(self._artifact_fd, view[offset:], offset)
        return codec.pack("compiled", component, len(view), (time.perf_counter() - began) * 1e3)

    def _read_wasm(self) -> bytes:
        wasm = bytearray()
        while part := os.pread(self._wasm_fd, _CHUNK, len(wasm)):
            wasm += part
        return bytes(wasm)

    def _limit(self) -> None:
        cores = os.cpu_count() or 1
        data = _data_bytes() + self._memory_bytes + cores * _MEMORY_PER_CORE
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._memory_bytes, self._memory_bytes))
        seconds = self._timeout_ms * cores // 1000 + _CPU_MARGIN_S
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def memory_limit(memory_bytes: int) -> str:
    """The sentence for a compiler that needs too much memory."""
    return f"Compiling the module took more than the {memory_bytes >> 20} MiB of memory that the worker allows."


def _data_bytes() -> int:
    """What RLIMIT_DATA counts of this process now, and its stack, bytes."""
    fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 128).split()[5]) * resource.getpagesize()
    finally:
        os.close(fd)
