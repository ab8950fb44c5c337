"""Guests that the integration tests share, as wasm bytes."""

from __future__ import annotations

import functools

from tests import wat

MINUTE_NS = "60000000000"  # how long ``wat.SLEEP`` sleeps, nanoseconds

HELLO = wat.wasm(wat.HELLO)
CAT = wat.wasm(wat.CAT)
LOOP = wat.wasm(wat.LOOP)
SLEEP = wat.wasm(wat.SLEEP)


@functools.cache
def sleeping(ms: int) -> bytes:
    """A command that sleeps so long in a host call, and ends."""
    return wat.wasm(wat.SLEEP.replace(MINUTE_NS, str(ms * 1_000_000)))


@functools.cache
def slow_cat(ms: int) -> bytes:
    """A command that sleeps so long in a host call, then copies its standard input to its standard output."""
    nap = wat.SLEEP.replace(MINUTE_NS, str(ms * 1_000_000))
    imports = nap[len("(module") : nap.index("(memory")]
    body = nap[nap.index("(i32.store8") : nap.rindex("))")]
    head, start, copy = wat.CAT.partition('(func (export "_start")')
    return wat.wasm(head.replace("(module", f"(module {imports}", 1) + start + body + copy)


@functools.cache
def slow_to_compile(functions: int) -> bytes:
    """A command that does nothing, beside so many functions of 40 KB that are hard to compile (some 15 ms each)."""
    step = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 7)) (i32.xor (local.get 0) (i32.const 3))))" * 400
    branches = f"(if (local.get 0) (then {step}) (else {step}))" * 4
    one = wat.wasm(f"(module (func (param i32) (result i32) {branches} (local.get 0)))")
    body = one[_code_start(one) :]
    types = b"\x02\x60\x01\x7f\x01\x7f\x60\x00\x00"
    uses = _leb128(functions + 1) + b"\x00" * functions + b"\x01"
    exports = b"\x01\x06_start\x00" + _leb128(functions)
    bodies = _leb128(functions + 1) + body * functions + b"\x02\x00\x0b"
    sections = {1: types, 3: uses, 7: exports, 10: bodies}
    return one[:8] + b"".join(bytes([kind]) + _leb128(len(data)) + data for kind, data in sections.items())


def _code_start(wasm: bytes) -> int:
    """Where the first function of a module's code section begins, the section being its last."""
    at = 8
    while True:
        kind, at = wasm[at], at + 1
        size, at = _read_leb128(wasm, at)
        if kind == 10:
            return at + 1  # behind the number of functions
        at += size


@functools.cache
def padded(size: int) -> bytes:
    """A command that writes ``padded``, of ``size`` bytes or a little more."""
    small = wat.wasm(wat.printing("padded\n"))
    name = b"\x03pad"
    length = size - len(small)
    return small + b"\x00" + _leb128(len(name) + length) + name + bytes(length)


def _leb128(number: int) -> bytes:
    out = bytearray()
    while True:
        out.append(number & 0x7F | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(out)


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return number, at
