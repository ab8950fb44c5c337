"""Winch first, Cranelift when it is worth it: with real compilers, and the same results from both."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minilambda import Client, RunResult
from minilambda.worker import toolchain
from tests import wat
from tests.cluster import Cluster, running_cluster, wait_for
from tests.integration.guests import HELLO, LOOP, slow_to_compile

pytestmark = pytest.mark.skipif("winch" not in toolchain.COMPILERS, reason="this wasmtime has no baseline compiler")

ONE_SLOT = ("--slots", "1")
TAIL_CALLS = wat.wasm('(module (func $last) (func (export "_start") (return_call $last)))')
"""A command that Winch refuses."""

LOCALS = 200
DEEP = wat.wasm(
    f"""(module (func $f (export "deeper") (param i32) (result i32) (local {"i64 " * LOCALS})
      {"".join(f"(local.set {n} (i64.extend_i32_s (local.get 0)))" for n in range(1, LOCALS + 1))}
      (if (result i32) (local.get 0)
        (then (i32.add (call $f (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
        (else (i32.const 0)))))"""
)
"""A function that calls itself as often as it is told, with many variables that only Winch keeps in each frame."""


def artifacts(cluster: Cluster, compiler: str) -> list[Path]:
    return sorted((cluster.folder / "cache" / toolchain.fingerprint(compiler)).glob("*.artifact"))


def improved(client: Client, wasm: bytes) -> RunResult:
    """The first result of a module that Cranelift's code gave."""
    return wait_for(
        lambda: (found := client.run(wasm)).usage.compiler == "cranelift" and found, "Cranelift's code runs"
    )


def test_a_new_module_runs_on_winch_and_then_on_cranelift_in_the_same_runner(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=[ONE_SLOT]) as cluster, cluster.connect() as client:
        # given
        (runner,) = cluster.service("worker-1").pids("ml-runner")
        # when
        first = client.run(HELLO)
        later = improved(client, HELLO)
        # then
        assert (first.tier, first.usage.compiler, first.stdout) == ("compiled", "winch", b"hello\n")
        assert (later.stdout, later.usage.compile_ms) == (b"hello\n", 0.0)
        assert client.run(HELLO).tier == "warm"
        assert cluster.service("worker-1").pids("ml-runner") == [runner]


def test_an_idle_worker_makes_better_artifacts_and_another_worker_finds_the_best_there_is(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=[ONE_SLOT]) as cluster, cluster.connect() as client:
        # given
        assert client.run(HELLO).usage.compiler == "winch"
        wait_for(lambda: artifacts(cluster, "cranelift") and artifacts(cluster, "winch"), "both artifacts are stored")
        cluster.retire(cluster.service("worker-1"))
        # when / then
        cluster.start_worker(*ONE_SLOT)
        found = client.run(HELLO)
        assert (found.tier, found.usage.compiler) == ("disk", "cranelift")
        cluster.retire(cluster.service("worker-2"))
        # and where only Winch's is left
        shutil.rmtree(artifacts(cluster, "cranelift")[0].parent)
        cluster.start_worker(*ONE_SLOT)
        found = client.run(HELLO)
        assert (found.tier, found.usage.compiler) == ("disk", "winch")
        assert improved(client, HELLO).stdout == b"hello\n"


def test_what_winch_refuses_runs_on_cranelift_at_once_and_nonsense_has_cranelifts_reason(tmp_path: Path) -> None:
    with running_cluster(tmp_path, workers=[ONE_SLOT]) as cluster, cluster.connect() as client:
        found = client.run(TAIL_CALLS)
        assert (found.state, found.tier, found.usage.compiler) == ("completed", "compiled", "cranelift")
        broken = client.run(HELLO + b"\xff", check=False)
        assert broken.error is not None and broken.error.code == "invalid_module"
        assert "Winch" not in broken.error.message
        assert (broken.usage.compiler, broken.tier) == ("", "")


def test_a_recursion_too_deep_for_winch_completes_as_it_does_under_cranelift(tmp_path: Path) -> None:
    found = {}
    for compiler in ("winch", "cranelift", "tiered"):
        options = [*ONE_SLOT, "--compiler", compiler]
        with running_cluster(tmp_path / compiler, workers=[options]) as cluster, cluster.connect() as client:
            deep = client.run(DEEP, ["9000"], invoke="deeper", check=False)
            endless = client.run(wat.wasm(wat.RECURSE), check=False)
            assert endless.error is not None and endless.error.code == "stack_overflow"
            found[compiler] = (deep.error.code if deep.error else None, deep.value, deep.usage.compiler)
    assert found["winch"] == ("stack_overflow", None, "winch")
    assert found["cranelift"] == found["tiered"] == (None, 9000, "cranelift")


def test_a_first_compilation_does_not_wait_for_one_in_the_background(tmp_path: Path) -> None:
    # given a worker that compiles a large module in the background
    with running_cluster(tmp_path, workers=[ONE_SLOT]) as cluster, cluster.connect() as client:
        large = slow_to_compile(300)
        for _ in range(2):
            assert client.run(large).usage.compiler == "winch"
        # when / then
        assert client.run(HELLO).usage.compiler == "winch"
        assert client.run(large).usage.compiler == "winch", "the other is still at it"


@pytest.fixture(scope="module", params=["winch", "cranelift"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a worker with one compiler."""
    options = [*ONE_SLOT, "--compiler", request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with running_cluster(folder, workers=[options]) as cluster, cluster.connect() as connected:
        yield connected


def code_of(client: Client, wasm: bytes, **options: Any) -> str | None:
    """The code of the failure that a run must end with."""
    error = client.run(wasm, check=False, **options).error
    return error.code if error else None


def test_both_compilers_hold_the_deadline(client: Client) -> None:
    assert code_of(client, LOOP, timeout=0.1) == "deadline_exceeded"
    assert code_of(client, wat.wasm(wat.SLEEP), timeout=0.1) == "deadline_exceeded"


def test_both_compilers_hold_the_limits_of_memory_and_output(client: Client) -> None:
    grow = wat.wasm('(module (memory 1) (func (export "f") (param i32) (result i32) (memory.grow (local.get 0))))')
    assert client.run(grow, ["100"], invoke="f", memory="16M").value == 1
    assert client.run(grow, ["1000"], invoke="f", memory="16M").value == -1
    assert code_of(client, wat.wasm('(module (memory 300) (func (export "_start")))'), memory="16M") == "out_of_memory"
    assert code_of(client, HELLO, output_limit=3) == "output_limit"


def test_both_compilers_tell_traps_alike(client: Client) -> None:
    for body, trap in (
        ("unreachable", "unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer_divide_by_zero"),
        ("(drop (i32.load (i32.const -8)))", "out_of_bounds_memory_access"),
        ("(call_indirect (i32.const 0))", "uninitialized_element"),
    ):
        guest = wat.wasm(f'(module (memory 1) (table 1 funcref) (func $f (export "_start") {body}))')
        error = client.run(guest, check=False).error
        assert error is not None and (error.code, error.trap) == ("trap", trap), error
        assert error.backtrace is not None and error.backtrace.startswith("0: f")


def test_both_compilers_run_components(client: Client) -> None:
    found = client.run(wat.wasm(wat.command_component("(i32.const 1)")))
    assert (found.state, found.exit_code) == ("completed", 1)


def test_a_guest_that_uses_up_its_stack_is_told_so_where_the_worker_was_started_with_a_small_one(
    tmp_path: Path,
) -> None:
    # given
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (2 << 20, hard))
    try:
        options = [*ONE_SLOT, "--compiler", "winch"]
        with running_cluster(tmp_path, workers=[options]) as cluster, cluster.connect() as client:
            # when / then
            assert code_of(client, wat.wasm(wat.RECURSE)) == "stack_overflow"
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
