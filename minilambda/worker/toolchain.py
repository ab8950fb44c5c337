"""The one place that knows how wasmtime is configured, and how artifacts are made and loaded.

Compiling and running use the same configuration, else an artifact does not load.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Iterator
from typing import Any, Final

import wasmtime
from wasmtime import component as wasm_component

from minilambda.errors import InvalidModule, MinilambdaError
from minilambda.worker import engine

MAX_WASM_STACK: Final = {"cranelift": 1 << 20, "winch": 4 << 20}
"""Bytes of native stack that guest code may use, by compiler; the runner's own stack must be well above it.

Winch keeps every local variable in its frame, so most guests need two to four times as much for the same depth."""

FEATURES: Final[tuple[tuple[str, bool], ...]] = (
    ("wasm_threads", False),
    ("shared_memory", False),
)
"""What differs from wasmtime's defaults. No threads and no shared memory: a guest has one thread, and its
memory is counted in one process. All else (SIMD, bulk memory, multi-value, multi-memory, memory64, reference
types, tail calls, exceptions, GC) is as this wasmtime and compiler have it by default."""

POOL: Final = {
    "total_core_instances": 1,
    "total_component_instances": 0,
    "total_memories": 1,
    "total_tables": 1,
    "total_stacks": 0,
    "total_gc_heaps": 0,
    "max_memories_per_module": 1,
    "max_tables_per_module": 1,
    "table_elements": 1_000_000,
    "linear_memory_keep_resident": 16 << 10,
    "table_keep_resident": 4 << 10,
}
"""A pool for one instance of a core module at a time, as most are: one memory, one table, no garbage collection.

It keeps the first pages of the memory (bytes) from one guest to the next, wiped, in place of new ones from the kernel:
that halves what a short run costs."""

_CORE_PREAMBLE: Final = b"\0asm\x01\0\0\0"
_COMPONENT_PREAMBLE: Final = b"\0asm\x0d\0\x01\0"
_ERROR_LIMIT: Final = 600  # characters of wasmtime's text in a message


class BadArtifact(MinilambdaError):
    """An artifact is missing or does not load: it is damaged, or of another engine. Compile it again."""

    code = "internal"
    sentence = "The compiled artifact does not load."


COMPILERS: tuple[str, ...] = ("cranelift", "winch") if engine.HAS_WINCH else ("cranelift",)
"""The compilers that this build of wasmtime has, the default one first."""


def available(choice: str) -> str:
    """The choice of a compiler that comes closest to one of ``settings.COMPILERS`` in this wasmtime.

    Raises MinilambdaError where there is none.
    """
    if choice == "winch" and "winch" not in COMPILERS:
        raise MinilambdaError("This build of wasmtime does not have the compiler winch.")
    return choice if "winch" in COMPILERS else "cranelift"


def _config(compiler: str) -> wasmtime.Config:
    if compiler not in COMPILERS:
        raise ValueError(f"unknown compiler {compiler!r}; this wasmtime has {', '.join(COMPILERS)}")
    config = wasmtime.Config()
    config.epoch_interruption = True
    engine.set_stack(config, MAX_WASM_STACK[compiler])
    engine.leave_out_unwinding(config)
    for name, value in FEATURES:
        setattr(config, name, value)
    if compiler == "winch":
        engine.use_winch(config)
        config.cranelift_opt_level = "none"  # of the ways into its code: they are Cranelift's, up to thousands of them
    else:
        config.strategy = compiler
    return config


def make_engine(compiler: str = "cranelift", *, parallel: bool = False) -> wasmtime.Engine:
    """An engine of the product's configuration. Raises ValueError for a compiler that is not in COMPILERS.

    ``parallel`` compiles on threads of its own; artifacts don't depend on it.
    """
    config = _config(compiler)
    config.parallel_compilation = parallel
    return wasmtime.Engine(config)


def make_pooled_engine(compiler: str) -> wasmtime.Engine | None:
    """An engine that runs the same artifacts, as far as they fit its ``POOL``; None where wasmtime can't do that."""
    config = _config(compiler)
    return wasmtime.Engine(config) if engine.use_pool(config, POOL) else None


