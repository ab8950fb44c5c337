"""The client's core on a virtual clock: what it makes of answers and of silence."""

from __future__ import annotations

import dataclasses
from math import inf

import pytest

from minilambda.client.calls import PIECE, Patience
from minilambda.errors import (
    Busy,
    MinilambdaError,
    RequestError,
    Unreachable,
    UnsupportedVersion,
)
from minilambda.messages import (
    Accepted,
    GetResult,
    GetStatus,
    Hello,
    JobResult,
    JobStatus,
    Refused,
)
from tests.client_talk import SMALL, Talk, greeted, result, run


@pytest.fixture
def talk() -> Talk:
    return greeted()


def test_the_first_call_greets_and_then_sends_the_request() -> None:
    talk = Talk()
    number = talk.start(GetStatus(0, "job"))
    assert [type(send.message) for send in talk.sent] == [Hello]
    talk.greet()
    assert [type(send.message) for send in talk.sent] == [Hello, GetStatus]
    assert talk.last().request == number


def test_calls_that_begin_before_the_welcome_greet_once() -> None:
    talk = Talk()
    talk.start(GetStatus(0, "a"))
    talk.start(GetStatus(0, "b"))
    assert len(talk.sent) == 1
    talk.greet()
    assert [type(send.message) for send in talk.sent] == [Hello, GetStatus, GetStatus]


def test_no_answer_to_the_greeting_is_unreachable_after_the_connect_timeout() -> None:
    talk = Talk(Patience(connect=5.0))
    number = talk.start(run(), SMALL)
    talk.wait(4.9)
    assert not talk.ended
    talk.wait(0.2)
    error = talk.ended[number]
    assert isinstance(error, Unreachable)
    assert str(error) == "No broker answered at tcp://broker:1 within 5 s; start one with `minilambda-broker`."
    assert talk.core.next_deadline() == inf


def test_a_greeting_is_tried_again_by_the_next_call() -> None:
    talk = Talk(Patience(connect=1.0))
    talk.start(GetStatus(0, "job"))
    talk.wait(2.0)
    talk.sent.clear()
    talk.start(GetStatus(0, "job"))
    assert [type(send.message) for send in talk.sent] == [Hello]


def test_a_refused_greeting_ends_every_call_with_its_reason() -> None:
    talk = Talk()
    numbers = [talk.start(GetStatus(0, "a")), talk.start(GetStatus(0, "b"))]
    talk.answer(Refused(talk.last().request, "unsupported_version", "Version 2 is spoken here."))
    assert all(isinstance(talk.ended[number], UnsupportedVersion) for number in numbers)


def test_silence_sends_the_same_job_again_without_the_module(talk: Talk) -> None:
    number = talk.start(run(), SMALL)
    first = talk.last()
    talk.wait(9.9)
    assert len(talk.sent) == 1
    talk.wait(0.2)
    assert len(talk.sent) == 2
    assert talk.last() == dataclasses.replace(first, again=True)
    assert talk.sent[-1].piece is None
    talk.answer(result(number))
    talk.answer(result(number))
    assert len(talk.ended) == 1
    talk.wait(100.0)
    assert len(talk.sent) == 2


def test_a_large_input_gets_time_to_travel_before_it_is_sent_again(talk: Talk) -> None:
    talk.start(run(stdin=b"x" * 2 * PIECE), SMALL)
    talk.wait(20.0)
    assert len(talk.sent) == 1
    talk.wait(7.0)
    assert len(talk.sent) == 2


def test_a_long_job_waits_without_limit(talk: Talk) -> None:
    number = talk.start(run(), SMALL)
    talk.wait(24 * 3600.0)
    assert not talk.ended
    talk.answer(result(number))
    assert isinstance(talk.ended[number], JobResult)


def test_a_caller_that_waits_so_long_only_gets_a_timeout(talk: Talk) -> None:
    number = talk.start(run(), SMALL, patience=2.0)
    talk.wait(1.9)
    assert not talk.ended
    talk.wait(0.2)
    assert isinstance(talk.ended[number], TimeoutError)


def test_busy_is_tried_again_when_the_broker_said(talk: Talk) -> None:
    number = talk.start(run(), SMALL)
    talk.answer(Refused(number, "busy", "Full.", 500))
    talk.wait(0.4)
    assert len(talk.sent) == 1
    talk.wait(0.2)
    assert len(talk.sent) == 2
    talk.answer(result(number))
    assert isinstance(talk.ended[number], JobResult)


