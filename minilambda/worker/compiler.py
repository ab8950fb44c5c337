"""A compiler process: it waits for an order, compiles one module into a memfd, and ends.

Compiling is the most expensive thing that a stranger can ask for, so it has a process, and limits, of its own.
The order from the agent is ``[digest, compiler, memory_bytes, timeout_ms, background]``, with the descriptors of the
module and of the artifact.
Messages to it, one of them: ``["compiled", component, size, ms]``, ``["invalid", why]``, ``["limit", why]``,
``["corrupt"]`` where the module's bytes do not have the hash that names them; or ``["fault", what]``. A compiler that
runs into its limit may also just die: Rust aborts when it gets no memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import select
import time
from collections.abc import Callable

import wasmtime

from minilambda.errors import InvalidModule
from minilambda.worker import codec, walls, warmup
from minilambda.worker.channel import Channel
from minilambda.worker.toolchain import compiling, make_engine
from minilambda.worker.wasm_check import Check

_CORES = os.cpu_count() or 1  # now: the walls hide them
_MEMORY_PER_CORE = 4 << 20  # bytes that each thread of the compiler may have for its stack, beyond the limit
_LAST_WORDS = 4 << 20  # bytes more to say in that the limit was met
_CPU_MARGIN_S = 10  # seconds of processor time beyond what the wall time could take on all cores
PAUSE_S = (0.008, 0.25)
"""How long a compiler sleeps before it ends, at least and at most: a guest starts meanwhile, seconds."""

_PAUSE_SHARE = 0.1  # of the time that compiling took: large guests take longer to start
_QUIET_S = 0.05  # how long a new compiler leaves the processor to the guest for which it replaces another, seconds
_NICE = 10  # of a compilation that nobody waits for: about a tenth of what others get
_MALLOC = {-1: 1 << 30, -2: 4 << 20, -3: 32 << 20}  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD: bytes
_NO_MEMORY = "os error 12"  # how wasmtime's own errors report a refused mmap


class Compiler:
    """The work of a compiler process."""

    def __init__(self, channel: Channel, compiler: str, raise_walls: Callable[[], list[str]]) -> None:
        self._channel = channel
        self._raise_walls = raise_walls
        self._compiler = compiler  # "cranelift" or "winch": the one that it will most likely be asked for

    def serve(self) -> None:
        """Make ready, take the order, compile, and tell the agent how it went."""
        walls.set_name("ml-spare")
        files = _OwnFiles()
        _hold_memory()
        self._raise_walls()
        engine = make_engine(self._compiler, parallel=True)
        if not select.select([self._channel], [], [], _QUIET_S)[0]:  # there is time
            # The first module that a process compiles takes some milliseconds more than the second.
            with compiling(warmup.wasm(), engine):
                pass
        received = self._channel.receive()
        if received is None:
            return
        walls.set_name("ml-compiler")
        (digest, compiler, memory_bytes, timeout_ms, background), fds = codec.unpack(received[0]), received[1]
        if background:
            files.stand_back()
        check = Check(fds[0], digest)
        _limit(files.data_bytes(), memory_bytes, timeout_ms)
        began = time.perf_counter()
        try:
            message = _compile(engine if compiler == self._compiler else compiler, check, *fds)
        except (MemoryError, OSError):  # what can't be mapped or written is for want of memory too
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
            message = codec.pack("limit", memory_limit(memory_bytes))
        except InvalidModule as error:
            if _NO_MEMORY in error.message:
                message = codec.pack("limit", memory_limit(memory_bytes))
            else:
                message = codec.pack("invalid", codec.cut(error.message, codec.MAX_REASON))
        self._channel.send(message if check.passed() else codec.pack("corrupt"))
        # What a process does at its end takes a core from the guest that waits, and so does the next one that is made.
        pause = (time.perf_counter() - began) * _PAUSE_SHARE
        select.select([self._channel], [], [], max(PAUSE_S[0], min(pause, PAUSE_S[1])))


def _compile(by: str | wasmtime.Engine, check: Check, wasm_fd: int, artifact_fd: int) -> bytes:
    began = time.perf_counter()
    with compiling(_mapped(wasm_fd), by) as (component, artifact):
        offset, size = 0, len(artifact)
        while offset < size:
            offset += os.pwrite(artifact_fd, artifact[offset:], offset)
    check.passed()  # what that takes longer than compiling counts as compiling
    return codec.pack("compiled", component, size, (time.perf_counter() - began) * 1e3)


def _mapped(fd: int) -> mmap.mmap | bytes:
    """The content of a file. Not a copy: large modules are compiled some percent faster for that."""
    size = os.fstat(fd).st_size
    access = mmap.PROT_READ | mmap.PROT_WRITE  # what is written would stay here; ctypes takes no read-only memory
    return mmap.mmap(fd, size, mmap.MAP_PRIVATE, access) if size else b""


class _OwnFiles:
    """The files of /proc about this process that it needs: opened before the walls are raised."""

    def __init__(self) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._autogroup = os.open("/proc/self/autogroup", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            self._autogroup = -1  # the kernel does not weigh whole sessions

    def data_bytes(self) -> int:
        """What RLIMIT_DATA counts of this process now, and its stack, bytes."""
        return int(os.pread(self._statm, 128, 0).split()[5]) * resource.getpagesize()

    def stand_back(self) -> None:
        """Take the processor only when nobody else needs it. The threads of the compilation inherit that."""
        os.nice(_NICE)
        with contextlib.suppress(OSError):
            if self._autogroup >= 0:  # this process has a session of its own
                os.write(self._autogroup, str(_NICE).encode())


def _hold_memory() -> None:
    """Have the C library keep what is freed, and ask for more in larger pieces: this process lives for one module."""
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:  # glibc has it
        for option, size in _MALLOC.items():
            mallopt(option, size)


def _limit(now_bytes: int, memory_bytes: int, timeout_ms: int) -> None:
    """Bound this process: ``memory_bytes`` beyond its ``now_bytes``, and the processor time of ``timeout_ms``.

    The agent ends us at the timeout; that limit is for the case that it can't.
    """
    data = now_bytes + memory_bytes + _CORES * _MEMORY_PER_CORE
    resource.setrlimit(resource.RLIMIT_DATA, (data, data + _LAST_WORDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (memory_bytes, memory_bytes))
    seconds = timeout_ms * _CORES // 1000 + _CPU_MARGIN_S
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def memory_limit(memory_bytes: int) -> str:
    """The sentence for a compiler that needs too much memory."""
    return f"Compiling the module took more than the {memory_bytes >> 20} MiB of memory that the worker allows."
