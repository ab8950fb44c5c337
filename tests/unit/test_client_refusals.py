"""Requests that were refused for the moment: when the client's core sends them again. On a virtual clock."""

from __future__ import annotations

from minilambda.client.calls import Patience
from minilambda.errors import QuotaExceeded
from minilambda.messages import JobResult, Put, Refused
from tests.client_talk import DIGEST, SMALL, Talk, greeted, result, run

OVER = "1 jobs of this client wait already, the most that it may have."


def over(number: int, after: int | None = 1000) -> Refused:
    return Refused(number, "quota_exceeded", OVER, after)


def two_jobs(talk: Talk) -> tuple[int, int]:
    """One that the broker has, and one that is over the quota."""
    first, second = talk.start(run("first"), SMALL), talk.start(run("second"), SMALL)
    talk.answer(over(second))
    talk.sent.clear()
    return first, second


def test_a_job_over_the_quota_is_sent_as_soon_as_another_one_has_ended() -> None:
    # given
    talk = greeted()
    first, second = two_jobs(talk)
    # when
    talk.answer(result(first, "first"))
    # then: not after the second that the broker has named
    assert [send.message.request for send in talk.sent] == [second]
    talk.answer(result(second, "second"))
    assert isinstance(talk.ended[second], JobResult)


def test_each_end_lets_one_job_go_the_oldest_first() -> None:
    talk = greeted()
    numbers = [talk.start(run(f"job-{i}"), SMALL) for i in range(5)]
    for number in numbers[2:]:
        talk.answer(over(number))
    talk.sent.clear()
    for number in (0, 1):
        talk.answer(result(numbers[number], f"job-{number}"))
    assert [send.message.request for send in talk.sent] == numbers[2:4]


def test_a_job_over_the_quota_waits_for_as_long_as_something_is_under_way() -> None:
    # given: the job that has the place takes ten times the client's patience
    talk = Talk(Patience(busy=5.0))
    first = talk.start(run("first"), SMALL)
    talk.greet()
    second = talk.start(run("second"), SMALL)
    # when
    for _ in range(50):
        talk.answer(over(second))
        talk.wait(1.1)
    # then
    assert not talk.ended
    talk.answer(result(first, "first"))
    talk.answer(over(second))  # another client of the same key was quicker
    talk.wait(1.1)
    talk.answer(result(second, "second"))
    assert isinstance(talk.ended[second], JobResult)


def test_a_job_over_the_quota_fails_when_no_place_comes_free_for_the_whole_patience() -> None:
    talk = Talk(Patience(busy=2.0))
    number = talk.start(run(), SMALL)
    talk.greet()
    tries = 0
    while number not in talk.ended:
        talk.answer(over(number))
        talk.wait(1.0)
        tries += 1
    error = talk.ended[number]
    assert isinstance(error, QuotaExceeded)
    assert (error.message, error.retry_after, tries) == (OVER, 1.0, 3)


def test_a_quota_that_does_not_pass_by_itself_fails_at_once() -> None:
    talk = greeted()
    first, second = talk.start(run("first"), SMALL), talk.start(run("second"), SMALL)
    talk.answer(over(second, None))
    assert isinstance(talk.ended[second], QuotaExceeded)
    assert first not in talk.ended


def test_a_quota_that_passes_after_the_patience_fails_at_once_although_other_jobs_are_under_way() -> None:
    talk = greeted()
    _, second = talk.start(run("first"), SMALL), talk.start(run("second"), SMALL)
    talk.answer(over(second, 600_000))
    assert isinstance(talk.ended[second], QuotaExceeded)


def test_who_has_no_patience_is_told_of_the_quota_at_once() -> None:
    talk = Talk(Patience(busy=0.0))
    first = talk.start(run("first"), SMALL)
    talk.greet()
    second = talk.start(run("second"), SMALL)
    talk.answer(over(second))
    assert isinstance(talk.ended[second], QuotaExceeded)
    assert first not in talk.ended


def test_a_thousand_jobs_over_the_quota_do_not_ask_all_the_time() -> None:
    # given: nothing ends for a minute, and the broker refuses all that is sent again
    talk = greeted()
    numbers = [talk.start(run(f"job-{i}"), SMALL) for i in range(1000)]
    for number in numbers[1:]:
        talk.answer(over(number))
    talk.sent.clear()
    end = talk.now + 60.0
    # when
    tries = 0
    while talk.now < end:
        talk.wait(0.5)
        for send in talk.sent:
            if send.message.request != numbers[0]:
                talk.answer(over(send.message.request))
                tries += 1
        talk.sent.clear()
    # then
    assert not talk.ended
    assert tries < 60 * 40


def test_a_call_that_was_dropped_is_not_sent_again() -> None:
    talk = greeted()
    first, second = two_jobs(talk)
    talk.core.drop(second)
    talk.answer(result(first, "first"))
    talk.wait(5.0)
    assert not talk.sent


def test_a_module_over_the_quota_is_sent_again_too() -> None:
    talk = greeted()
    first, put = talk.start(run("first"), SMALL), talk.start(Put(0, DIGEST, SMALL.size or 0), SMALL)
    talk.answer(over(put))
    talk.sent.clear()
    talk.answer(result(first, "first"))
    assert [send.message.request for send in talk.sent] == [put]
