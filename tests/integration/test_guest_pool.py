"""What one guest leaves behind where the next one runs: nothing but room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pytest

from minilambda.worker.places import make_places
from minilambda.worker.rehearsal import rehearse
from tests import wat
from tests.guest_process import MIB, GuestProcess
from tests.integration.agents import Agent, running_agent

SCRIBBLE = """(module (memory (export "memory") 2)
  (func (export "_start") (drop (memory.grow (i32.const 30)))
    (memory.fill (i32.const 0) (i32.const 170) (i32.const 2097152))))"""
"""Fills 2 MiB, all that it has, with a byte that is not zero."""

SUM = """(module (memory (export "memory") 1) (data (i32.const 5000) "\\07") (func (export "sum") (result i64)
    (local $at i32) (local $sum i64)
    (drop (memory.grow (i32.const 31)))
    (loop $more
      (local.set $sum (i64.add (local.get $sum) (i64.load8_u (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $at) (i32.const 2097152))))
    (i64.store (i32.const 65000) (i64.const 9))
    (local.get $sum)))"""
"""Adds up all bytes of 2 MiB, of which its module sets one to 7, and spoils one."""

FILL = """(module (memory (export "memory") 1) (func (export "pages") (result i32)
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (memory.size)))"""
"""Takes one page after the other until there are no more."""

FILL_TWO = """(module (memory $a 1) (memory $b 1) (func (export "pages") (result i32)
    (loop $more (br_if $more (i32.ne (memory.grow $a (i32.const 1)) (i32.const -1))))
    (loop $more (br_if $more (i32.ne (memory.grow $b (i32.const 1)) (i32.const -1))))
    (i32.add (memory.size $a) (memory.size $b))))"""
"""The same with two memories, and shows none."""

TABLE = """(module (memory (export "memory") 1) (table $t 1 funcref) (func $f)
  (elem declare func $f)
  (func (export "filled") (result i32) (local $at i32) (local $filled i32)
    (drop (table.grow $t (ref.null func) (i32.const 999)))
    (loop $more
      (local.set $filled (i32.add (local.get $filled) (i32.eqz (ref.is_null (table.get $t (local.get $at))))))
      (table.set $t (local.get $at) (ref.func $f))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $at) (i32.const 1000))))
    (local.get $filled)))"""
"""Counts what is set in its table before it sets all of it."""


@pytest.fixture(params=["cranelift", "winch"])
def host(request: pytest.FixtureRequest) -> Iterator[GuestProcess]:
    process = GuestProcess(request.param)
    yield process
    process.close()


@pytest.fixture
def agent() -> Iterator[Agent]:
    with running_agent() as made:
        yield made


def value(host: GuestProcess, guest: str, invoke: str, megabytes: int = 64) -> int:
    outcome = host.run(guest, invoke=invoke, memory_bytes=megabytes * MIB)
    assert outcome.value is not None, outcome
    answer: int = msgpack.unpackb(outcome.value)
    return answer


def test_the_memory_of_one_guest_is_wiped_before_the_next(host: GuestProcess) -> None:
    assert host.run(SCRIBBLE).code is None
    assert value(host, SUM, "sum") == 7
    assert value(host, SUM, "sum") == 7
    assert host.run(SCRIBBLE).code is None
    assert value(host, SUM, "sum") == 7


def test_a_table_starts_as_its_module_says(host: GuestProcess) -> None:
    assert [value(host, TABLE, "filled") for _ in range(3)] == [0, 0, 0]


def test_memory_that_the_pool_still_holds_is_charged_to_nobody(host: GuestProcess) -> None:
    # when: guests in the pool and outside, large ones and small ones, by turns
    for _ in range(2):
        pooled, outside = value(host, FILL, "pages"), value(host, FILL_TWO, "pages")
        small = value(host, FILL, "pages", megabytes=2)
        # then: each had all of its limit, and hardly more
        assert (pooled, small) == (64 * 16, 2 * 16)
        assert 64 * 16 - 1 <= outside <= (64 + 4) * 16


def test_a_large_module_that_does_not_start_takes_nothing_from_the_next(host: GuestProcess) -> None:
    # given: modules of all sizes, some too large for their limit
    large = '(module (memory (export "memory") {}) (func (export "_start") {}))'
    for pages, body in ((1500, "unreachable"), (3000, ""), (0, ""), (2600, ""), (1, "")):
        host.run(large.format(pages, body), memory_bytes=200 * MIB)
        # when
        found = value(host, FILL.replace("1)", f"1) (global i32 (i32.const {pages}))", 1), "pages")
        outside = value(host, FILL_TWO, "pages")
        # then
        assert found == 64 * 16
        assert 64 * 16 - 1 <= outside <= (64 + 4) * 16


def test_a_guest_that_starts_badly_costs_the_next_one_nothing(host: GuestProcess) -> None:
    starts = '(module (memory (export "memory") 600) (func $f unreachable) (start $f) (func (export "_start")))'

    assert host.run(starts).trap == "unreachable"

    assert value(host, FILL, "pages") == 64 * 16
    assert value(host, FILL_TWO, "pages") >= 64 * 16 - 1


@pytest.mark.parametrize(
    "body",
    [
        "(memory 1)",
        '(memory (export "memory") 1) (memory 1)',
        '(memory (export "memory") i64 1)',
        '(memory (export "memory") 0)',
        '(memory (export "memory") 1) (table 1 funcref) (table 1 funcref)',
        '(memory (export "memory") 1) (table 900000 funcref)',
    ],
)
def test_a_module_of_another_make_runs_all_the_same(host: GuestProcess, body: str) -> None:
    outcome = host.run(f'(module {body} (func (export "_start")))')

    assert (outcome.code, outcome.exit_code) == (None, 0)


COLLECTS = """(module (memory (export "memory") 1) (type $n (struct (field i64)))
      (func (export "get") (result i64) (struct.get $n 0 (struct.new $n (i64.const 5)))))"""
"""Needs a heap, which the pool does not have."""


@pytest.mark.parametrize("first", ["get", "nothing"])
def test_garbage_collection_finds_its_place(first: str) -> None:
    host = GuestProcess("cranelift")
    try:
        # given: a first run that needs the place, or that fails before it does
        found = host.run(COLLECTS, invoke=first)
        assert found.code == ("unknown_export" if first == "nothing" else None)
        # then
        assert [value(host, COLLECTS, "get") for _ in range(2)] == [5, 5]
    finally:
        host.close()


def test_a_guest_that_fails_as_it_starts_runs_once(host: GuestProcess) -> None:
    says = """(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "\\08\\00\\00\\00\\05\\00\\00\\00once\\n")
      (func $f (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))) unreachable)
      (start $f) (func (export "_start")))"""

    outcome = host.run(says)

    assert (outcome.trap, outcome.stdout) == ("unreachable", b"once\n")


@pytest.mark.parametrize("standard", [True, False], ids=["standard streams", "files"])
def test_output_that_did_not_fit_never_shows_up_later(standard: bool) -> None:
    host = GuestProcess(standard=standard)
    try:
        for text in ("no line ends here", "one line\nand another"):
            cut = host.run(wat.printing(text), output_bytes=5)
            assert (cut.code, cut.stdout) == ("output_limit", text.encode()[:5])
            assert [host.run(wat.HELLO).stdout for _ in range(2)] == [b"hello\n"] * 2
            assert host.run(wat.printing("oops", stream=2)).stderr == b"oops"
    finally:
        host.close()


def test_places_and_the_template_make_no_thread(agent: Agent) -> None:
    # given: threads would not survive the fork
    before = set(os.listdir("/proc/self/task"))
    # when
    make_places(("cranelift", "winch"))
    agent.start(0, 1)
    agent.run(0, wat.HELLO)
    # then
    assert set(os.listdir("/proc/self/task")) <= before
    assert agent.processes._template is not None
    assert len(os.listdir(f"/proc/{agent.processes._template.pid}/task")) == 1


def test_the_rehearsal_takes_every_job_to_its_end_and_leaves_nothing() -> None:
    rehearse()
    before = sorted(Path("/proc/self/fd").iterdir())

    assert rehearse() == 12

    assert sorted(Path("/proc/self/fd").iterdir()) == before
