"""A client that follows a job's output, on a virtual clock: pieces that come twice, get lost, or begin anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from minilambda.client.calls import Send
from minilambda.client.live import WINDOW, Chunk, Told, input_pieces, taken
from minilambda.errors import BadRequest, Busy, Conflict, MinilambdaError, NotFound, Unreachable
from minilambda.messages import (
    Credit,
    Follow,
    Followed,
    Input,
    JobResult,
    Output,
    Refused,
    Result,
    Run,
    Taken,
    Unfollow,
)
from tests.client_talk import LARGE, SMALL, Talk, greeted, result, run


@pytest.fixture
def talk() -> Talk:
    return greeted()


def follow(talk: Talk, beside: int = 0) -> int:
    return talk.start(Follow(0, "job", 0), beside=beside)


def piece(call: int, data: bytes, offset: int = 0, stream: str = "stdout", attempt: int = 1) -> Output:
    return Output(call, "job", attempt, stream, offset, data)


def followed(call: int, attempt: int = 1) -> Followed:
    return Followed(call, "job", attempt, "completed")


def text(talk: Talk, stream: str = "stdout") -> bytes:
    return b"".join(each.chunk.data for each in talk.heard if each.chunk.stream == stream)


def follows(talk: Talk) -> Iterator[Follow]:
    return (send.message for send in talk.sent if isinstance(send.message, Follow))


def test_a_follow_hears_pieces_of_both_streams_and_ends_once(talk: Talk) -> None:
    # given
    number = follow(talk)
    assert talk.last() == Follow(number, "job", WINDOW)
    # when
    talk.answer(piece(number, b"one "))
    talk.answer(piece(number, b"err", stream="stderr"))
    talk.answer(piece(number, b"two", 4))
    # then
    assert [each.chunk for each in talk.heard] == [
        Chunk("stdout", b"one ", 0, 1),
        Chunk("stderr", b"err", 0, 1),
        Chunk("stdout", b"two", 4, 1),
    ]
    assert not talk.ended
    talk.answer(followed(number))
    assert talk.ended == {number: followed(number)}
    talk.answer(piece(number, b"late", 7))
    assert len(talk.heard) == 3


def test_silence_and_a_broken_connection_ask_again_from_what_is_known(talk: Talk) -> None:
    number = follow(talk)
    talk.answer(piece(number, b"12345"))
    talk.answer(piece(number, b"x", stream="stderr"))
    # when
    talk.wait(10.1)
    talk.core.disconnected(talk.now)
    talk.wait(0.1)
    # then
    again = Follow(number, "job", WINDOW - 6, attempt=1, stdout=5, stderr=1)
    assert list(follows(talk))[1:] == [again, again]


def test_output_is_a_sign_of_life(talk: Talk) -> None:
    number = follow(talk)
    for offset in range(4):
        talk.wait(9.0)
        talk.answer(piece(number, b".", offset))
    assert len(talk.sent) == 1


def test_what_comes_twice_is_heard_once(talk: Talk) -> None:
    number = follow(talk)
    talk.answer(piece(number, b"abc"))
    talk.answer(piece(number, b"abc"))
    talk.answer(piece(number, b"bcde", 1))
    assert text(talk) == b"abcde"
    assert talk.heard[-1].chunk == Chunk("stdout", b"de", 3, 1)
    assert len(talk.sent) == 1


def test_a_gap_is_asked_for_once_and_nothing_is_heard_out_of_order(talk: Talk) -> None:
    # given
    number = follow(talk)
    talk.answer(piece(number, b"ab"))
    # when the piece between is lost
    talk.answer(piece(number, b"ef", 4))
    talk.answer(piece(number, b"gh", 6))
    # then
    assert text(talk) == b"ab"
    assert list(follows(talk))[1:] == [Follow(number, "job", WINDOW - 2, attempt=1, stdout=2)]
    talk.answer(piece(number, b"cdefgh", 2))
    talk.answer(followed(number))
    assert text(talk) == b"abcdefgh"
    assert number in talk.ended


def test_an_end_while_a_piece_is_missing_is_that_of_an_earlier_try(talk: Talk) -> None:
    number = follow(talk)
    talk.answer(piece(number, b"b", 1))
    talk.answer(followed(number))
    assert not talk.ended
    talk.answer(piece(number, b"ab"))
    talk.answer(followed(number))
    assert text(talk) == b"ab"
    assert talk.ended == {number: followed(number)}


def test_a_broker_that_never_sends_a_piece_ends_the_follow_with_an_error(talk: Talk) -> None:
    number = follow(talk)
    for _ in range(10):
        talk.answer(piece(number, b"b", 1))
        talk.answer(followed(number))
    assert isinstance(talk.ended[number], MinilambdaError)
    assert "left out" in str(talk.ended[number])
    assert len(list(follows(talk))) < 6


def test_a_new_attempt_begins_anew_and_the_old_one_is_not_heard_any_more(talk: Talk) -> None:
    number = follow(talk)
    talk.answer(piece(number, b"first"))
    talk.answer(piece(number, b"sec", attempt=2))
    talk.answer(piece(number, b" try", 5))
    assert [(each.chunk.data, each.chunk.offset, each.chunk.attempt) for each in talk.heard] == [
        (b"first", 0, 1),
        (b"sec", 0, 2),
    ]
    talk.wait(10.1)
    assert talk.last() == Follow(number, "job", WINDOW - 8, attempt=2, stdout=3)


def test_the_start_of_a_new_attempt_may_be_lost(talk: Talk) -> None:
    number = follow(talk)
    talk.answer(piece(number, b"first"))
    talk.answer(piece(number, b"d", 3, attempt=2))
    assert talk.last() == Follow(number, "job", WINDOW - 5, attempt=2)


def test_a_slow_caller_gets_no_more_than_the_window(talk: Talk) -> None:
    # given a caller that takes nothing
    number = follow(talk)
    half = WINDOW // 2
    talk.answer(piece(number, bytes(half)))
    talk.answer(piece(number, bytes(half), half))
    # when the broker is asked again, it may send nothing
    talk.wait(10.1)
    assert talk.last() == Follow(number, "job", 0, attempt=1, stdout=WINDOW)
    # then what the caller takes is given back in large pieces
    talk.take(talk.core.follows.consumed(number, half - 1))
    assert isinstance(talk.last(), Follow)
    talk.take(talk.core.follows.consumed(number, 1))
    assert talk.last() == Credit(number, half)


def test_a_broker_that_sends_more_than_it_may_fills_no_memory(talk: Talk) -> None:
    number = follow(talk)
    size = WINDOW // 4
    for turn in range(100):
        talk.answer(piece(number, bytes(size), turn * size))
        talk.answer(piece(number, b"", turn * size))
    assert len(text(talk)) <= 2 * WINDOW
    assert sum(not each.chunk.data for each in talk.heard) == 1
    talk.take(talk.core.follows.consumed(number, 2 * WINDOW))
    talk.wait(10.1)
    again = talk.last()
    assert isinstance(again, Follow)
    assert (again.stdout, again.credit) == (len(text(talk)), WINDOW)


def test_credit_never_adds_up_to_more_than_the_window(talk: Talk) -> None:
    number = follow(talk)
    given, offset = WINDOW, 0
    for _ in range(100):
        data = bytes(min(50_000, given))
        talk.answer(piece(number, data, offset))
        offset, given = offset + len(data), given - len(data)
        for action in talk.core.follows.consumed(number, len(data)):
            assert isinstance(action, Send) and isinstance(action.message, Credit)
            given += action.message.bytes
        assert 0 < given <= WINDOW
    assert offset == 5_000_000


def test_a_credit_that_could_not_be_sent_is_in_the_next_follow(talk: Talk) -> None:
    number = follow(talk)
    talk.answer(piece(number, bytes(WINDOW)))
    talk.core.follows.consumed(number, WINDOW)
    talk.core.unsent(number, talk.now)
    talk.wait(0.1)
    assert talk.last() == Follow(number, "job", WINDOW, attempt=1, stdout=WINDOW)


def test_who_leaves_says_so_and_hears_no_more(talk: Talk) -> None:
    number = follow(talk)
    talk.take(talk.core.follows.dropped(number))
    assert talk.last() == Unfollow(number)
    talk.answer(piece(number, b"late"))
    talk.answer(followed(number))
    assert not talk.heard
    assert not talk.ended
    assert not talk.core.follows.dropped(number)


def test_other_calls_are_not_followed(talk: Talk) -> None:
    number = talk.start(run(), SMALL)
    assert not talk.core.follows.dropped(number)
    assert not talk.core.follows.consumed(number, 1000)
    assert number in talk.core
    talk.answer(piece(number, b"what?"))
    assert isinstance(talk.ended[number], MinilambdaError)


def test_a_job_that_is_run_beside_may_be_unknown_at_first(talk: Talk) -> None:
    # given a module that must go before its job
    job = talk.start(run(), LARGE)
    number = follow(talk, beside=job)
    # when
    talk.answer(Refused(number, "not_found", "No such job."))
    assert not talk.ended
    talk.wait(0.06)
    assert len(list(follows(talk))) == 2
    # then its end is the end of the patience
    talk.answer(result(job))
    talk.answer(Refused(number, "not_found", "No such job."))
    assert isinstance(talk.ended[number], NotFound)


def test_a_job_that_nobody_runs_beside_is_not_there(talk: Talk) -> None:
    number = follow(talk)
    talk.answer(Refused(number, "not_found", "No such job."))
    assert isinstance(talk.ended[number], NotFound)


def test_a_follow_that_the_broker_can_not_take_is_tried_again(talk: Talk) -> None:
    number = follow(talk)
    talk.answer(Refused(number, "busy", "Too many follow.", 100))
    talk.wait(0.2)
    assert len(list(follows(talk))) == 2
    talk.wait(31.0)
    talk.answer(Refused(number, "busy", "Too many follow.", 100))
    assert isinstance(talk.ended[number], Busy)


def test_input_waits_for_its_job_as_long_as_it_takes(talk: Talk) -> None:
    number = talk.start(Input(0, "job", 0, data=b"x"))
    tries = 0
    while talk.now < 200.0:
        talk.answer(Refused(number, "busy", "No worker has it.", 50))
        talk.wait(0.3)
        tries += 1
    assert len(talk.sent) == tries + 1
    talk.answer(Taken(number, "job", 1))
    assert talk.ended == {number: Taken(number, "job", 1)}


def test_input_for_a_job_that_takes_none_is_refused(talk: Talk) -> None:
    number = talk.start(Input(0, "job", 0, data=b"x"))
    talk.answer(Refused(number, "bad_request", "The job takes no input."))
    assert isinstance(talk.ended[number], BadRequest)


def test_a_lost_connection_ends_a_follow_as_any_call(talk: Talk) -> None:
    number = follow(talk)
    talk.core.blocked(talk.now)
    talk.wait(61.0)
    assert isinstance(talk.ended[number], Unreachable)


def test_a_follow_before_the_welcome_goes_behind_its_run_and_once() -> None:
    talk = Talk()
    job = talk.start(run(), SMALL)
    follow(talk, beside=job)
    talk.greet()
    assert [type(send.message) for send in talk.sent][1:] == [Run, Follow]


def test_the_rest_of_a_result_is_what_was_not_told() -> None:
    # given
    told = Told()
    told.note(Chunk("stdout", b"ab", 0, 1))
    done = JobResult(1, "job", Result("completed", 0, attempt=1), b"abcd", b"err")
    # then
    assert list(told.rest(done)) == [Chunk("stdout", b"cd", 2, 1), Chunk("stderr", b"err", 0, 1)]
    for chunk in told.rest(done):
        told.note(chunk)
    assert not list(told.rest(done))


def test_the_rest_of_a_result_of_another_attempt_is_all_of_it() -> None:
    told = Told()
    told.note(Chunk("stdout", b"ab", 0, 1))
    done = JobResult(1, "job", Result("completed", 0, attempt=2), b"cd")
    assert list(told.rest(done)) == [Chunk("stdout", b"cd", 0, 2)]


def test_long_input_goes_in_pieces_that_fit_a_frame() -> None:
    data = bytes(range(256)) * 1000
    pieces = list(input_pieces("job", 5, data))
    assert b"".join(each.data for each in pieces) == data
    assert all(len(each.data) <= 256 * 1024 and not each.eof for each in pieces)
    assert [each.offset for each in pieces] == [5 + 65536 * n for n in range(len(pieces))]


def test_input_that_an_ended_job_did_not_take_is_a_conflict() -> None:
    assert taken(Input(0, "job", 3, data=b"abc"), Taken(0, "job", 6)) == 6
    assert taken(Input(0, "job", 0), Taken(0, "job", 9)) == 9
    with pytest.raises(Conflict, match="4 bytes"):
        taken(Input(0, "job", 3, data=b"abc"), Taken(0, "job", 4))
