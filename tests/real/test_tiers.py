"""Real guests give the same results, whichever compiler made their code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, running_cluster

PYTHON = r"""
import hashlib, json, math, re, struct, zlib
floats = [math.sin(n) * math.exp(n / 7) for n in range(200)] + [float("inf"), -0.0, 5e-324]
data = b"".join(struct.pack("<d", x) for x in floats)
print(hashlib.sha256(data).hexdigest(), zlib.crc32(data), math.fsum(floats[:200]), round(2.675, 2))
print(json.dumps({str(n): n**n for n in range(30)}), re.findall(r"(\w)\1", "committee success"))
print(sorted((3 * n % 17, n) for n in range(40)), [divmod(-7, n) for n in (2, -3, 5)], 7.0 // -2, -7 % 3.5)
def deep(n):
    return 0 if n == 0 else 1 + deep(n - 1)
print(deep(900))
try:
    deep(10**6)
except RecursionError as error:
    print(error)
nested = eval("[" * 90 + "]" * 90)
print(json.dumps(nested))
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Cluster]]:
    """A cluster whose worker has Winch only, and one whose worker has Cranelift only."""
    options = [("--slots", "1", "--compiler", compiler) for compiler in ("winch", "cranelift")]
    first, second = (tmp_path_factory.mktemp(words[-1]) for words in options)
    with (
        running_cluster(first, workers=options[:1]) as winch,
        running_cluster(second, workers=options[1:]) as cranelift,
    ):
        yield [winch, cranelift]


def same(both: list[Cluster], wasm: Path, *args: str, **how: Any) -> dict[str, Any]:
    """What a run gave under both, which must be the same but for times, memory, and offsets within functions."""
    found = []
    for cluster, compiler in zip(both, ("winch", "cranelift"), strict=True):
        result = cluster.run_json(wasm, *args, **how)
        assert result["usage"]["compiler"] == compiler
        if result["error"] and "backtrace" in result["error"]:
            result["error"]["backtrace"] = re.sub(" at 0x[0-9a-f]+", "", result["error"]["backtrace"])
        found.append({name: result[name] for name in ("state", "exit_code", "error", "stdout", "stderr", "value")})
    assert found[0] == found[1]
    return found[0]


def test_cpython_computes_the_same(both: list[Cluster], python_wasm: Path) -> None:
    found = same(both, python_wasm, stdin=PYTHON.encode())
    assert (found["exit_code"], found["stderr"]) == (0, "")
    assert "900\nmaximum recursion depth exceeded" in found["stdout"]


def test_an_exception_in_cpython_looks_the_same(both: list[Cluster], python_wasm: Path) -> None:
    assert same(both, python_wasm, stdin=b"print('before')\n1 / 0\n")["exit_code"] == 1


@pytest.mark.parametrize("words", [("args", "ü", ""), ("exit", "42"), ("abort",), ("look",)], ids=" ".join)
def test_a_c_program_does_the_same(both: list[Cluster], native_wasm: Path, words: tuple[str, ...]) -> None:
    same(both, native_wasm, *words)


def test_a_component_in_python_does_the_same(both: list[Cluster], component_wasm: Path) -> None:
    assert same(both, component_wasm, stdin="grüße\nworld\n".encode())["stdout"] == "GRÜSSE\nWORLD\n"
    assert same(both, component_wasm, '["a","b"]', '"-"', options=("--invoke", "join"))["value"] == "a-b"
    assert same(both, component_wasm, "fail")["exit_code"] == 1
