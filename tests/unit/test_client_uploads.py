"""How a module gets to the broker: along with a job, in pieces, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minilambda.client.calls import PIECE
from minilambda.errors import (
    InputTooLarge,
    ModuleTooLarge,
    NotFound,
    RequestError,
)
from minilambda.messages import (
    Cancel,
    JobResult,
    JobSpec,
    Put,
    Refused,
    Run,
    Stored,
)
from tests.client_talk import DIGEST, LARGE, SMALL, UNKNOWN, Bytes, Talk, greeted, result, run


@pytest.fixture
def talk() -> Talk:
    return greeted()


def answer_pieces(talk: Talk) -> list[tuple[int, int]]:
    """Take each piece that comes, in its order; returns where they began and how large they were."""
    taken, at = [], 0
    while at < len(talk.sent):
        piece, message = talk.sent[at].piece, talk.sent[at].message
        at += 1
        if isinstance(message, Put) and piece is not None:
            assert message.offset == piece.offset
            taken.append((piece.offset, piece.size))
            received = piece.offset + piece.size
            talk.answer(Stored(message.request, DIGEST, received, received == message.size))
    return taken


def test_a_small_module_rides_along_once(talk: Talk) -> None:
    first = talk.start(run("a"), SMALL)
    assert talk.sent[-1].piece == (SMALL, 0, SMALL.size)
    talk.start(run("b"), SMALL)
    assert talk.sent[-1].piece is None
    talk.answer(result(first, "a"))
    talk.start(run("c"), SMALL)
    assert talk.sent[-1].piece is None


def test_a_module_that_the_broker_has_is_run_in_one_round_trip(talk: Talk) -> None:
    number = talk.start(run(), UNKNOWN)
    talk.answer(result(number))
    assert len(talk.sent) == 1
    assert isinstance(talk.ended[number], JobResult)


def test_a_module_that_the_broker_has_forgotten_is_sent_along_again(talk: Talk) -> None:
    talk.answer(result(talk.start(run("a"), SMALL), "a"))
    number = talk.start(run("b"), SMALL)
    assert talk.sent[-1].piece is None
    talk.answer(Refused(number, "not_found", "Send the module."))
    assert talk.sent[-1].piece == (SMALL, 0, SMALL.size)
    talk.answer(result(number, "b"))
    assert isinstance(talk.ended[number], JobResult)


def test_a_large_module_is_asked_for_then_sent_in_pieces_then_run(talk: Talk) -> None:
    number = talk.start(run(), LARGE)
    assert talk.sent[-1].piece is None
    talk.answer(Refused(number, "not_found", "Send the module."))
    put = talk.last()
    assert isinstance(put, Put)
    assert (put.size, talk.sent[-1].piece) == (LARGE.size, None)
    talk.answer(Stored(put.request, DIGEST, 0, False))
    pieces = answer_pieces(talk)
    assert pieces == [(0, PIECE), (PIECE, PIECE), (2 * PIECE, PIECE // 2)]
    assert talk.last().request == number
    talk.answer(result(number))
    assert isinstance(talk.ended[number], JobResult)


def test_an_upload_goes_on_where_the_broker_stopped(talk: Talk) -> None:
    assert LARGE.size is not None
    number = talk.start(Put(0, DIGEST, LARGE.size), LARGE)
    talk.answer(Stored(number, DIGEST, PIECE, False))
    assert [send.piece for send in talk.sent[1:]] == [(LARGE, PIECE, PIECE), (LARGE, 2 * PIECE, PIECE // 2)]


def test_calls_that_lack_the_same_module_share_one_upload(talk: Talk) -> None:
    numbers = [talk.start(run(job), LARGE) for job in "abc"]
    for number in numbers:
        talk.answer(Refused(number, "not_found", "Send the module."))
    puts = [send.message for send in talk.sent if isinstance(send.message, Put)]
    assert len(puts) == 1
    talk.sent.clear()
    talk.answer(Stored(puts[0].request, DIGEST, LARGE.size or 0, True))
    assert [send.message.request for send in talk.sent] == numbers


def test_an_upload_that_fails_ends_the_calls_that_wait_for_it(talk: Talk) -> None:
    number = talk.start(run(), LARGE)
    talk.answer(Refused(number, "not_found", "Send the module."))
    talk.answer(Refused(talk.last().request, "bad_request", "The hash is another."))
    assert isinstance(talk.ended[number], RequestError)


def test_an_upload_that_gets_nowhere_ends(talk: Talk) -> None:
    number = talk.start(Put(0, DIGEST, LARGE.size or 0), LARGE)
    for _ in range(10):
        talk.answer(Stored(talk.last().request, DIGEST, 0, False))
    assert isinstance(talk.ended[number], RequestError)


def test_a_module_without_bytes_here_that_the_broker_lacks_is_not_found(talk: Talk) -> None:
    number = talk.start(run(), UNKNOWN)
    talk.answer(Refused(number, "not_found", "Send the module."))
    assert isinstance(talk.ended[number], NotFound)


def test_a_broker_that_lacks_what_it_was_sent_does_not_go_on_for_ever(talk: Talk) -> None:
    number = talk.start(run(), SMALL)
    for _ in range(20):
        message = talk.last()
        if isinstance(message, Put):
            talk.answer(Stored(message.request, DIGEST, SMALL.size or 0, True))
        else:
            talk.answer(Refused(number, "not_found", "Send the module."))
    assert isinstance(talk.ended[number], NotFound)


@pytest.mark.parametrize(
    ("source", "stdin", "limits", "error"),
    [
        (Bytes(11), b"", {"max_module_bytes": 10}, ModuleTooLarge),
        (SMALL, b"x" * 11, {"max_stdin_bytes": 10}, InputTooLarge),
        (UNKNOWN, b"x" * 9, {"max_request_bytes": 8}, InputTooLarge),
    ],
)
def test_what_is_too_large_is_not_sent(
    source: Bytes, stdin: bytes, limits: dict[str, int], error: type[Exception]
) -> None:
    talk = Talk()
    number = talk.start(run(stdin=stdin), source)
    talk.greet(**limits)
    assert isinstance(talk.ended[number], error)
    assert not any(isinstance(send.message, Run) for send in talk.sent)


@pytest.mark.parametrize("more", [{"args": ("x" * 100_000,) * 3}, {"env": {"K": "ü" * 130_000}}])
def test_arguments_and_environment_that_are_too_large_are_not_sent(talk: Talk, more: dict[str, Any]) -> None:
    number = talk.start(replace(run(), spec=JobSpec(DIGEST, **more)), SMALL)
    ended = talk.ended[number]
    assert isinstance(ended, InputTooLarge)
    assert str(240 * 1024) in ended.message
    assert not any(isinstance(send.message, Run) for send in talk.sent)


def test_a_module_that_does_not_fit_beside_its_input_is_sent_by_itself() -> None:
    talk = Talk()
    number = talk.start(run(stdin=b"x" * 500), SMALL)
    talk.greet(max_stdin_bytes=1000, max_request_bytes=1200)
    assert talk.sent[-1].piece is None
    talk.answer(Refused(number, "not_found", "Send the module."))
    talk.answer(Refused(number, "not_found", "Send the module."))
    assert isinstance(talk.last(), Put)


def test_a_dropped_call_is_never_told_and_its_upload_ends(talk: Talk) -> None:
    number = talk.start(run(), LARGE)
    talk.answer(Refused(number, "not_found", "Send the module."))
    upload = talk.last().request
    talk.core.drop(number)
    assert upload not in talk.core
    talk.answer(Stored(upload, DIGEST, 0, False))
    talk.start(Cancel(0, "job"))
    assert isinstance(talk.last(), Cancel)
    talk.wait(9.0)
    assert not talk.ended
    assert isinstance(talk.last(), Cancel)
