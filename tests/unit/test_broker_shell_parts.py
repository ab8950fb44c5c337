"""The parts of the broker's shell that need no socket: timers and the module spool."""

from __future__ import annotations

import os
import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilambda.broker.events import DropModule, DropUpload, KeepUpload, StoreModule, WritePiece
from minilambda.broker.exposure import is_local
from minilambda.broker.spool import BLOCK, Spool
from minilambda.broker.timers import Timers

# --- timers ------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.one_of(st.none(), st.integers(0, 9))), max_size=60))
def test_timers_are_the_same_as_a_map_of_deadlines(steps: list[tuple[str, int | None]]) -> None:
    timers, literal = Timers(), {}
    for key, when in steps:
        if when is None:
            timers.clear((key,))
            literal.pop((key,), None)
        else:
            timers.set((key,), when)
            literal[key,] = when
        assert timers.next() == min(literal.values(), default=None)
        assert len(timers) == len(literal)
    for now in range(10):
        expected = {key for key, when in literal.items() if when == now}
        assert set(timers.due(now)) == expected


def test_timers_that_are_set_again_and_again_leave_no_memory_behind() -> None:
    timers = Timers()
    for when in range(10_000):
        timers.set(("same",), when)
    assert len(timers._heap) < 100


# --- spool -------------------------------------------------------------------------------------------


@pytest.fixture
def spool() -> Iterator[Spool]:
    made = Spool()
    yield made
    made.close()


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
def test_what_was_stored_is_read_back_from_anywhere(spool: Spool, size: int) -> None:
    data = os.urandom(size)
    spool.do(StoreModule("whole", data))
    for at in range(0, size, 1000):
        spool.do(WritePiece(1, data[at : at + 1000]))
    spool.do(KeepUpload(1, "pieces"))
    for digest in ("whole", "pieces"):
        assert spool.read(digest, 0, size) == data
        assert spool.read(digest, size // 2, 256 * 1024) == data[size // 2 :][: 256 * 1024]
        assert spool.read(digest, size, 10) == b""


def test_dropped_blocks_are_used_again(spool: Spool) -> None:
    for number in range(50):
        spool.do(StoreModule("a", bytes([number]) * (2 * BLOCK)))
        spool.do(WritePiece(number, b"x" * BLOCK))
        assert spool.read("a", BLOCK, 3) == bytes([number]) * 3
        spool.do(DropModule("a"))
        spool.do(DropUpload(number))
    assert os.fstat(spool._file.fileno()).st_size <= 4 * BLOCK
    with pytest.raises(KeyError):
        spool.read("a", 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_that_are_scattered_are_read_back_in_order(spool: Spool, seed: int) -> None:
    chance, kept = random.Random(seed), {}
    for number in range(60):
        data = chance.randbytes(chance.randrange(1, 6 * BLOCK))
        at = chance.randrange(len(data))
        for piece in (data[:at], data[at:]):
            spool.do(WritePiece(number, piece))
        spool.do(KeepUpload(number, str(number)))
        kept[str(number)] = data
        if chance.random() < 0.6:
            gone = chance.choice(sorted(kept))
            spool.do(DropModule(gone))
            del kept[gone]
        if number == 40:
            spool._memory[spool._free[-1] if spool._free else spool._blocks] = bytearray()  # as if the disk refused it
    for digest, data in kept.items():
        begin = chance.randrange(len(data))
        assert spool.read(digest, 0, len(data)) == data
        assert spool.read(digest, begin, 3 * BLOCK) == data[begin : begin + 3 * BLOCK]


def test_the_file_has_no_name(spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = Spool()
    own.do(StoreModule("a", b"x" * BLOCK))
    assert list(tmp_path.iterdir()) == []
    own.close()


def test_what_the_disk_refuses_stays_in_memory(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    spool.do(StoreModule("a", b"a" * 100))
    spool.do(WritePiece(1, b"b" * 100))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK + 100, before[1]))
    try:
        spool.do(WritePiece(1, b"c" * 2 * BLOCK))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    spool.do(KeepUpload(1, "b"))
    assert spool.read("b", 0, 10**6) == b"b" * 100 + b"c" * 2 * BLOCK
    assert spool.read("a", 0, 200) == b"a" * 100
    assert "refuses" in caplog.text


# --- addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp://127.0.0.1:80", True),
        ("tcp://127.9.9.9:80", True),
        ("tcp://localhost:0", True),
        ("tcp://[::1]:80", True),
        ("ipc:///tmp/x", True),
        ("tcp://0.0.0.0:80", False),
        ("tcp://*:80", False),
        ("tcp://[::]:80", False),
        ("tcp://192.168.1.1:80", False),
        ("tcp://eth0:80", False),
        ("tcp://localhost.evil:80", False),
    ],
)
def test_an_address_beyond_this_machine_is_told_from_one_on_it(endpoint: str, local: bool) -> None:
    assert is_local(endpoint) is local
