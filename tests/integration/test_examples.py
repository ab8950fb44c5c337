"""The examples are what their sources say, and do what they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from tests.cluster import ROOT, Cluster

EXAMPLES = ROOT / "examples"
SOURCES = sorted(EXAMPLES.rglob("*.wat"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_an_example_is_built_from_the_source_beside_it(source: Path) -> None:
    built = bytes(wasmtime.wat2wasm(source.read_text(encoding="utf-8")))
    assert source.with_suffix(".wasm").read_bytes() == built, "run examples/build.py"


def test_every_wasm_has_its_source() -> None:
    assert sorted(path.with_suffix(".wat") for path in EXAMPLES.rglob("*.wasm")) == SOURCES


def test_hello_and_upper_write_what_they_say(cluster: Cluster) -> None:
    assert cluster.run(EXAMPLES / "hello.wasm").stdout == b"Hello, WebAssembly\n"
    text = b"many words " * 10_000
    assert cluster.run(EXAMPLES / "upper.wasm", stdin=text).stdout == text.upper()


@pytest.mark.parametrize(
    ("wasm", "function", "args", "value"),
    [
        ("primes.wasm", "fib", ["90"], 2880067194370816120),
        ("primes.wasm", "is_prime", ["2147483647"], 1),
        ("primes.wasm", "count_primes", ["1000"], 168),
        ("adder.wasm", "add", ["2", "-3"], -1),
        ("adder.wasm", "greet", ["Wörld"], "Hello, Wörld"),
    ],
)
def test_functions_give_their_values(
    cluster: Cluster, wasm: str, function: str, args: list[str], value: object
) -> None:
    assert cluster.run_json(EXAMPLES / wasm, *args, options=("--invoke", function))["value"] == value


@pytest.mark.parametrize(
    ("guest", "code", "status"),
    [
        ("loop", "deadline_exceeded", 124),
        ("sleep", "deadline_exceeded", 124),
        ("huge", "out_of_memory", 137),
        ("balloon", "trap", 134),
        ("flood", "output_limit", None),
        ("divide", "trap", 134),
        ("recurse", "stack_overflow", 134),
        ("network", "unknown_import", 126),
    ],
)
def test_a_hostile_guest_ends_with_its_code(cluster: Cluster, guest: str, code: str, status: int | None) -> None:
    ended = cluster.run(EXAMPLES / "hostile" / f"{guest}.wasm", options=("--json", "--timeout", "1"))
    assert ended.json["error"]["code"] == code, ended.json
    assert ended.code == status or (status is None and ended.code >= 124)
    assert cluster.run(EXAMPLES / "hello.wasm").code == 0


def test_the_demo_succeeds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "demo.py")]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, env=env, timeout=50, check=False)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert done.stderr == b""
    assert b"Hello, WebAssembly" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "demo.py")]
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as demo:
        assert demo.stdout is not None
        assert b"A broker on" in demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=50)
        assert demo.returncode == 130
    assert list(tmp_path.iterdir()) == []
