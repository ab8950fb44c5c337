"""Of one job nothing reaches the next, and nothing that came over the network is taken for compiled code."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import minilambda.worker
from tests import wat
from tests.integration.agents import Agent, running_agent

SECRET = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4) (global $g (mut i64) (i64.const 0)) (table 8 funcref)
  (func (export "_start")
    (memory.fill (i32.const 0) (i32.const 0x5a) (i32.const 0x40000))
    (global.set $g (i64.const 0x5a5a))
    (table.set (i32.const 3) (ref.func 1)))
  (elem declare func 1))"""

LOOK = """(module
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $stat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 4) (global $g (mut i64) (i64.const 0)) (table 8 funcref)
  (func (export "_start") (local $at i32)
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 0x40000))))
    (if (i64.ne (global.get $g) (i64.const 0)) (then unreachable))
    (if (i32.eqz (ref.is_null (table.get (i32.const 3)))) (then unreachable))
    (drop (call $environ (i32.const 0) (i32.const 4)))
    (if (i32.load (i32.const 0)) (then unreachable))
    (drop (call $args (i32.const 0) (i32.const 4)))
    (if (i32.ne (i32.load (i32.const 0)) (i32.const 1)) (then unreachable))
    (local.set $at (i32.const 3))
    (loop $next
      (if (i32.ne (call $stat (local.get $at) (i32.const 0)) (i32.const 8)) (then unreachable))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 64))))
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 64))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
    (if (i32.load (i32.const 8)) (then unreachable))))"""
"""A guest that fails if it finds memory, a global, a table, arguments, environment, descriptors or input of another."""


@pytest.fixture
def agent() -> Iterator[Agent]:
    with running_agent() as made:
        yield made


def test_of_one_job_nothing_reaches_the_next(agent: Agent) -> None:
    # given
    agent.start(0)
    for _ in range(3):
        secret = agent.run(0, SECRET, args=("hunter2",), env=(("SECRET", "hunter2"),), stdin=b"hunter2" * 1000)
        assert secret.outcome.code is None, secret
        # when
        looked = agent.run(0, LOOK)
        # then
        assert (looked.outcome.code, looked.outcome.stdout, looked.outcome.stderr) == (None, b"", b""), looked


def test_the_look_finds_what_there_is(agent: Agent) -> None:
    agent.start(0)
    for fields in ({"env": (("A", "b"),)}, {"args": ("a",)}, {"stdin": b"x"}):
        assert agent.run(0, LOOK, **fields).outcome.code == "trap"


def test_compiled_code_that_is_sent_as_a_module_is_refused(agent: Agent) -> None:
    # given
    agent.start(0)
    made = agent.compile(wat.HELLO)
    fd = agent.processes.take_artifact(made.digest, made.compiler)
    artifact = os.pread(fd, os.fstat(fd).st_size, 0)
    os.close(fd)
    # when
    refused = agent.compile(artifact)
    # then
    assert refused.code == "invalid_module"
    assert "7f 45 4c 46" in refused.message


def test_compiled_code_is_loaded_in_two_places_and_from_files_only() -> None:
    used = [
        (path.name, name)
        for path in sorted(Path(minilambda.worker.__path__[0]).parent.rglob("*.py"))
        for name in re.findall(r"\.(deserialize\w*)\(", path.read_text(encoding="utf-8"))
    ]
    assert used == [("toolchain.py", "deserialize_file")] * 2
