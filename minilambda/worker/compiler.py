"""A compiler process: it waits for an order, compiles one module into a memfd, and ends.

Compiling is the most expensive thing that a stranger can ask for, so it has a process, and limits, of its own.
The order from the agent is ``[memory_bytes, timeout_ms]``, with the module's descriptor and the artifact's.
Messages to it, one of them: ``["compiled", component, size, ms]``, ``["invalid", why]``, ``["limit", why]``; or
``["fault", what]``. A compiler that runs into its limit may also just die: Rust aborts when it gets no memory.
"""

from __future__ import annotations

import os
import resource
import select
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

    def __init__(self, channel: Channel, compiler: str, warm_up: bytes) -> None:
        self._channel = channel
        self._compiler = compiler  # "cranelift" or "winch"
        self._warm_up = warm_up  # a module of our own

    def serve(self) -> None:
        """Make ready, take the order, compile, and tell the agent how it went."""
        walls.set_name("ml-spare")
        walls.raise_walls()
        if not select.select([self._channel], [], [], 0)[0]:  # there is time
            # The first module that a process compiles takes some milliseconds more than the second.
            compile_wasm(self._warm_up, self._compiler)
        received = self._channel.receive()
        if received is None:
            return
        walls.set_name("ml-compiler")
        (memory_bytes, timeout_ms), (wasm_fd, artifact_fd) = codec.unpack(received[0]), received[1]
        _limit(memory_bytes, timeout_ms)
        try:
            message = self._compile(wasm_fd, artifact_fd)
        except MemoryError:
            message = codec.pack("limit", memory_limit(memory_bytes))
        except InvalidModule as error:
            if _NO_MEMORY in error.message:
                message = codec.pack("limit", memory_limit(memory_bytes))
            else:
                message = codec.pack("invalid", codec.cut(error.message, codec.MAX_REASON))
        self._channel.send(message)

    def _compile(self, wasm_fd: int, artifact_fd: int) -> bytes:
        began = time.perf_counter()
        component, artifact = compile_wasm(_read(wasm_fd), self._compiler)
        view, offset = memoryview(artifact), 0
        while offset < len(view):
            offset += os.pwrite(artifact_fd, view[offset:], offset)
        return codec.pack("compiled", component, len(view), (time.perf_counter() - began) * 1e3)


def _read(fd: int) -> bytes:
    content = bytearray()
    while part := os.pread(fd, _CHUNK, len(content)):
        content += part
    return bytes(content)


def _limit(memory_bytes: int, timeout_ms: int) -> None:
    """Bound this process: ``memory_bytes`` beyond what it has now, and the processor time of ``timeout_ms``.

    The agent ends us at the timeout; that limit is for the case that it can't.
    """
    cores = os.cpu_count() or 1
    data = _data_bytes() + memory_bytes + cores * _MEMORY_PER_CORE
    resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_bytes, memory_bytes))
    seconds = timeout_ms * cores // 1000 + _CPU_MARGIN_S
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
