"""One guest in a runner's process: commands, limits and traps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import msgpack
import pytest

from minilambda.worker import engine
from tests import wat
from tests.guest_process import MIB, GuestProcess


@pytest.fixture(scope="module", params=[True, False], ids=["short way", "public way"])
def host(request: pytest.FixtureRequest) -> Iterator[GuestProcess]:
    process = GuestProcess(short=request.param)
    yield process
    process.close()


def test_the_short_way_is_there_in_this_wasmtime() -> None:
    assert engine.SHORT


STRANGE_WASMTIME = """
import os, sys
import wasmtime.component
for name in ("_bindings", "_ffi", "_func", "_trap"):
    delattr(wasmtime, name)
    sys.modules["wasmtime." + name] = None
from minilambda.worker import engine, primer
from minilambda.worker.guest import GuestHost
from minilambda.worker.places import make_places
from minilambda.worker.toolchain import compile_wasm
from tests import wat
from tests.guest_process import order_for

assert not engine.SHORT
host = GuestHost(os.memfd_create("stdout"), os.memfd_create("stderr"), make_places(("cranelift",)))
host.prime(primer.ORDER, f"/proc/self/fd/{primer.artifacts('cranelift').module}")
for text, fields in (
    (wat.HELLO, {}),
    (wat.DIVIDE, {}),
    (wat.LOOP, {"timeout_ms": 50}),
    (wat.ADD, {"invoke": "add", "args": ("2", "3")}),
    (wat.command_component("(i32.const 1)"), {}),
):
    component, artifact = compile_wasm(wat.wasm(text))
    fd = os.memfd_create("artifact")
    os.write(fd, artifact)
    outcome = host.run(order_for(text, component, **fields), f"/proc/self/fd/{fd}")
    host.lift_limits()
    print(outcome.code, outcome.exit_code, outcome.stdout, outcome.value, flush=True)
