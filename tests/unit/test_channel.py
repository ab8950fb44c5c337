"""The channel to a process, and how its messages are read when the process is hostile."""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from minilambda.worker import codec
from minilambda.worker.channel import MAX_PACKET, Channel, ChannelClosed, ChannelError
from minilambda.worker.events import Outcome, RunOrder

ORDER = RunOrder(
    digest="sha256:" + "0" * 64,
    component=True,
    load=False,
    evict=("sha256:" + "1" * 64,),
    args=("a", "ä"),
    env=(("KEY", "value"),),
    invoke="add",
    values=b"\x90",
    stdin=b"\0\xff",
    timeout_ms=1,
    memory_bytes=2,
    output_bytes=3,
    unknown_imports="trap",
)
OUTCOME = Outcome("trap", "It trapped.", None, b"v", b"", b"", "unreachable", "frame", 0.5, 1.5, 2.5, 65536)


class Pair:
    """Two ends of one channel, with a spill; ``far`` is the bare socket of the other end."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        self.spill = os.memfd_create("spill")
        self.near = Channel(near, self.spill)
        self.other = Channel(self.far, self.spill, max_fds=1)

    def close(self) -> None:
        self.near.close()
        self.other.close()
        os.close(self.spill)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_a_message_arrives_as_it_was_sent(pair: Pair) -> None:
    # when
    pair.other.send(b"hello")
    # then
    assert pair.near.receive() == (b"hello", [])


def test_nothing_to_read_is_none(pair: Pair) -> None:
    assert pair.near.receive() is None


@pytest.mark.parametrize("size", [MAX_PACKET - 1, MAX_PACKET, MAX_PACKET + 1, 5 << 20])
def test_messages_of_every_size_arrive_in_both_directions(pair: Pair, size: int) -> None:
    # given
    payload = os.urandom(size)
    for sender, receiver in ((pair.near, pair.other), (pair.other, pair.near)):
        # when
        sender.send(payload)
        # then
        assert receiver.receive(size) == (payload, [])
        assert os.fstat(pair.spill).st_size == 0, "the memory is given back"


def test_whoever_lives_under_a_guests_limits_hears_of_the_spill_before_it_is_used(pair: Pair) -> None:
    # given
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = []

    def lift() -> None:
        heard.append("spill")
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    pair.other.before_spill = lift
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        # when
        pair.other.send(b"small")
        pair.other.send(b"x" * (MAX_PACKET + 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # then
    assert heard == ["spill"]
    assert pair.near.receive() == (b"small", [])
    assert pair.near.receive(1 << 20) == (b"x" * (MAX_PACKET + 1), [])


def test_a_descriptor_travels_beside_a_message(pair: Pair) -> None:
    # given
    reading, writing = os.pipe()
    # when
    pair.near.send(b"take", [writing])
    os.close(writing)
    received = pair.other.receive()
    # then
    assert received is not None
    payload, (fd,) = received
    os.write(fd, b"through")
    os.close(fd)
    assert (payload, os.read(reading, 100)) == (b"take", b"through")
    os.close(reading)


def test_a_descriptor_that_nobody_asked_for_is_dropped(pair: Pair) -> None:
    # given
    before = len(os.listdir("/proc/self/fd"))
    # when
    socket.send_fds(pair.far, [b"\0here"], [0] * 200)
    # then
    assert pair.near.receive() == (b"here", [])
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_end_of_the_other_side_is_told(pair: Pair) -> None:
    # when
    pair.other.close()
    # then
    with pytest.raises(ChannelClosed):
        pair.near.receive()
    with pytest.raises(ChannelClosed):
        pair.near.send(b"x")


def test_a_sender_never_waits_for_a_reader(pair: Pair) -> None:
    with pytest.raises(ChannelError, match="could not be sent"):
        for _ in range(10_000):
            pair.near.send(b"x" * MAX_PACKET)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\2tag",
        b"\1",
        b"\1short",
        b"\1" + struct.pack("<Q", 100),
        b"\1" + struct.pack("<Q", 1 << 63),
        b"\0" + b"x" * (MAX_PACKET + 1),
    ],
    ids=["empty", "unknown tag", "no length", "bad length", "empty spill", "huge spill", "too large"],
)
def test_a_malformed_packet_is_refused(pair: Pair, packet: bytes) -> None:
    # when
    pair.far.send(packet)
    # then
    with pytest.raises(ChannelError):
        pair.near.receive(1 << 20)


def test_an_order_survives_the_way() -> None:
    assert codec.decode_order(codec.unpack(codec.encode_order(ORDER))) == ORDER


def no_output() -> tuple[bytes, bytes]:
    raise AssertionError("the output is in the message")


def test_output_that_is_not_in_the_outcome_is_taken_from_where_it_is() -> None:
    # when
    _kind, fields = codec.unpack_untrusted(codec.encode_outcome(OUTCOME, left_output=True))
    # then
    outcome = codec.decode_outcome(fields, 10, lambda: (b"from the", b"files"))
    assert (outcome.stdout, outcome.stderr) == (b"from the", b"files")


def test_an_outcome_survives_the_way() -> None:
    # when
    kind, fields = codec.unpack_untrusted(codec.encode_outcome(OUTCOME, left_output=False))
    # then
    assert (kind, codec.decode_outcome(fields, 10, no_output)) == ("done", OUTCOME)


def test_long_texts_of_an_honest_runner_are_cut_to_what_the_agent_takes() -> None:
    # given
    long = Outcome("trap", "ä" * 10_000, None, None, b"", b"", "t" * 10_000, "\U0001f600" * 10_000, 0, 0, 0, 0)
    # when
    _kind, fields = codec.unpack_untrusted(codec.encode_outcome(long, left_output=False))
    # then
    assert codec.decode_outcome(fields, 0, no_output).message == "ä" * (codec.MAX_TEXT // 2)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91",
        msgpack.packb({}),
        msgpack.packb([]),
        msgpack.packb([1]),
        msgpack.packb(["done", {"a": 1}]),
        msgpack.packb(["done", msgpack.ExtType(1, b"x")]),
        msgpack.packb(["done", msgpack.Timestamp(1)]),
        msgpack.packb(["done"] * 100),
        b"\x92\xa4done\xa1\xff",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff" * 1000,
        b"\x91\xdb\xff\xff\xff\xff",
    ],
    ids=str,
)
def test_hostile_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(ChannelError):
        codec.unpack_untrusted(payload)


GOOD: list[Any] = ["trap", "", 0, b"", None, None, 0.0, 0, 0.0, 0, b"out", b""]


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, "cancelled"),
        (0, "worker_lost"),
        (0, 5),
        (0, []),
        (1, None),
        (1, b"bytes"),
        (1, "x" * (codec.MAX_TEXT + 1)),
        (2, 1 << 40),
        (2, True),
        (2, 1.0),
        (3, "text"),
        (3, b"x" * 11),
        (4, 1),
        (5, "x" * (codec.MAX_BACKTRACE + 1)),
        (6, float("nan")),
        (6, float("inf")),
        (6, -1.0),
        (7, "1"),
        (8, False),
        (9, -1),
        (9, None),
        (10, b"x" * 11),
        (10, "text"),
        (11, b"x" * 11),
        (11, None),
    ],
)
def test_an_outcome_with_a_field_out_of_range_is_refused(index: int, value: object) -> None:
    # given
    codec.decode_outcome(GOOD, 10, no_output)
    fields = [*GOOD]
    # when
    fields[index] = value
    # then
    with pytest.raises(ChannelError):
        codec.decode_outcome(fields, 10, no_output)


def test_an_outcome_with_too_few_or_too_many_fields_is_refused() -> None:
    for fields in (GOOD[:-1], [*GOOD, 0]):
        with pytest.raises(ChannelError):
            codec.decode_outcome(fields, 10, no_output)
