"""Large bodies come in pieces, in order, within one window; nothing a holder sends gets past that."""

from __future__ import annotations

import random

from minilambda.fields import MAX_FRAME
from minilambda.transfers import Puller

WINDOW = 4 * MAX_FRAME


def body_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_a_body_is_asked_for_and_put_together_in_order_within_the_window() -> None:
    body = body_of(9 * MAX_FRAME + 1)
    puller = Puller(WINDOW)
    puller.start("a", len(body))
    requests = puller.requests()
    assert [offset for _, offset, _ in requests] == [0, MAX_FRAME, 2 * MAX_FRAME, 3 * MAX_FRAME]
    transfer = None
    while requests:
        handle, offset, size = requests.pop(0)
        transfer = puller.arrived(handle, offset, len(body), body[offset : offset + size])
        requests += puller.requests()
        assert puller.outstanding == sum(size for _, _, size in requests) <= WINDOW
    assert transfer is not None and transfer.complete
    assert b"".join(transfer.pieces) == body
    assert "a" not in puller


def test_several_bodies_share_the_window_first_come_first_asked_for() -> None:
    puller = Puller(WINDOW)
    puller.start("a", 3 * MAX_FRAME)
    puller.start("b", 3 * MAX_FRAME)
    assert [handle for handle, _, _ in puller.requests()] == ["a", "a", "a", "b"]
    puller.stop("a")
    assert [handle for handle, _, _ in puller.requests()] == ["b", "b"]
    assert puller.outstanding == 3 * MAX_FRAME


def test_a_body_that_is_wanted_twice_is_fetched_once() -> None:
    puller = Puller(WINDOW)
    puller.start("a", MAX_FRAME)
    puller.start("a", MAX_FRAME)
    assert len(puller.requests()) == 1


def test_pieces_that_were_not_asked_for_are_ignored() -> None:
    puller = Puller(WINDOW)
    puller.start("a", 2 * MAX_FRAME)
    piece = bytes(MAX_FRAME)
    assert puller.arrived("b", 0, MAX_FRAME, piece) is None
    assert puller.arrived("a", 0, 2 * MAX_FRAME, piece) is None, "nothing was asked for yet"
    puller.requests()
    assert puller.arrived("a", MAX_FRAME, 2 * MAX_FRAME, piece) is None, "out of order"
    assert puller.arrived("a", 0, 2 * MAX_FRAME, piece) is not None
    assert puller.arrived("a", 0, 2 * MAX_FRAME, piece) is None, "it came already"
    assert puller.outstanding == MAX_FRAME


def test_a_holder_that_has_nothing_or_something_else_ends_the_transfer() -> None:
    for offset, total, data in [(0, 0, b""), (0, 11, b"x" * 10), (0, 10, b"x" * 9), (0, 10, b"x" * 11), (0, 10, b"")]:
        puller = Puller(WINDOW)
        puller.start("a", 10)
        puller.requests()
        transfer = puller.arrived("a", offset, total, data)
        assert transfer is not None and transfer.total == -1
        assert "a" not in puller and puller.outstanding == 0


def test_a_new_session_asks_again_for_all_that_is_missing_and_for_nothing_else() -> None:
    puller = Puller(WINDOW)
    puller.start("a", 3 * MAX_FRAME)
    puller.requests()
    puller.arrived("a", 0, 3 * MAX_FRAME, bytes(MAX_FRAME))
    puller.reset()
    assert puller.requests() == [("a", MAX_FRAME, MAX_FRAME), ("a", 2 * MAX_FRAME, MAX_FRAME)]


def test_a_body_of_any_announced_size_is_asked_for_in_bounded_portions() -> None:
    puller = Puller(WINDOW)
    puller.start("a", 2**48)
    assert len(puller.requests()) == 4
    assert puller.requests() == []
