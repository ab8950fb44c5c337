"""What an error of wasmtime means: a wire code, a sentence, a trap's name and a backtrace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import wasmtime

from minilambda.errors import MinilambdaError, OutOfMemory, StackOverflow, Trap, UnknownImportCalled
from minilambda.worker.engine import frames_of
from minilambda.worker.toolchain import one_line

_BACKTRACE_BYTES: Final = 8192
_BACKTRACE_FRAMES: Final = 30
_CAUSED_BY: Final = "\n\nCaused by:\n"
_TRAP: Final = "wasm trap: "
_CODES: Final = wasmtime.TrapCode
_NO_MEMORY: Final = (
    "exceeds memory limits",
    "exceeds table limits",
    "out of memory (failed to allocate",
    "GC heap out of memory",
    "Cannot allocate memory",
)  # how wasmtime says that an allocation failed for certain


@dataclass(frozen=True, slots=True)
class Ending:
    """How a guest ended: by itself (``code`` is None), or by a failure."""

    code: str | None = None  # wire code; None: to its end
    message: str = ""  # one sentence; empty when code is None
    exit_code: int | None = None  # of a command that ended by itself
    value: bytes | None = None  # msgpack of what an invoked function returned
    trap: str | None = None  # wasmtime's name of the trap, in snake case
    backtrace: str | None = None  # wasm frames, one a line
    interrupted: bool = False  # the epoch stopped it


class GuestExit(Exception):
    """Raised through wasmtime by our ``proc_exit``."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code  # exit status as the guest gave it, unsigned


def from_failure(error: MinilambdaError) -> Ending:
    """The ending for an error of ours."""
    return Ending(code=error.code, message=error.message)


def from_error(error: Exception) -> Ending:
    """The ending for what wasmtime raised out of a guest."""
    if isinstance(error, GuestExit):
        return Ending(exit_code=error.code)
    if isinstance(error, wasmtime.ExitTrap):
        return Ending(exit_code=error.code)
    if isinstance(error, MemoryError):
        return Ending(OutOfMemory.code, "The runner ran out of memory under the job's memory limit.")
    if not isinstance(error, (wasmtime.WasmtimeError, wasmtime.Trap)):
        return Ending(MinilambdaError.code, f"The runner failed: {type(error).__name__}: {one_line(str(error), 300)}")
    text = str(error)
    cause = text.rpartition(_CAUSED_BY)[2].strip()
    backtrace = _backtrace(text, frames_of(error))
    if cause.startswith("unknown import: `"):
        name = cause.removeprefix("unknown import: `").removesuffix("` has not been defined")
        message = f"The guest called the import {one_line(name, 200)}, which minilambda does not offer."
        return Ending(UnknownImportCalled.code, message, backtrace=backtrace)
    said = cause.rpartition("\n")[2].rpartition(_TRAP)[2]  # there may be causes before it, each on a numbered line
    if isinstance(error, wasmtime.Trap) or _TRAP in cause:
        return _from_trap(error, said, backtrace)
    if any(mark in cause[:200] for mark in _NO_MEMORY):
        return Ending(OutOfMemory.code, f"The guest needs more memory than the job allows: {one_line(cause, 300)}.")
    return Ending(Trap.code, f"The guest was stopped: {one_line(cause, 300)}.", backtrace=backtrace)


def _from_trap(error: Exception, said: str, backtrace: str | None) -> Ending:
    code = error.trap_code if isinstance(error, wasmtime.Trap) else None
    if code is _CODES.STACK_OVERFLOW or (code is None and said == "call stack exhausted"):
        return Ending(
            StackOverflow.code, "The guest's call stack overflowed.", trap="call_stack_exhausted", backtrace=backtrace
        )
    name = "unreachable" if "`unreachable`" in said else _snake(said)
    interrupted = code is _CODES.INTERRUPT or (code is None and name == "interrupt")
    message = f"The guest trapped: {one_line(said, 200)}."
    return Ending(Trap.code, message, trap=name, backtrace=backtrace, interrupted=interrupted)


def _snake(text: str) -> str:
    words = "".join(c if c.isascii() and c.isalnum() else " " for c in text.lower()).split()
    return "_".join(words)[:80]


def _backtrace(text: str, frames: list[wasmtime.Frame]) -> str | None:
    """The frames, one a line; the names as in the module, but demangled by wasmtime where they are mangled."""
    lines = text.partition(_CAUSED_BY)[0].split("\n")[1:]
    shown = []
    for number, frame in enumerate(frames[:_BACKTRACE_FRAMES]):
        name = frame.func_name
        if name is not None and name.startswith(("_Z", "_R")) and len(lines) == len(frames):
            name = lines[number].rpartition("!")[2]
        module = one_line(frame.module_name or "", 60)
        label = one_line(name, 200) if name else f"function {frame.func_index}"
        shown.append(f"{number}: {module + '!' if module else ''}{label} at 0x{frame.module_offset:x}")
    if len(frames) > _BACKTRACE_FRAMES:
        shown.append("…")
    joined = "\n".join(shown).encode()[:_BACKTRACE_BYTES].decode(errors="ignore")
    return joined or None