os._exit(0)
"""


def test_a_wasmtime_without_the_private_names_serves_too() -> None:
    command = [sys.executable, "-c", STRANGE_WASMTIME]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=60).stdout.decode()

    assert said.splitlines() == [
        "None 0 b'hello\\n' None",
        "trap None b'' None",
        "deadline_exceeded None b'' None",
        "None None b'' b'\\x05'",
        "None 1 b'' None",
    ]


# --- commands -----------------------------------------------------------------------------------------


def test_a_command_writes_to_its_streams(host: GuestProcess) -> None:
    out = host.run(wat.HELLO)
    err = host.run(wat.printing("oops", stream=2))

    assert (out.code, out.exit_code, out.stdout, out.stderr) == (None, 0, b"hello\n", b"")
    assert (err.code, err.exit_code, err.stdout, err.stderr) == (None, 0, b"", b"oops")


@pytest.mark.parametrize("code", [0, 1, 42, 125, 126, 127, 200, 255, 256])
def test_an_exit_code_comes_back_whole(host: GuestProcess, code: int) -> None:
    outcome = host.run(wat.printing("bye", exit_code=code))

    assert (outcome.code, outcome.exit_code, outcome.stdout) == (None, code, b"bye")


def test_standard_input_arrives_whole(host: GuestProcess) -> None:
    data = bytes(range(256)) * 1200

    assert host.run(wat.CAT, stdin=data).stdout == data
    assert host.run(wat.CAT).stdout == b""


def test_input_through_a_pipe_arrives_whole_and_is_one_guests_own(host: GuestProcess) -> None:
    assert host.run(wat.CAT, piped=b"piped").stdout == b"piped"
    assert host.run(wat.CAT, piped=b"other").stdout == b"other"
    assert host.run(wat.CAT).stdout == b""


def test_arguments_and_environment_are_the_jobs_own(host: GuestProcess) -> None:
    args = host.run(wat.ARGS, args=("one", "zwei ü"))
    env = host.run(wat.ENVIRON, env=(("NAME", "value"), ("OTHER", "")))

    assert args.stdout == "main.wasm\0one\0zwei ü\0".encode()
    assert env.stdout == b"NAME=value\0OTHER=\0"
    assert host.run(wat.ENVIRON).stdout == b""


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 300_000])
def test_output_of_every_size_is_the_guests_own(host: GuestProcess, size: int) -> None:
    data = bytes(i % 251 for i in range(size))

    assert host.run(wat.CAT, stdin=data).stdout == data
    assert host.run(wat.printing("abc", exit_code=1)).stdout == b"abc"
    assert host.run(wat.MISSING).stdout == b""
    assert host.run(wat.EMPTY).stdout == b""


def test_an_argument_with_a_zero_character_is_refused(host: GuestProcess) -> None:
    outcome = host.run(wat.ARGS, args=("a\0b",))

    assert (outcome.code, outcome.stdout) == ("bad_arguments", b"")


def test_no_directory_is_granted(host: GuestProcess) -> None:
    assert host.run(wat.PREOPENED).exit_code == 8  # WASI's EBADF


@pytest.mark.parametrize("version", ["0.2.0", "0.2.3"])
def test_a_component_runs_as_a_command(host: GuestProcess, version: str) -> None:
    done = host.run(wat.command_component("(i32.const 0)", version=version))
    failed = host.run(wat.command_component("(i32.const 1)", version=version))

    assert (done.code, done.exit_code) == (None, 0)
    assert (failed.code, failed.exit_code) == (None, 1)


# --- limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "guest",
    [
        wat.LOOP,
        '(module (func $spin (loop $again (br $again))) (start $spin) (func (export "_start")))',
        wat.command_component("(loop $again (br $again)) (i32.const 0)"),
    ],
    ids=["loop", "loop in start", "loop in component"],
)
def test_a_loop_is_stopped_at_its_deadline(host: GuestProcess, guest: str) -> None:
    outcome = host.run(guest, timeout_ms=150)

    assert (outcome.code, outcome.exit_code) == ("deadline_exceeded", None)
    assert "0.15 s" in outcome.message
    assert outcome.run_ms >= 150


def test_a_deadline_does_not_reach_the_next_guest(host: GuestProcess) -> None:
    host.run(wat.LOOP, timeout_ms=50)

    assert [host.run(wat.HELLO, timeout_ms=5000).code for _ in range(5)] == [None] * 5


@pytest.mark.parametrize(
    "body",
    [
        "(memory 257)",
        "(memory 200) (memory 200)",
        "(table 2000000 funcref)",
        " ".join(["(table 900000 funcref)"] * 8),
    ],
    ids=["memory", "two memories", "table", "tables"],
)
def test_a_guest_that_needs_too_much_memory_is_out_of_memory(host: GuestProcess, body: str) -> None:
    outcome = host.run(f'(module {body} (func (export "_start")))', memory_bytes=16 * MIB)

    assert outcome.code == "out_of_memory"
    assert "memory" in outcome.message


def test_a_guest_may_use_all_its_memory(host: GuestProcess) -> None:
    outcome = host.run('(module (memory (export "memory") 256) (func (export "_start")))', memory_bytes=16 * MIB)

    assert (outcome.code, outcome.peak_memory_bytes) == (None, 16 * MIB)


def test_two_memories_share_one_limit(host: GuestProcess) -> None:
    grows = """(module (memory $a 1) (memory $b 1) (func (export "pages") (result i32)
      (loop $more (br_if $more (i32.ne (memory.grow $a (i32.const 1)) (i32.const -1))))
      (loop $more (br_if $more (i32.ne (memory.grow $b (i32.const 1)) (i32.const -1))))
      (i32.add (memory.size $a) (memory.size $b))))"""

    outcome = host.run(grows, invoke="pages", memory_bytes=16 * MIB)

    assert outcome.value is not None
    assert 255 <= msgpack.unpackb(outcome.value) <= 256 + 64


def test_a_trap_after_a_refused_grow_stays_a_trap_and_says_so(host: GuestProcess) -> None:
    full = host.run(wat.GROW, memory_bytes=16 * MIB)
    early = host.run('(module (func (export "_start") unreachable))', memory_bytes=16 * MIB)

    assert (full.code, full.trap) == ("trap", "unreachable")
    assert "near the limit" in full.message
    assert "near the limit" not in early.message


def test_garbage_that_is_kept_is_out_of_memory(host: GuestProcess) -> None:
    keeps = """(module (type $n (struct (field (ref null $n)) (field i64)))
      (func (export "_start") (local $last (ref null $n))
        (loop $more (local.set $last (struct.new $n (local.get $last) (i64.const 1))) (br $more))))"""

    assert host.run(keeps, memory_bytes=16 * MIB).code == "out_of_memory"


def test_output_is_cut_one_byte_past_its_limit(host: GuestProcess) -> None:
    outcome = host.run(wat.FLOOD, output_bytes=100_000)

    assert (outcome.code, outcome.exit_code, len(outcome.stdout)) == ("output_limit", None, 100_001)


def test_output_as_large_as_its_limit_is_fine(host: GuestProcess) -> None:
    assert host.run(wat.HELLO, output_bytes=6).code is None
    assert host.run(wat.HELLO, output_bytes=5).code == "output_limit"


@pytest.mark.parametrize(
    "guest", [wat.RECURSE, wat.command_component("(call $deeper)").replace("(func (exp", "(func $deeper (exp")]
)
def test_endless_recursion_is_a_stack_overflow(host: GuestProcess, guest: str) -> None:
    outcome = host.run(guest)

    assert (outcome.code, outcome.trap) == ("stack_overflow", "call_stack_exhausted")
    assert outcome.backtrace is not None and "deeper" in outcome.backtrace


# --- traps --------------------------------------------------------------------------------------------


def test_a_trap_has_a_name_and_a_backtrace(host: GuestProcess) -> None:
    outcome = host.run(wat.DIVIDE)

    assert (outcome.code, outcome.trap) == ("trap", "integer_divide_by_zero")
    assert outcome.backtrace is not None
    first, second = outcome.backtrace.splitlines()
    assert first.startswith("0: quotient at 0x") and second.startswith("1: outer at 0x")


@pytest.mark.parametrize(
    ("body", "trap"),
    [
        ("unreachable", "unreachable"),
        ("(drop (i32.load (i32.const 999999)))", "out_of_bounds_memory_access"),
        ("(call_indirect (i32.const 0))", "uninitialized_element"),
        ("(call_indirect (i32.const 9))", "undefined_element_out_of_bounds_table_access"),
        ("(drop (i32.trunc_f64_s (f64.const nan)))", "invalid_conversion_to_integer"),
    ],
)
def test_every_trap_is_named_as_wasmtime_names_it(host: GuestProcess, body: str, trap: str) -> None:
    outcome = host.run(f'(module (memory 1) (table 1 funcref) (func (export "_start") {body}))')

    assert (outcome.code, outcome.trap) == ("trap", trap)


def test_a_component_traps_as_a_module_does(host: GuestProcess) -> None:
    outcome = host.run(wat.command_component("unreachable"))

    assert (outcome.code, outcome.trap) == ("trap", "unreachable")
    assert outcome.backtrace is not None and outcome.backtrace.startswith("0: m!")


def test_a_long_backtrace_is_cut(host: GuestProcess) -> None:
    name = "long" * 400
    outcome = host.run(
        f"(module (func ${name} (param i32) (if (local.get 0) (then (call ${name} (i32.sub (local.get 0)"
        f' (i32.const 1)))) (else unreachable))) (func (export "_start") (call ${name} (i32.const 90))))'
    )

    assert outcome.backtrace is not None and len(outcome.backtrace.encode()) <= 8192


def test_a_guest_cannot_pass_a_trap_of_its_own_off_as_a_deadline(host: GuestProcess) -> None:
    name = "x\\0a\\0aCaused by:\\0a    wasm trap: interrupt"
    guest = f'(module (import "env" "{name}" (func $f)) (func (export "_start") (call $f)))'

    assert host.run(guest, unknown_imports="trap").code in {"trap", "unknown_import_called"}
