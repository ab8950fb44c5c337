"""The ledger of the chaos notices each kind of broken promise."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.ledger import Ledger

ASKED = [1.0, "asked", "j", "detached", 2, "j", ""]
ACCEPTED = [1.1, "accepted", "j"]
STARTED = [1.2, "started", "j", 1, False]
ANSWER = [1.3, "answer", "j", "completed", "", "j", "nonce", 1, 0, "worker-1"]
FAILED = [1.3, "answer", "j", "failed", "worker_lost", "", "", 1, None, "worker-1"]


def problems(*lines: list[Any], killed: tuple[str, ...] = (), may_fail: tuple[str, ...] = ()) -> list[str]:
    """The first line of each problem of a ledger with these lines."""
    ledger = Ledger()
    for line in lines:
        ledger.add(line, "client-1")
    return [problem.splitlines()[0] for problem in ledger.problems(killed, may_fail)]


def changed(line: list[Any], at: int, value: Any) -> list[Any]:
    return [*line[:at], value, *line[at + 1 :]]


def test_a_job_that_ran_and_was_answered_twice_alike_balances() -> None:
    assert problems(ASKED, ACCEPTED, STARTED, ANSWER, changed(ANSWER, 0, 9.9)) == []


def test_a_failure_balances_only_where_something_explains_it() -> None:
    assert problems(ASKED, STARTED, FAILED, may_fail=("worker_lost",)) == []
    assert problems(ASKED, STARTED, FAILED) == ["a job failed for no reason: j"]


def test_a_waiting_client_that_was_killed_is_owed_nothing_but_what_was_acknowledged_to_it() -> None:
    assert problems(ASKED, killed=("client-1",)) == []
    assert problems(ASKED, ACCEPTED, killed=("client-1",)) == ["an acknowledged job has no end: j"]


ONCE = changed(ASKED, 4, 0)
BROKEN: dict[str, list[list[Any]]] = {
    "an acknowledged job has no end": [ASKED, ACCEPTED, STARTED],
    "a waiting job has no end": [ASKED, STARTED],
    "a job has different answers": [ASKED, STARTED, ANSWER, changed(ANSWER, 6, "of another run")],
    "one attempt began twice": [ASKED, STARTED, STARTED, ANSWER],
    "a job that may run once ran more often": [ONCE, STARTED, changed(STARTED, 3, 2), ANSWER],
    "a job completed with something else than its output": [ASKED, STARTED, changed(ANSWER, 5, "x")],
    "a job completed that should have failed with trap": [changed(ASKED, 6, "trap"), STARTED, ANSWER],
    "an answer is of an attempt that nobody saw begin": [ASKED, ANSWER],
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_promise_is_a_problem(problem: str) -> None:
    assert problems(*BROKEN[problem]) == [f"{problem}: j"]


def test_a_job_that_may_run_once_is_lost_with_a_broker_and_at_no_other_time() -> None:
    ledger = Ledger()
    for line in (ONCE, STARTED, FAILED):
        ledger.add(line, "client-1")
    assert ledger.problems((), (), ends=[(1.21, 1.25)]) == []
    assert len(ledger.problems((), (), ends=[(0.5, 0.9), (1.4, 1.5)])) == 1


def test_a_second_run_is_a_problem_where_no_worker_was_lost() -> None:
    ledger = Ledger()
    for line in (ASKED, STARTED, changed(STARTED, 3, 2), ANSWER):
        ledger.add(line, "client-1")
    assert ledger.problems((), ()) == []
    (problem,) = ledger.problems((), (), once=True)
    assert problem.startswith("a job ran again though no worker was lost: j")


def test_a_new_broker_counts_the_attempts_of_waiting_jobs_anew_and_of_acknowledged_ones_not() -> None:
    waiting, accepted = Ledger(), Ledger()
    for line in (ASKED, STARTED, STARTED, ANSWER):
        waiting.add(line, "client-1")
        accepted.add(line, "client-1")
    accepted.add(ACCEPTED, "client-1")
    assert waiting.problems((), (), ends=[(1.21, 1.25)]) == []
    assert len(waiting.problems((), (), ends=[(9.0, 9.5)])) == len(accepted.problems((), (), ends=[(1.21, 1.25)])) == 1


def test_a_job_whose_client_died_may_begin_anew_with_the_next_broker() -> None:
    lines = [ASKED, STARTED, STARTED]
    ledger = Ledger()
    for line in lines:
        ledger.add(line, "client-1")
    assert ledger.problems(["client-1"], (), ends=[(1.21, 1.25)]) == []
    assert problems(*lines, killed=("client-1",)) == ["one attempt began twice: j"]


def test_an_id_that_was_given_twice_is_a_problem() -> None:
    assert problems(ASKED, ASKED, STARTED, ANSWER) == ["the id j was given twice"]


def test_a_problem_tells_the_story_of_its_job_in_order() -> None:
    ledger = Ledger()
    for line in (STARTED, ACCEPTED, ASKED):
        ledger.add(line, "client-1")
    (problem,) = ledger.problems((), ())
    assert [line.split()[1] for line in problem.splitlines()[1:]] == ["asked", "accepted", "started"]
