"""The parts of the broker's shell that need no socket: timers, the module spool, the outbox."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilambda.broker import outbox as outbox_module
from minilambda.broker.events import DropModule, DropUpload, KeepUpload, StoreModule, WritePiece
from minilambda.broker.exposure import is_local
from minilambda.broker.outbox import LARGE, MAX_WAITING, Flight, Outbox, Outcome
from minilambda.broker.spool import BLOCK, Spool
from minilambda.broker.timers import Timers
from minilambda.messages import Beat

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


# --- outbox ------------------------------------------------------------------------------------------


class Wire:
    """What a socket does with messages, as the test wants it."""

    def __init__(self) -> None:
        self.outcome = Outcome.SENT
        self.sent: list[bytes] = []
        self.flights: list[Plane] = []

    def put(self, frames: list[bytes], track: bool) -> tuple[Outcome, Flight | None]:
        if self.outcome is not Outcome.SENT:
            return self.outcome, None
        self.sent.append(frames[-1])
        if not track:
            return Outcome.SENT, None
        self.flights.append(Plane())
        return Outcome.SENT, self.flights[-1]


class Plane:
    done = False


def test_a_peer_that_stops_reading_has_a_bounded_number_of_messages_waiting() -> None:
    wire = Wire()
    outbox = Outbox(wire.put)
    wire.outcome = Outcome.FULL
    for number in range(MAX_WAITING + 10):
        outbox.send((b"slow", b""), Beat(number), [b"%d" % number])
    assert [event.message for event in outbox.dropped()] == [Beat(MAX_WAITING + n) for n in range(10)]
    wire.outcome = Outcome.SENT
    outbox.send((b"other", b""), Beat(0), [b"other"])
    outbox.flush()
    assert wire.sent == [b"other", *(b"%d" % n for n in range(MAX_WAITING))]
    assert not outbox.waiting


def test_messages_to_one_peer_keep_their_order() -> None:
    wire = Wire()
    outbox = Outbox(wire.put)
    wire.outcome = Outcome.FULL
    outbox.send((b"a", b""), Beat(1), [b"1"])
    wire.outcome = Outcome.SENT
    outbox.send((b"a", b""), Beat(2), [b"2"])
    assert wire.sent == [b"1", b"2"]


def test_a_peer_that_is_gone_is_reported_with_what_it_missed() -> None:
    wire = Wire()
    outbox = Outbox(wire.put)
    wire.outcome = Outcome.GONE
    outbox.send((b"a", b""), Beat(1), [b"1"])
    outbox.send((b"a", b""), Beat(2), [bytes(LARGE)])
    assert [event.message for event in outbox.dropped()] == [Beat(1), Beat(2)]
    assert outbox.dropped() == []
    assert not outbox.waiting


def test_large_messages_wait_while_too_many_bytes_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_FLYING", 2 * LARGE)
    wire = Wire()
    outbox = Outbox(wire.put)
    for number in range(5):
        outbox.send((b"a", b""), Beat(number), [bytes([number]) * LARGE])
    assert len(wire.sent) == 2
    outbox.send((b"b", b""), Beat(9), [bytes(LARGE)])
    assert len(wire.sent) == 3
    for flight in wire.flights:
        flight.done = True
    outbox.flush()
    assert len(wire.sent) == 5


def test_peers_that_stop_reading_share_one_bound_and_leave_a_share_to_each(monkeypatch: pytest.MonkeyPatch) -> None:
    # given two peers that have all that may be on its way
    monkeypatch.setattr(outbox_module, "MAX_ALL_FLYING", 4 * LARGE)
    monkeypatch.setattr(outbox_module, "SHARE", LARGE)
    wire = Wire()
    outbox = Outbox(wire.put)
    for number in range(6):
        outbox.send((b"ab"[number % 2 : number % 2 + 1], b""), Beat(number), [bytes(LARGE)])
    assert len(wire.sent) == 4
    # when a third one comes
    for number in range(3):
        outbox.send((b"c", b""), Beat(number), [bytes(LARGE)])
    # then it has its share, and the rest as soon as there is room
    assert len(wire.sent) == 5
    for flight in wire.flights:
        flight.done = True
    outbox.flush()
    assert len(wire.sent) == 9


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
