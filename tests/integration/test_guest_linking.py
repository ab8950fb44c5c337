"""What a guest may import and what can be asked of it, and that nothing is left for the next one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import wat
from tests.guest_process import MIB, GuestProcess, HostError, order_for


@pytest.fixture(scope="module")
def host() -> Iterator[GuestProcess]:
    process = GuestProcess()
    yield process
    process.close()


# --- imports ------------------------------------------------------------------------------------------


def test_an_unknown_import_is_named_with_its_type(host: GuestProcess) -> None:
    core = host.run(wat.MISSING)
    component = host.run(wat.MISSING_COMPONENT, invoke="idle")

    assert core.code == component.code == "unknown_import"
    assert "env.callback (func(i32, i64) -> (f32))" in core.message
    assert "wasi_snapshot_preview1" in core.message
    assert "test:pkg/host@1.0.0 (instance with callback)" in component.message
    assert "WASI 0.2" in component.message


def test_an_unknown_import_that_is_not_called_may_trap_instead(host: GuestProcess) -> None:
    assert host.run(wat.MISSING, unknown_imports="trap").exit_code == 0
    assert host.run(wat.MISSING_COMPONENT, unknown_imports="trap", invoke="idle").code is None
    # and the leave is for that job only
    assert host.run(wat.MISSING).code == "unknown_import"
    assert host.run(wat.MISSING_COMPONENT, invoke="idle").code == "unknown_import"


def test_an_unknown_import_that_is_called_is_named(host: GuestProcess) -> None:
    core = host.run(wat.MISSING, unknown_imports="trap", invoke="call")
    component = host.run(wat.MISSING_COMPONENT, unknown_imports="trap", invoke="call")

    assert core.code == component.code == "unknown_import_called"
    assert "env::callback" in core.message
    assert "test:pkg/host@1.0.0#callback" in component.message


@pytest.mark.parametrize("kind", ["memory 1", "global i32", "table 1 funcref"])
@pytest.mark.parametrize("mode", ["error", "trap"])
def test_only_functions_can_be_left_to_trap(host: GuestProcess, kind: str, mode: str) -> None:
    outcome = host.run(f'(module (import "env" "it" ({kind})) (func (export "_start")))', unknown_imports=mode)

    assert outcome.code == "unknown_import"
    assert f"env.it ({kind.split(maxsplit=1)[0]})" in outcome.message


def test_an_import_of_another_type_is_an_unknown_import(host: GuestProcess) -> None:
    outcome = host.run(
        '(module (import "wasi_snapshot_preview1" "fd_write" (func (param i64))) (func (export "_start")))'
    )

    assert outcome.code == "unknown_import"
    assert "another type" in outcome.message and "fd_write" in outcome.message


def test_a_list_of_missing_imports_is_bounded(host: GuestProcess) -> None:
    imports = " ".join(f'(import "env" "{"name" * 20}{i}" (func))' for i in range(500))
    outcome = host.run(f'(module {imports} (func (export "_start")))')

    assert outcome.code == "unknown_import"
    assert "and 488 more" in outcome.message and len(outcome.message) < 4000


# --- exports ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guest", "invoke", "wanted", "there"),
    [
        (wat.ADD, "sub", "'sub'", "add"),
        (wat.ADD, None, "_start", "add"),
        (wat.add_component(), "mul", "'mul'", "add, test:pkg/math@1.0.0#sub"),
        (wat.add_component(), "no:such/face#sub", "'no:such/face#sub'", "test:pkg/math@1.0.0#sub"),
        (wat.add_component(), None, "wasi:cli/run@0.2", "add"),
        ('(module (memory (export "memory") 1))', "memory", "'memory'", "no function"),
    ],
)
def test_a_missing_export_is_named_and_so_is_what_is_there(
    host: GuestProcess, guest: str, invoke: str | None, wanted: str, there: str
) -> None:
    outcome = host.run(guest, invoke=invoke)

    assert outcome.code == "unknown_export"
    assert wanted in outcome.message and there in outcome.message


def test_a_start_that_takes_something_is_no_command(host: GuestProcess) -> None:
    assert host.run('(module (func (export "_start") (param i32)))').code == "unknown_export"


# --- the next guest -----------------------------------------------------------------------------------

COUNTER = """(module (memory (export "memory") 1)
  (func (export "count") (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (i32.load (i32.const 0))))"""


@pytest.mark.parametrize(
    ("guest", "fields"),
    [
        (wat.HELLO, {}),
        (wat.LOOP, {"timeout_ms": 30}),
        (wat.GROW, {"memory_bytes": 4 * MIB}),
        (wat.FLOOD, {"output_bytes": 1000}),
        (wat.RECURSE, {}),
        (wat.DIVIDE, {}),
        (wat.printing("bye", exit_code=200), {}),
        (wat.MISSING, {}),
        (wat.MISSING, {"unknown_imports": "trap", "invoke": "call"}),
        (wat.ADD, {"invoke": "add", "args": ("1",)}),
        (wat.exiting_component(7), {"invoke": "leave"}),
    ],
)
def test_nothing_is_left_for_the_next_guest(host: GuestProcess, guest: str, fields: dict[str, object]) -> None:
    host.run(guest, **fields)

    after = host.run(COUNTER, invoke="count")

    assert (after.code, after.value, after.stdout, after.stderr) == (None, b"\x01", b"", b"")
    assert host.run(wat.HELLO).stdout == b"hello\n"


def test_a_module_must_be_held_or_given(host: GuestProcess) -> None:
    with pytest.raises(HostError, match=r"BadArtifact.*does not hold"):
        host.send(order_for("sha256:none", component=False, load=False), None)
    with pytest.raises(HostError, match=r"BadArtifact.*does not load"):
        host.send(order_for("sha256:bad", component=False), b"not an artifact")
    assert host.run(wat.HELLO).stdout == b"hello\n"


def test_an_evicted_module_is_gone(host: GuestProcess) -> None:
    host.run(wat.EMPTY)
    gone = order_for("sha256:none", component=False, load=False, evict=("sha256:none",))
    with pytest.raises(HostError, match="does not hold"):
        host.send(gone, None)


def test_the_baseline_compiler_runs_guests_too() -> None:
    from minilambda.worker.toolchain import COMPILERS

    if "winch" not in COMPILERS:
        pytest.skip("this wasmtime has no baseline compiler")
    process = GuestProcess("winch")
    try:
        assert process.run(wat.HELLO).stdout == b"hello\n"
        assert process.run(wat.LOOP, timeout_ms=50).code == "deadline_exceeded"
        assert process.run(wat.command_component("(i32.const 1)")).exit_code == 1
    finally:
        process.close()


def test_an_order_that_cannot_be_carried_out_fails_alone(host: GuestProcess) -> None:
    outcome = host.run(wat.ARGS, args=("\ud800",))

    assert (outcome.code, outcome.stdout) == ("internal", b"")
    assert host.run(wat.HELLO).stdout == b"hello\n"
