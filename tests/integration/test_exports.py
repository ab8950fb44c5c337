"""What is found out of a module's exports, by the short way and by wasmtime's public interface."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import wasmtime

from minilambda.worker import engine, exports

ALL = """(module
  (memory (export "memory") 1) (memory (export "large") i64 1) (table (export "table") 1 funcref)
  (global (export "global") i32 (i32.const 1)) (tag (export "tag"))
  (func (export "_start")) (func (export "größe") (param i32)) (func (export "answer") (result i64) (i64.const 42))
  (func (export "")))"""

WAYS = [exports._publicly, *([exports._short] if engine.SHORT else [])]


@pytest.fixture(scope="module")
def owner() -> wasmtime.Engine:
    return wasmtime.Engine()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_functions_and_memories_are_found_by_name(
    owner: wasmtime.Engine, way: Callable[[wasmtime.Module], exports.Exports]
) -> None:
    found = way(wasmtime.Module(owner, ALL))

    assert list(found.functions.items()) == [("_start", True), ("größe", False), ("answer", False), ("", True)]
    assert list(found.memories.items()) == [("memory", False), ("large", True)]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_module_without_exports_has_none(
    owner: wasmtime.Engine, way: Callable[[wasmtime.Module], exports.Exports]
) -> None:
    assert way(wasmtime.Module(owner, "(module)")) == ({}, {})


def test_the_type_of_a_function_is_found_among_others_of_its_kind(owner: wasmtime.Engine) -> None:
    type_ = exports.type_of(wasmtime.Module(owner, ALL), "answer")

    assert [str(each) for each in type_.results] == ["i64"]
