"""The client's core and functions: what goes along with a deploy, and what becomes of a call that nobody answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minilambda.client.calls import PIECE
from minilambda.client.functions import FunctionInfo, alias_request, call_request, deploy_request, function_infos
from minilambda.errors import InputTooLarge, ModuleTooLarge, NotFound, RequestError
from minilambda.messages import (
    Accepted,
    Call,
    Deploy,
    Deployed,
    FunctionList,
    GetStatus,
    JobResult,
    JobSpec,
    JobStatus,
    Put,
    Refused,
    Request,
    SetAlias,
    Stored,
)
from tests.client_talk import DIGEST, LARGE, MIB, SMALL, Bytes, Talk, greeted, result, welcome


@pytest.fixture
def talk() -> Talk:
    """A core that knows a broker which offers functions."""
    made = Talk()
    number = made.start(GetStatus(0, "warm-up"))
    made.answer(replace(welcome(made.last().request), features=("functions",)))  # type: ignore[union-attr]
    made.answer(JobStatus(number, "warm-up", "queued"))
    made.sent.clear()
    made.ended.clear()
    return made


def deploy(**spec: Any) -> Deploy:
    return Deploy(0, "f", JobSpec(DIGEST, **spec))


def call(**rest: Any) -> Call:
    return Call(0, "job", "f", **rest)


def test_a_small_module_rides_along_with_its_deploy_once(talk: Talk) -> None:
    number = talk.start(deploy(), SMALL)
    assert talk.sent[-1].piece == (SMALL, 0, SMALL.size)
    talk.answer(Deployed(number, "f", 1, "live"))
    assert talk.ended[number] == Deployed(number, "f", 1, "live")
    talk.start(deploy(), SMALL)
    assert talk.sent[-1].piece is None


def test_a_large_module_is_put_when_the_broker_lacks_it_and_the_deploy_goes_again(talk: Talk) -> None:
    # given
    number = talk.start(deploy(), LARGE)
    assert talk.sent[-1].piece is None
    # when
    talk.answer(Refused(number, "not_found", "Send the module."))
    put = talk.last()
    assert isinstance(put, Put) and put.size == LARGE.size
    for received in (0, PIECE, 2 * PIECE, LARGE.size):
        talk.answer(Stored(put.request, DIGEST, received, received == LARGE.size))
    # then
    assert talk.last() == Deploy(number, "f", JobSpec(DIGEST))
    talk.answer(Deployed(number, "f", 1, "live"))
    assert isinstance(talk.ended[number], Deployed)


def test_a_deploy_and_a_call_without_an_answer_are_sent_again_and_the_call_says_so(talk: Talk) -> None:
    talk.start(deploy(), SMALL)
    talk.start(call(stdin=b"in"))
    talk.sent.clear()
    talk.wait(11.0)
    called, again = (send.message for send in talk.sent)
    assert isinstance(again, Deploy) and isinstance(called, Call)
    assert (called.again, called.stdin) == (True, b"in")


def test_a_call_that_was_refused_at_first_is_not_said_to_be_sent_again(talk: Talk) -> None:
    number = talk.start(call())
    talk.answer(Refused(number, "busy", "Busy.", 500))
    talk.wait(0.6)
    assert isinstance(talk.last(), Call) and not talk.last().again  # type: ignore[union-attr]


@pytest.mark.parametrize("answer", [result(0), Accepted(0, "job", "queued")])
def test_a_call_is_answered_as_a_run_is(talk: Talk, answer: JobResult | Accepted) -> None:
    number = talk.start(call())
    talk.answer(replace(answer, request=number))
    assert talk.ended[number] == replace(answer, request=number)


def test_a_function_that_is_not_there_is_not_asked_for_again(talk: Talk) -> None:
    number = talk.start(call())
    talk.answer(Refused(number, "not_found", "There is no function 'f'."))
    assert isinstance(talk.ended[number], NotFound) and len(talk.sent) == 1


def test_a_call_that_its_caller_waits_no_longer_for_has_timed_out(talk: Talk) -> None:
    number = talk.start(call(), patience=1.0)
    talk.wait(2.0)
    assert isinstance(talk.ended[number], TimeoutError)


@pytest.mark.parametrize(
    ("message", "source", "error"),
    [
        (deploy(), Bytes(257 * MIB), ModuleTooLarge),
        (deploy(args=("x" * 250_000,)), SMALL, InputTooLarge),
        (call(args=("x" * 250_000,)), None, InputTooLarge),
        (call(env={"A": "x" * 250_000}), None, InputTooLarge),
        (call(stdin=bytes(17 * MIB)), None, InputTooLarge),
    ],
)
def test_what_the_broker_would_refuse_for_its_size_is_not_sent(
    talk: Talk, message: Request, source: Bytes | None, error: type[Exception]
) -> None:
    number = talk.start(message, source)
    assert isinstance(talk.ended[number], error) and not talk.sent


def test_a_broker_that_is_too_old_for_functions_is_not_asked() -> None:
    talk = greeted()
    number = talk.start(call())
    assert isinstance(talk.ended[number], RequestError) and "too old" in str(talk.ended[number])


# --- requests ----------------------------------------------------------------------------------------


def test_a_call_says_only_what_its_caller_says() -> None:
    assert call_request("j", "f@1", None, {}) == Call(0, "j", "f@1")
    found = call_request(
        "j", "f", [], {"env": {"A": "b"}, "timeout": 0.5, "group": "g", "job_id": "mine", "stdin": "ü"}, b"v", True
    )
    assert found == Call(0, "mine", "f", (), {"A": "b"}, None, 500, "g", True, stdin="ü".encode(), values=b"v")


def test_a_roll_back_names_the_version_that_it_leaves() -> None:
    known = [FunctionInfo("f", 3, "", ("next",), 0, False, ""), FunctionInfo("f", 2, "", ("live", "a"), 0, False, "")]
    assert alias_request("f", "live", 0, known) == SetAlias(0, "f", "live", leaving=2)
    assert alias_request("f", "other", 0, known) == SetAlias(0, "f", "other")
    assert alias_request("f", "live", 5, ()) == SetAlias(0, "f", "live", 5)


def test_a_version_is_made_of_what_a_function_can_have() -> None:
    assert deploy_request("f", JobSpec(DIGEST), {}, "", True) == Deploy(0, "f", JobSpec(DIGEST), "", True)
    with pytest.raises(ValueError, match="'stdin' is for a job"):
        deploy_request("f", JobSpec(DIGEST), {"stdin": b"x"}, "", False)


def test_rows_that_leave_things_out_are_read_as_empty() -> None:
    row = {"function": "f", "version": 2, "module": DIGEST, "aliases": ["live"], "age_ms": 7, "shared": True,
           "principal": "local", "invoke": "run", "versions": 3, "more": 1}  # fmt: skip
    whole, empty, odd = function_infos(FunctionList(1, (row, {}, {"aliases": 7, "version": "x", "shared": None})))
    assert whole == FunctionInfo("f", 2, DIGEST, ("live",), 7, True, "local", "run", 3)
    assert empty == odd == FunctionInfo("", 0, "", (), 0, False, "", "", 0)
