"""The guests of the chaos: each run of one can be told from every other run."""

from __future__ import annotations

import functools

from tests import wat

NONCE = 16
"""Random bytes that end the output of every run."""

_WASI = "wasi_snapshot_preview1"


@functools.cache
def nap(ms: int) -> bytes:
    """A command that sleeps so long, then writes its standard input and ``NONCE`` random bytes."""
    return wat.wasm(f"""(module
  (import "{_WASI}" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "{_WASI}" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "{_WASI}" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "{_WASI}" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const {ms * 1_000_000}))
    (if (i32.const {ms}) (then
      (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))
    (i32.store (i32.const 256) (i32.const 1024))
    (i32.store (i32.const 260) (i32.const 4096))
    (drop (call $read (i32.const 0) (i32.const 256) (i32.const 1) (i32.const 264)))
    (drop (call $random (i32.add (i32.const 1024) (i32.load (i32.const 264))) (i32.const {NONCE})))
    (i32.store (i32.const 260) (i32.add (i32.load (i32.const 264)) (i32.const {NONCE})))
    (drop (call $write (i32.const 1) (i32.const 256) (i32.const 1) (i32.const 268)))))""")
