"""A C program, built by a C compiler for WASI: arguments, exit codes, memory, stack, traps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import Cluster


def test_arguments_arrive_whole(cluster: Cluster, native_wasm: Path) -> None:
    ended = cluster.run(native_wasm, "args", "two words", "ü", "", "--json")
    assert (ended.code, ended.stdout.decode()) == (0, "1: args\n2: two words\n3: ü\n4: \n5: --json\n")


def test_stdin_arrives_whole(cluster: Cluster, native_wasm: Path) -> None:
    numbers = range(100_000)
    ended = cluster.run(native_wasm, "sum", stdin="\n".join(map(str, numbers)).encode())
    assert (ended.code, ended.stdout) == (0, b"%d\n" % sum(numbers))


@pytest.mark.parametrize("code", [0, 1, 42, 125, 126, 127, 200, 255])
def test_exit_codes_are_whole(cluster: Cluster, native_wasm: Path, code: int) -> None:
    assert cluster.run(native_wasm, "exit", str(code)).code == code


def test_malloc_is_refused_at_the_limit_and_the_guest_goes_on(cluster: Cluster, native_wasm: Path) -> None:
    found = {}
    for limit in (32, 128):
        ended = cluster.run(native_wasm, "fill", options=("--memory", f"{limit}M"))
        assert ended.code == 0, ended.stderr
        found[limit] = int(ended.stdout.split()[0])
    assert 0 < found[32] < found[128] <= 128
    assert found[32] <= 32


def test_endless_recursion_is_a_stack_overflow(cluster: Cluster, native_wasm: Path) -> None:
    ended = cluster.run(native_wasm, "recurse", options=("--json",))
    assert (ended.code, ended.json["error"]["code"]) == (134, "stack_overflow")


def test_abort_is_a_trap_with_a_backtrace_that_names_the_functions(cluster: Cluster, native_wasm: Path) -> None:
    ended = cluster.run(native_wasm, "abort", options=("--json",))
    error = ended.json["error"]
    assert (ended.code, error["code"]) == (134, "trap")
    assert "unreachable" in error["message"]
    assert "abort" in str(error)
    assert "main" in str(error)


@pytest.mark.parametrize("how", ["spin", "doze"])
def test_a_deadline_ends_a_loop_and_a_sleep(cluster: Cluster, native_wasm: Path, how: str) -> None:
    ended = cluster.run(native_wasm, how, options=("--json", "--timeout", "0.3"))
    assert (ended.code, ended.json["error"]["code"]) == (124, "deadline_exceeded")
    assert cluster.run(native_wasm, "exit", "3").code == 3


def test_no_file_is_there(cluster: Cluster, native_wasm: Path) -> None:
    assert cluster.run(native_wasm, "look").stdout == b"refused\n"
