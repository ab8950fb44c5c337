"""A module of our own that a resting compiler compiles, to be warm when a stranger's comes.

It takes the compiler once through most of what modules consist of. It is never run.
"""

from __future__ import annotations

from typing import Final

import wasmtime

_WHOLE: Final = "add sub mul div_s div_u rem_s rem_u and or xor shl shr_s shr_u rotl rotr".split()
_FLOAT: Final = "add sub mul div min max copysign".split()
_WHOLE_TESTS: Final = "eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u".split()
_FLOAT_TESTS: Final = "eq ne lt gt le ge".split()
_TYPES: Final = {
    "i32": (_WHOLE, _WHOLE_TESTS, ("clz", "ctz", "popcnt", "extend8_s", "wrap_i64", "trunc_sat_f64_s")),
    "i64": (_WHOLE, _WHOLE_TESTS, ("clz", "ctz", "popcnt", "extend32_s", "extend_i32_s", "extend_i32_u")),
    "f32": (_FLOAT, _FLOAT_TESTS, ("abs", "neg", "ceil", "floor", "nearest", "sqrt", "demote_f64")),
    "f64": (_FLOAT, _FLOAT_TESTS, ("abs", "neg", "ceil", "floor", "nearest", "sqrt", "promote_f32")),
}
_FROM: Final = {"wrap_i64": "i64", "trunc_sat_f64_s": "f64", "extend_i32_s": "i32", "extend_i32_u": "i32"} | {
    "demote_f64": "f64",
    "promote_f32": "f32",
}  # what a conversion starts from
_COPIES: Final = 8  # of each function: enough of them for all threads of the compiler


def wasm() -> bytes:
    """The module's bytes. Makes no engine."""
    functions = [_arithmetic(kind, number) + _control(kind, number) for kind in _TYPES for number in range(_COPIES)]
    return bytes(
        wasmtime.wat2wasm(
            f"(module (memory 1) (table 4 funcref) (global $g (mut i32) (i32.const 0)) {''.join(functions)})"
        )
    )


def _arithmetic(kind: str, number: int) -> str:
    binary, tests, unary = _TYPES[kind]
    size = {"i32": 2, "f32": 2}.get(kind, 3)
    steps = [f"(local.set 0 ({kind}.{name} (local.get 0) (local.get 1)))" for name in binary]
    steps += [f"(if ({kind}.{name} (local.get 0) (local.get 1)) (then (local.set 1 (local.get 0))))" for name in tests]
    for name in unary:
        start = f"(local.get ${_FROM.get(name, kind)})"
        steps.append(f"(local.set ${kind} ({kind}.{name} {start}))")
    steps.append(f"({kind}.store offset={number} (i32.const 8) ({kind}.load align={1 << size} (local.get $i32)))")
    return (
        f"(func $a_{kind}_{number} (param {kind} {kind}) (result {kind}) (local $i32 i32) (local $i64 i64)"
        f" (local $f32 f32) (local $f64 f64) {' '.join(steps)} (local.get ${kind}))"
    )


def _control(kind: str, number: int) -> str:
    zero = f"({kind}.const 0)"
    return f"""(func $c_{kind}_{number} (param i32 {kind}) (result {kind}) (local i32 {kind})
      (block $out (block $two (block $one
        (br_table $one $two $out (local.get 0)))
        (local.set 3 (call $a_{kind}_{number} (local.get 1) {zero})))
        (loop $again
          (local.set 2 (i32.add (local.get 2) (i32.load8_u (local.get 2))))
          (i32.store16 (local.get 2) (global.get $g))
          (br_if $out (i32.eqz (local.get 2)))
          (br_if $again (i32.lt_u (local.get 2) (memory.size)))))
      (memory.fill (i32.const 0) (i32.const 0) (local.get 2))
      (memory.copy (i32.const 0) (i32.const 8) (local.get 2))
      (global.set $g (memory.grow (i32.const 0)))
      (if (i32.ge_s (local.get 0) (i32.const 9)) (then unreachable))
      (call_indirect (param i32 {kind}) (result {kind})
        (local.get 0) (select (local.get 1) (local.get 3) (local.get 2)) (local.get 2)))"""