def test_busy_for_too_long_is_raised_with_when_to_come_back() -> None:
    talk = Talk(Patience(busy=1.0))
    number = talk.start(run(), SMALL)
    talk.greet()
    for _ in range(3):
        talk.answer(Refused(number, "busy", "Full.", 500))
        talk.wait(0.5)
    error = talk.ended[number]
    assert isinstance(error, Busy)
    assert error.retry_after == 0.5


def test_clients_with_another_spread_come_back_at_another_time() -> None:
    talk = Talk(Patience(spread=1.0))
    number = talk.start(run(), SMALL)
    talk.greet()
    sent = len(talk.sent)
    talk.answer(Refused(number, "busy", "Full.", 500))
    talk.wait(0.9)
    assert len(talk.sent) == sent
    talk.wait(0.2)
    assert len(talk.sent) == sent + 1


def test_a_late_answer_while_a_retry_is_pending_is_dropped(talk: Talk) -> None:
    number = talk.start(run(), SMALL)
    talk.answer(Refused(number, "busy", "Full.", 500))
    talk.answer(Refused(number, "conflict", "Late."))
    assert not talk.ended


def test_a_wait_for_a_result_is_renewed_until_its_time_is_up(talk: Talk) -> None:
    number = talk.start(GetResult(0, "job", 70_000), patience=100.0)
    waits = []
    while number not in talk.ended:
        message = talk.last()
        assert isinstance(message, GetResult)
        waits.append(message.wait_ms)
        talk.wait(message.wait_ms / 1000)
        talk.answer(JobStatus(number, "job", "running"))
    assert waits == [30_000, 30_000, 10_000]
    assert isinstance(talk.ended[number], JobStatus)


def test_a_wait_of_zero_asks_once(talk: Talk) -> None:
    number = talk.start(GetResult(0, "job", 0), patience=30.0)
    talk.answer(JobStatus(number, "job", "queued"))
    assert isinstance(talk.ended[number], JobStatus)
    assert len(talk.sent) == 1


def test_an_answer_of_the_wrong_kind_is_an_error(talk: Talk) -> None:
    number = talk.start(GetStatus(0, "job"))
    talk.answer(Accepted(number, "job", "queued"))
    assert isinstance(talk.ended[number], MinilambdaError)
    assert "'status' with 'accepted'" in str(talk.ended[number])


def test_answers_to_nothing_or_for_another_job_are_dropped(talk: Talk) -> None:
    number = talk.start(run(), SMALL)
    talk.answer(result(number + 1))
    talk.answer(result(number, "another"))
    assert not talk.ended


def test_an_error_that_names_no_request_ends_every_call(talk: Talk) -> None:
    numbers = [talk.start(run(job), SMALL) for job in "ab"]
    talk.answer(Refused(0, "bad_request", "What?"))
    assert all(isinstance(talk.ended[number], RequestError) for number in numbers)


def test_a_lost_connection_is_waited_for_and_then_given_up() -> None:
    talk = Talk(Patience(lost=60.0))
    number = talk.start(run(), SMALL)
    talk.greet()
    talk.core.blocked(talk.now)
    talk.wait(59.0)
    assert not talk.ended
    talk.wait(2.0)
    assert isinstance(talk.ended[number], Unreachable)


def test_a_connection_that_comes_back_is_used_again() -> None:
    talk = Talk(Patience(lost=60.0))
    number = talk.start(run(), SMALL)
    talk.greet()
    talk.core.blocked(talk.now)
    talk.wait(50.0)
    talk.core.unblocked()
    talk.wait(50.0)
    talk.answer(result(number))
    assert isinstance(talk.ended[number], JobResult)


def test_a_call_that_can_not_be_sent_ends_with_the_reason(talk: Talk) -> None:
    number = talk.start(run(), SMALL)
    talk.take(talk.core.fail(number, OSError("gone"), talk.now))
    assert isinstance(talk.ended[number], OSError)


def test_a_connection_that_broke_sends_again_what_waits_for_an_answer(talk: Talk) -> None:
    numbers = [talk.start(run(job), SMALL) for job in "ab"]
    talk.answer(Refused(numbers[1], "busy", "Full.", 5000))
    talk.core.disconnected(talk.now)
    talk.wait(0.1)
    assert [send.message.request for send in talk.sent] == [*numbers, numbers[0]]