@functools.lru_cache(maxsize=1)
def _cpu_features() -> str:
    """The processor's feature flags: compiled code uses what its machine has, and caches can be shared."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, flags = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return " ".join(sorted(flags.split()))
    except OSError:
        pass
    return platform.processor()


@functools.lru_cache(maxsize=4)
def fingerprint(compiler: str = "cranelift") -> str:
    """Names everything that decides whether an artifact loads, as 16 hex digits.

    That is the wasmtime version, the configuration, the compiler, the target and its processor features, and the format
    of the files that keep artifacts.
    """
    # Here, not above: runners have no use for the dozens of modules that these import, and would carry them.
    import hashlib  # noqa: PLC0415
    import importlib.metadata  # noqa: PLC0415

    from minilambda.worker.artifact_file import MAGIC  # noqa: PLC0415

    parts = (
        MAGIC,
        importlib.metadata.version("wasmtime"),
        compiler,
        MAX_WASM_STACK[compiler],
        FEATURES,
        os.uname().sysname,
        platform.machine(),
    )
    text = repr(parts) + _cpu_features()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_component(wasm: Any) -> bool:
    """Whether the preamble is a component's. Says nothing of the bytes after it."""
    return bool(wasm[:8] == _COMPONENT_PREAMBLE)


def one_line(text: str, limit: int = _ERROR_LIMIT) -> str:
    """Text for a message: one line, printable, at most ``limit`` characters."""
    line = " ".join(text[: 4 * limit].split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def compile_wasm(wasm: bytes, compiler: str = "cranelift", *, parallel: bool = True) -> tuple[bool, bytes]:
    """Compile a module or component, on several threads where ``parallel`` is set; answers (is component, artifact).

    Raises InvalidModule with the compiler's reason. Text format is refused, as is an empty input.
    """
    with compiling(wasm, compiler, parallel=parallel) as (component, artifact):
        return component, bytes(artifact)


@contextlib.contextmanager
def compiling(wasm: Any, by: str | wasmtime.Engine, *, parallel: bool = True) -> Iterator[tuple[bool, memoryview]]:
    """As ``compile_wasm``, without copies: ``wasm`` may be a mapped file, and the artifact is there in the context.

    ``by`` is a compiler, or an engine that was made for one.
    """
    component = is_component(wasm)
    if not component and wasm[:8] != _CORE_PREAMBLE:
        raise InvalidModule(_preamble_fault(wasm[:_ERROR_LIMIT]))
    try:
        made = by if isinstance(by, wasmtime.Engine) else make_engine(by, parallel=parallel)
        code = engine.compiled(made, wasm, component)
    except wasmtime.WasmtimeError as error:
        kind = "component" if component else "module"
        raise InvalidModule(f"The {kind} does not compile: {one_line(str(error))}.") from None
    with engine.serialized(code) as artifact:
        yield component, artifact


def _preamble_fault(wasm: bytes) -> str:
    if not wasm:
        return "The module is empty: it has no bytes."
    if wasm[:4] == b"\0asm":
        return (
            f"The bytes start as WebAssembly, but of a version that is not known ({wasm[4:8].hex(' ') or 'cut off'})."
        )
    if wasm.lstrip()[:1] == b"(":
        return "The bytes look like WebAssembly text; send the binary format."
    return f"The bytes are not WebAssembly: they start with {wasm[:4].hex(' ')}, not with 00 61 73 6d."


def load_module(engine: wasmtime.Engine, path: str) -> wasmtime.Module:
    """Map an artifact of a core module. Raises BadArtifact."""
    try:
        return wasmtime.Module.deserialize_file(engine, path)
    except wasmtime.WasmtimeError as error:
        raise BadArtifact(f"The artifact does not load: {one_line(str(error))}.") from None


def load_component(engine: wasmtime.Engine, path: str) -> wasm_component.Component:
    """Map an artifact of a component. Raises BadArtifact."""
    try:
        return wasm_component.Component.deserialize_file(engine, path)
    except wasmtime.WasmtimeError as error:
        raise BadArtifact(f"The artifact does not load: {one_line(str(error))}.") from None
