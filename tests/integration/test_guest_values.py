"""Exported functions called with typed parameters, through wasmtime and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from minilambda.worker.events import Outcome
from tests import wat
from tests.guest_process import MIB, GuestProcess

ZEROS = [0] * 17
RECORD = '(type $t (record (field "first-name" string) (field "age" u8))) (export $T "t" (type $t))'
VARIANT = '(type $t (variant (case "none") (case "num" s64) (case "text" string))) (export $T "t" (type $t))'
ENUM = '(type $t (enum "red" "green")) (export $T "t" (type $t))'
FLAGS = '(type $t (flags "r" "w" "x")) (export $T "t" (type $t))'


@pytest.fixture(scope="module", params=[True, False], ids=["short way", "public way"])
def host(request: pytest.FixtureRequest) -> Iterator[GuestProcess]:
    process = GuestProcess(short=request.param)
    yield process
    process.close()


def value_of(outcome: Outcome) -> Any:
    assert (outcome.code, outcome.exit_code) == (None, None), outcome.message
    assert outcome.value is not None
    return msgpack.unpackb(outcome.value, strict_map_key=False)


KINDS: list[tuple[str, str, Any]] = [
    ("bool", "", True),
    ("bool", "", False),
    ("s8", "", -128),
    ("u8", "", 255),
    ("s16", "", -(1 << 15)),
    ("u16", "", 65535),
    ("s32", "", -(1 << 31)),
    ("u32", "", (1 << 32) - 1),
    ("s64", "", -(1 << 63)),
    ("u64", "", (1 << 64) - 1),
    ("f32", "", 1.5),
    ("f64", "", 0.1),
    ("char", "", "🦀"),
    ("string", "", "grüße, 'quoted' \"too\""),
    ("string", "", ""),
    ("(list u16)", "", [1, 2, 65535]),
    ("(list f64)", "", [0.5, -2.0]),
    ("(list bool)", "", [True, False, True]),
    ("(list string)", "", ["a", "", "ccc"]),
    ("(list (list s8))", "", [[-1], [], [2, 3]]),
    ("(list u8)", "", b"\x00\xff raw"),
    ("(list u8)", "", b""),
    ("(tuple u8 string)", "", [7, "x"]),
    ("$T", RECORD, {"first-name": "Ada", "age": 36}),
    ("(list $T)", RECORD, [{"first-name": "A", "age": 1}, {"first-name": "B", "age": 2}]),
    ("$T", VARIANT, {"none": None}),
    ("$T", VARIANT, {"num": -5}),
    ("$T", VARIANT, {"text": "hi"}),
    ("$T", ENUM, "green"),
    ("$T", FLAGS, ["r", "x"]),
    ("$T", FLAGS, []),
    ("(option string)", "", None),
    ("(option string)", "", "some"),
    ("(option (option u8))", "", None),
    ("(option (option u8))", "", {"some": None}),
    ("(option (option u8))", "", {"some": 3}),
    ("(result u8 (error string))", "", {"ok": 1}),
    ("(result u8 (error string))", "", {"err": "bad"}),
    ("(result)", "", {"ok": None}),
    ("(result)", "", {"err": None}),
    ("(result u32)", "", {"err": None}),
]


@pytest.mark.parametrize(("wit", "define", "value"), KINDS)
def test_a_value_of_every_kind_comes_back_as_it_went(host: GuestProcess, wit: str, define: str, value: Any) -> None:
    guest = wat.echo_component(wit, define)

    packed = host.run(guest, invoke="echo", values=msgpack.packb([[value, *ZEROS]]))

    assert value_of(packed)[0] == value
    if not isinstance(value, bytes):  # JSON has no bytes
        text = host.run(guest, invoke="echo", args=(json.dumps([value, *ZEROS]),))
        assert value_of(text)[0] == value


def test_numbers_of_core_modules(host: GuestProcess) -> None:
    swap = """(module (func (export "swap") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
      (local.get 3) (local.get 2) (local.get 1) (local.get 0)))"""

    text = host.run(swap, invoke="swap", args=("0xffffffff", "-1", "1.5", "2"))
    packed = host.run(swap, invoke="swap", values=msgpack.packb([-1, (1 << 64) - 1, 1, 2.0]))

    assert value_of(text) == [2.0, 1.5, -1, -1]
    assert value_of(packed) == [2.0, 1.0, -1, -1]


def test_one_result_is_a_value_and_none_is_nil(host: GuestProcess) -> None:
    nothing = '(module (func (export "f")))'

    assert value_of(host.run(wat.ADD, invoke="add", args=("2", "3"))) == 5
    assert value_of(host.run(nothing, invoke="f")) is None


def test_functions_of_components_and_of_their_instances(host: GuestProcess) -> None:
    guest = wat.add_component()

    assert value_of(host.run(guest, invoke="add", args=("2", "-3"))) == -1
    assert value_of(host.run(guest, invoke="test:pkg/math@1.0.0#sub", args=("2", "3"))) == -1


@pytest.mark.parametrize(
    ("args", "values", "said"),
    [
        (("1",), None, ["takes 2 parameters, 1 given"]),
        ((), [1, 2, 3], ["takes 2 parameters, 3 given"]),
        (("1", "two"), None, ['Parameter 2 ("b")', "s32", '"two"']),
        ((), [1, 1 << 31], ['Parameter 2 ("b")', "s32", "2147483648"]),
        ((), [True, 1], ['Parameter 1 ("a")', "s32", "True"]),
        ((), [1.0, 1], ['Parameter 1 ("a")', "s32"]),
        ((), {"a": 1}, ["array"]),
    ],
)
def test_bad_arguments_name_the_parameter_and_the_signature(
    host: GuestProcess, args: tuple[str, ...], values: Any, said: list[str]
) -> None:
    packed = None if values is None else msgpack.packb(values)

    outcome = host.run(wat.add_component(), invoke="add", args=args, values=packed)

    assert outcome.code == "bad_arguments"
    assert all(part in outcome.message for part in said), outcome.message
    if isinstance(values, list) or values is None:
        assert "add(a: s32, b: s32) -> s32" in outcome.message


def test_values_that_are_not_msgpack_are_bad_arguments(host: GuestProcess) -> None:
    assert host.run(wat.ADD, invoke="add", values=b"\xc1").code == "bad_arguments"


@pytest.mark.parametrize("kind", ["externref", "funcref", "v128", "exnref", "(ref null $s)"])
def test_a_function_whose_values_cannot_cross_is_refused(host: GuestProcess, kind: str) -> None:
    guest = f"""(module (type $s (struct))
      (func (export "f") (param {kind})) (func (export "_start"))
      (func (export "g") (result {kind}) unreachable))"""

    assert host.run(guest).exit_code == 0
    for name in ("f", "g"):
        outcome = host.run(guest, invoke=name, args=("1",))
        assert outcome.code == "bad_arguments"
        assert ("v128" if kind == "v128" else "reference") in outcome.message
    assert host.run(guest.replace('"f"', '"_start"').replace('(func (export "_start"))', "")).code == "unknown_export"
    needs = f'(module (type $s (struct)) (import "env" "f" (func (param {kind}))) (func (export "_start")))'
    assert "env.f (func(" in host.run(needs).message


def test_a_result_larger_than_the_output_limit_is_output_limit(host: GuestProcess) -> None:
    guest = wat.bytes_component(50_000)

    assert len(value_of(host.run(guest, invoke="make", output_bytes=60_000))) == 50_000
    assert host.run(guest, invoke="make", output_bytes=40_000).code == "output_limit"
    assert host.run(wat.ADD, invoke="add", args=("100000", "100000"), output_bytes=2).code == "output_limit"


@pytest.mark.parametrize("size", [2 * MIB, 3 * MIB, 40 * MIB])
def test_a_huge_result_takes_nothing_else_down(host: GuestProcess, size: int) -> None:
    assert host.run(wat.bytes_component(size), invoke="make").code == "output_limit"
    assert host.run(wat.HELLO).stdout == b"hello\n"


def test_a_component_exits_with_a_whole_code(host: GuestProcess) -> None:
    for code in (0, 1, 42, 201, 255):
        outcome = host.run(wat.exiting_component(code), invoke="leave")
        assert (outcome.code, outcome.exit_code) == (None, code)


def test_a_reactor_is_initialized_before_the_call(host: GuestProcess) -> None:
    reactor = """(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
      (memory (export "memory") 1) (global $ready (mut i32) (i32.const 0))
      (func (export "_initialize") (global.set $ready (i32.const 1)))
      (func (export "ready") (result i32) (global.get $ready)))"""

    assert value_of(host.run(reactor, invoke="ready")) == 1
