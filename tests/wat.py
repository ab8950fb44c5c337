"""Small guests in WebAssembly text, and their compilation to bytes."""

from __future__ import annotations

import functools

import wasmtime

_WASI = "wasi_snapshot_preview1"


@functools.lru_cache(maxsize=256)
def wasm(text: str) -> bytes:
    """The binary of a module or component given as text."""
    return bytes(wasmtime.wat2wasm(text))


def _wasi(*names: str) -> str:
    kinds = {
        "fd_write": "(param i32 i32 i32 i32) (result i32)",
        "fd_read": "(param i32 i32 i32 i32) (result i32)",
        "args_get": "(param i32 i32) (result i32)",
        "args_sizes_get": "(param i32 i32) (result i32)",
        "environ_get": "(param i32 i32) (result i32)",
        "environ_sizes_get": "(param i32 i32) (result i32)",
        "proc_exit": "(param i32)",
        "poll_oneoff": "(param i32 i32 i32 i32) (result i32)",
        "fd_prestat_get": "(param i32 i32) (result i32)",
    }
    return "\n".join(f'(import "{_WASI}" "{name}" (func ${name} {kinds[name]}))' for name in names)


def printing(text: str, stream: int = 1, exit_code: int | None = None) -> str:
    """A command that writes ``text`` (at most 255 bytes) to a stream, then exits with a code or returns."""
    data = text.encode()
    escaped = "".join(f"\\{byte:02x}" for byte in data)
    leave = "" if exit_code is None else f"(call $proc_exit (i32.const {exit_code}))"
    return f"""(module {_wasi("fd_write", "proc_exit")}
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\{len(data):02x}\\00\\00\\00")
  (data (i32.const 16) "{escaped}")
  (func (export "_start")
    (drop (call $fd_write (i32.const {stream}) (i32.const 0) (i32.const 1) (i32.const 8)))
    {leave}))"""


HELLO = printing("hello\n")
"""Writes ``hello`` and a newline to its standard output."""

EMPTY = '(module (func (export "_start")))'
"""A command that does nothing."""

ADD = '(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))'
"""Exports ``add``."""

LOOP = '(module (func $spin (export "_start") (loop $again (br $again))))'
"""A command that never ends."""

SLEEP = f"""(module {_wasi("poll_oneoff")}
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store8 (i32.const 8) (i32.const 0))
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 60000000000))
    (drop (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"""
"""A command that sleeps for a minute in a host call."""

CAT = f"""(module {_wasi("fd_read", "fd_write")}
  (memory (export "memory") 2)
  (func (export "_start")
    (block $end (loop $more
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 65536))
      (br_if $end (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $end (i32.eqz (i32.load (i32.const 8))))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $more)))))"""
"""Copies its standard input to its standard output."""


CONVERSE = f"""(module {_wasi("fd_read", "fd_write")}
  (memory (export "memory") 2)
  (data (i32.const 16) "\\20\\00\\00\\00\\06\\00\\00\\00" "\\30\\00\\00\\00\\04\\00\\00\\00" "ready\\n")
  (data (i32.const 48) "bye\\n")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8)))
    (block $end (loop $more
      (i32.store (i32.const 0) (i32.const 1024))
      (i32.store (i32.const 4) (i32.const 65536))
      (br_if $end (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br_if $end (i32.eqz (i32.load (i32.const 8))))
      (i32.store (i32.const 4) (i32.load (i32.const 8)))
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $more)))
    (drop (call $fd_write (i32.const 2) (i32.const 24) (i32.const 1) (i32.const 8)))))"""
"""Writes ``ready`` and a newline, then its standard input as it comes, and at its end ``bye`` to its standard error."""


