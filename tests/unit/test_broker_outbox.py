"""What the broker holds for peers that do not read, on a transport that does as the test wants."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from minilambda.broker import outbox as outbox_module
from minilambda.broker.events import Unreachable
from minilambda.broker.outbox import (
    HURRY,
    LONGEST_STEP,
    MARK,
    MAX_ALL_FLYING,
    MAX_ALL_WAITING,
    MAX_FLYING,
    MAX_WAITING,
    OVERHEAD,
    PATIENCE,
    SHARE,
    Flight,
    Outbox,
    Outcome,
)
from minilambda.messages import Beat, JobList, Message

PIECE = 256 * 1024


class Plane:
    """A message of some frames, of which the transport still has so many bytes."""

    def __init__(self, size: int) -> None:
        self.left = self.still = size

    def look(self) -> int:
        self.left = self.still
        return self.left


class Wire:
    """What a socket does with messages, and an outbox that sends by it. Its clock stands unless told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0  # seconds
        monkeypatch.setattr(outbox_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.outcome = Outcome.SENT
        self.sent: list[tuple[bytes, bytes]] = []  # whom, and the first frame of what
        self.planes: list[tuple[bytes, Plane]] = []
        self.ended: list[bytes] = []
        self.outbox = Outbox(self.put, self.ended.append)
        self.outbox.flush()

    def put(self, frames: list[bytes], track: bool) -> tuple[Outcome, Flight | None]:
        if self.outcome is not Outcome.SENT:
            return self.outcome, None
        self.sent.append((frames[0], frames[2]))
        if not track:
            return Outcome.SENT, None
        plane = Plane(sum(map(len, frames)))
        self.planes.append((frames[0], plane))
        return Outcome.SENT, plane

    def send(self, to: bytes, content: bytes | int, message: Message | None = None) -> None:
        self.outbox.send((to, b""), message or Beat(1), [bytes(content) if isinstance(content, int) else content])

    def count(self, to: bytes) -> int:
        """Messages that the transport was given for a peer."""
        return sum(peer == to for peer, _ in self.sent)

    def land(self, of: bytes) -> None:
        """A peer has read all that was on its way, as often as something is."""
        while any(plane.still for peer, plane in self.planes if peer == of):
            for peer, plane in self.planes:
                plane.still = 0 if peer == of else plane.still
            self.outbox.flush()

    def wait(self, seconds: float) -> None:
        """Let time pass as it does for a broker that runs."""
        for _ in range(round(seconds / LONGEST_STEP) + 1):
            self.now += LONGEST_STEP
            self.outbox.flush()

    def fill(self, peers: range) -> None:
        """Peers that never read get as much as the transport takes of them."""
        for number in peers:
            for _ in range(2 * MAX_FLYING // PIECE):
                self.send(b"lazy%d" % number, PIECE)

    def held(self) -> int:
        """Bytes that the transport has not sent and that are watched."""
        return sum(plane.still for _, plane in self.planes)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


def test_a_peer_that_stops_reading_has_a_bounded_number_of_messages_waiting(wire: Wire) -> None:
    wire.outcome = Outcome.FULL
    for number in range(MAX_WAITING + 10):
        wire.send(b"slow", b"%d" % number, Beat(number))
    assert wire.outbox.dropped() == [
        Unreachable((b"slow", b""), Beat(MAX_WAITING + number), behind=True) for number in range(10)
    ]
    wire.outcome = Outcome.SENT
    wire.send(b"other", b"other")
    wire.outbox.flush()
    assert wire.sent == [(b"other", b"other"), *((b"slow", b"%d" % number) for number in range(MAX_WAITING))]
    wire.land(b"slow")
    assert not wire.outbox.waiting


def test_messages_to_one_peer_keep_their_order(wire: Wire) -> None:
    wire.outcome = Outcome.FULL
    wire.send(b"a", b"1")
    wire.outcome = Outcome.SENT
    wire.send(b"a", b"2")
    assert wire.sent == [(b"a", b"1"), (b"a", b"2")]


def test_a_peer_that_is_gone_is_reported_with_what_it_missed(wire: Wire) -> None:
    wire.outcome = Outcome.GONE
    wire.send(b"a", b"1", Beat(1))
    wire.send(b"a", 2 * MARK, Beat(2))
    assert wire.outbox.dropped() == [Unreachable((b"a", b""), Beat(1)), Unreachable((b"a", b""), Beat(2))]
    assert wire.outbox.dropped() == []
    assert not wire.outbox.waiting


@pytest.mark.parametrize("size", [600, 5_000, 60_000, PIECE, 3 * 2**20])
def test_however_large_its_messages_are_one_peer_that_does_not_read_has_a_bounded_amount(wire: Wire, size: int) -> None:
    for _ in range(30_000 if size < 1000 else 3000):
        wire.send(b"lazy", size)
    assert sum(len(content) + OVERHEAD for _, content in wire.sent) <= MAX_FLYING + MARK + size + OVERHEAD
    assert wire.outbox.lost


def test_a_peer_that_reads_gets_all_of_it_and_is_forgotten(wire: Wire) -> None:
    for number in range(40):
        wire.send(b"a", bytes([number]) * PIECE)
    assert wire.count(b"a") < 40
    wire.land(b"a")
    assert [content[0] for _, content in wire.sent] == list(range(40))
    assert not wire.outbox.waiting


def test_peers_that_stop_reading_share_one_bound_and_leave_a_share_to_each(wire: Wire) -> None:
    # given many peers that have all that may be on its way
    wire.fill(range(64))
    assert wire.held() <= MAX_ALL_FLYING + PIECE + 64 * SHARE
    # when another one comes
    wire.send(b"new", SHARE // 4)
    wire.send(b"new", SHARE // 2)
    wire.send(b"new", SHARE)
    # then it has its share, and the rest as soon as there is room
    assert wire.count(b"new") == 2
    wire.land(b"lazy0")
    assert wire.count(b"new") == 3


def test_what_waits_for_all_peers_is_bounded_and_the_stuck_ones_lose_theirs(wire: Wire) -> None:
    # given peers that never read, for whom all room to wait is taken
    wire.fill(range(16))
    wire.wait(1.0)
    wire.outbox.dropped()
    # when large messages come for one who has just come
    for number in range(20):
        wire.send(b"new", PIECE, Beat(number))
    # then they wait, and others have lost theirs
    lost = wire.outbox.dropped()
    assert lost and all(event.behind and event.route[0] != b"new" for event in lost)
    for _ in range(3 * MAX_ALL_WAITING // PIECE):
        wire.send(b"new", PIECE)
    waiting = [item for each in wire.outbox._connections.values() for item in each.waiting]
    assert sum(size for *_, size in waiting) <= MAX_ALL_WAITING


def test_one_message_that_is_larger_than_all_the_room_waits_where_it_is_alone(wire: Wire) -> None:
    wire.outcome = Outcome.FULL
    wire.send(b"a", MAX_ALL_WAITING + 1)
    assert wire.outbox.dropped() == []


def test_a_list_that_waits_is_kept_once(wire: Wire) -> None:
    wire.outcome = Outcome.FULL
    wire.send(b"a", 100, JobList(7, ({"job": "j"},)))
    wire.outcome = Outcome.GONE
    wire.outbox.flush()
    assert wire.outbox.dropped() == [Unreachable((b"a", b""), JobList(7, ()))]


def test_while_there_is_no_room_peers_that_take_nothing_are_hung_up_on(wire: Wire) -> None:
    # given a crowd that never reads, and one who reads slowly
    wire.send(b"slow", PIECE)
    wire.fill(range(16))
    for _ in range(round(HURRY / LONGEST_STEP) - 2):
        wire.planes[0][1].still -= 1
        wire.wait(0)
    assert wire.ended == []
    # when it is too long
    for _ in range(40):
        wire.planes[0][1].still -= 1
        wire.wait(0)
    # then each of them goes, and nobody else
    assert set(wire.ended) == {b"lazy%d" % number for number in range(16)} & {peer for peer, _ in wire.planes}
    assert b"slow" not in wire.ended


def test_while_there_is_room_for_others_peers_have_longer_to_take_something(wire: Wire) -> None:
    wire.fill(range(3))
    wire.wait(PATIENCE - 1)
    assert wire.ended == []
    wire.wait(2)
    assert set(wire.ended) == {b"lazy0", b"lazy1", b"lazy2"}


def test_a_peer_that_takes_nothing_is_left_alone_while_little_is_on_its_way(wire: Wire) -> None:
    wire.send(b"asleep", PIECE)
    wire.wait(10 * PATIENCE)
    assert wire.ended == []


def test_nobody_is_hung_up_on_because_the_broker_stood_still(wire: Wire) -> None:
    wire.fill(range(16))
    wire.now += 100 * PATIENCE
    wire.outbox.flush()
    assert wire.ended == []


def test_the_connections_that_are_remembered_are_bounded(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MAX_UNWATCHED", 10)
    for number in range(100):
        wire.send(b"%d" % number, 1000)
    assert len(wire.outbox._unwatched) == 10