def _strings(kind: str) -> str:
    return f"""(module {_wasi(f"{kind}_get", f"{kind}_sizes_get", "fd_write")}
  (memory (export "memory") 2)
  (func (export "_start")
    (drop (call ${kind}_sizes_get (i32.const 16) (i32.const 4)))
    (drop (call ${kind}_get (i32.const 4096) (i32.const 32768)))
    (i32.store (i32.const 0) (i32.const 32768))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


ARGS = _strings("args")
"""Writes its arguments, each with a zero byte after it."""

ENVIRON = _strings("environ")
"""Writes its environment, each variable with a zero byte after it."""

PREOPENED = f"""(module {_wasi("fd_prestat_get", "proc_exit")}
  (memory (export "memory") 1)
  (func (export "_start") (call $proc_exit (call $fd_prestat_get (i32.const 3) (i32.const 0)))))"""
"""Exits with what WASI says of descriptor 3: 8 (bad descriptor) where no directory is granted."""

FLOOD = f"""(module {_wasi("fd_write")}
  (memory (export "memory") 2)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (i32.const 65536))
    (block $refused (loop $more
      (br_if $refused (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $more)))))"""
"""Writes to its standard output until a write fails."""

RECURSE = '(module (func $deeper (export "_start") (call $deeper)))'
"""Calls itself without end."""

DIVIDE = """(module (func $quotient (result i32) (i32.div_s (i32.const 1) (i32.const 0)))
  (func $outer (export "_start") (drop (call $quotient))))"""
"""Divides by zero in a function of a function."""

GROW = """(module (memory (export "memory") 1)
  (func (export "_start") (loop $more
    (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
    (br $more))))"""
"""Grows its memory until that is refused, then traps."""

MISSING = """(module (import "env" "callback" (func $callback (param i32 i64) (result f32)))
  (func (export "_start"))
  (func (export "call") (result f32) (call $callback (i32.const 1) (i64.const 2))))"""
"""Imports a function that nobody offers; ``_start`` does without it, ``call`` calls it."""


def command_component(body: str, imports: str = "", version: str = "0.2.0") -> str:
    """A component that exports ``wasi:cli/run``; ``body`` is core code that answers 0 for success, 1 for failure."""
    return f"""(component {imports}
  (core module $m (func (export "run") (result i32) {body}))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (component $shim (import "run-it" (func $f (result (result)))) (export "run" (func $f)))
  (instance $face (instantiate $shim (with "run-it" (func $run))))
  (export "wasi:cli/run@{version}" (instance $face)))"""


COMPONENT_OK = command_component("(i32.const 0)")
"""A component command that succeeds."""

REALLOC = """(global $free (mut i32) (i32.const 4096))
  (func (export "realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $at) (local.get $new)))
    (memory.copy (local.get $at) (local.get $old) (local.get $size))
    (local.get $at))"""
"""An allocator that never frees, for the canonical ABI."""

_LIFT = '(memory (core memory $i "memory")) (realloc (core func $i "realloc"))'


def echo_component(wit: str, define: str = "") -> str:
    """A component whose ``echo`` answers its one argument: a tuple of a value of type ``wit`` and 17 zeros.

    With so many parts both travel in memory, in one layout, and the code is the identity for every type.
    ``define`` is text that defines the type, where it needs a name.
    """
    zeros = " ".join(["u8"] * 17)
    return f"""(component {define}
  (core module $m (memory (export "memory") 4) {REALLOC}
    (func (export "echo") (param i32) (result i32) (local.get 0)))
  (core instance $i (instantiate $m))
  (func (export "echo") (param "value" (tuple {wit} {zeros})) (result (tuple {wit} {zeros}))
    (canon lift (core func $i "echo") {_LIFT})))"""


def add_component() -> str:
    """A component that exports ``add`` itself, and ``sub`` in the instance ``test:pkg/math@1.0.0``."""
    return """(component
  (core module $m
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func (export "sub") (param i32 i32) (result i32) (i32.sub (local.get 0) (local.get 1))))
  (core instance $i (instantiate $m))
  (func $add (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "add")))
  (func $sub (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "sub")))
  (export "add" (func $add))
  (instance $math (export "sub" (func $sub)))
  (export "test:pkg/math@1.0.0" (instance $math)))"""


def bytes_component(size: int) -> str:
    """A component whose ``make`` answers a list of ``size`` zero bytes."""
    return f"""(component
  (core module $m (memory (export "memory") {size // 65536 + 2}) {REALLOC}
    (func (export "make") (result i32)
      (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const {size})) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "make") (result (list u8)) (canon lift (core func $i "make") {_LIFT})))"""


def exiting_component(code: int) -> str:
    """A component whose ``leave`` exits with a code by ``wasi:cli/exit``."""
    return f"""(component
  (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
  (core func $leave (canon lower (func $exit "exit-with-code")))
  (core module $m (import "wasi" "exit" (func $exit (param i32)))
    (func (export "leave") (call $exit (i32.const {code}))))
  (core instance $i (instantiate $m (with "wasi" (instance (export "exit" (func $leave))))))
  (func (export "leave") (canon lift (core func $i "leave"))))"""


MISSING_COMPONENT = """(component
  (import "test:pkg/host@1.0.0" (instance $host (export "callback" (func))))
  (core func $callback (canon lower (func $host "callback")))
  (core module $m (import "host" "callback" (func $callback))
    (func (export "call") (call $callback)) (func (export "idle")))
  (core instance $i (instantiate $m (with "host" (instance (export "callback" (func $callback))))))
  (func (export "call") (canon lift (core func $i "call")))
  (func (export "idle") (canon lift (core func $i "idle"))))"""
"""Imports an interface that nobody offers; ``call`` calls it, ``idle`` does not."""
