"""How jobs end: waiting for them, their results, cancelling; and what a client can look at."""

from __future__ import annotations

import pytest

from minilambda.broker.jobs import TRANSITIONS, InvariantError
from minilambda.messages import (
    TERMINAL,
    Cancel,
    ErrorInfo,
    GetResult,
    GetStatus,
    Hello,
    JobResult,
    JobStatus,
    ListWorkers,
    Refused,
    Result,
    Welcome,
    WorkerList,
)
from tests.broker_world import Stop, World


def refused(messages: list) -> str:
    (answer,) = messages
    assert type(answer) is Refused, answer
    assert answer.message
    return answer.code


# --- waiting and ending ------------------------------------------------------------------------------


def test_get_result_waits_for_as_long_as_it_says_and_then_tells_the_state() -> None:
    world = World(max_wait=30.0)
    world.run("j", detach=True)
    assert world.ask("c", GetResult(2, "j"), JobStatus).state == "queued"
    assert world.give("c", GetResult(3, "j", 5_000)) == []
    assert world.give("d", GetResult(4, "j", 3_600_000)) == []
    world.wait(4.9)
    assert world.take("c") == []
    world.wait(0.2)
    assert world.only("c", JobStatus).request == 3
    world.wait(25.0)
    assert world.only("d", JobStatus).request == 4


def test_a_job_that_waits_in_the_queue_for_too_long_fails() -> None:
    world = World()
    world.run("j", queue_timeout_ms=2_000)
    world.wait(1.9)
    assert world.state("j") == "queued"
    world.wait(0.2)
    result = world.only("c", JobResult).result
    assert result.error is not None
    assert (result.state, result.error.code, result.attempt) == ("failed", "queue_timeout", 0)


def test_the_time_with_a_worker_does_not_count_as_waiting_in_the_queue() -> None:
    world = World(liveness=5.0)
    world.run("j", queue_timeout_ms=3_000)
    world.wait(2.0)
    agent = world.worker("w")
    for _ in range(5):
        world.wait(2.0)
        agent.report()
    agent.goodbye()
    world.wait(0.9)
    assert world.state("j") == "queued"
    world.wait(0.2)
    assert world.only("c", JobResult).result.error.code == "queue_timeout"


def test_a_result_is_kept_for_its_time_and_has_then_expired() -> None:
    world = World(result_ttl=60.0)
    agent = world.worker("w")
    world.run("j")
    agent.done("j")
    for _ in range(14):
        world.wait(4.0)
        agent.report()
    assert world.ask("d", GetStatus(1, "j"), JobStatus).state == "completed"
    world.wait(4.1)
    assert refused(world.give("d", GetStatus(1, "j"))) == "expired"
    assert refused(world.run("j")) == "expired"
    assert not world.core.jobs


def test_results_are_bounded_in_bytes_and_the_oldest_goes_first() -> None:
    world = World(results_bytes=30_000)
    agent = world.worker("w", 4)
    for number in range(4):
        world.run(f"j{number}", detach=True)
        agent.done(f"j{number}", stdout=bytes(8_000))
    assert list(world.core.jobs) == [("local", "j2"), ("local", "j3")]
    world.run("large", "d")
    agent.done("large", stdout=bytes(50_000))
    assert len(world.only("d", JobResult).stdout) == 50_000
    assert world.ask("d", GetResult(1, "large"), JobResult).result.state == "completed"


@pytest.mark.parametrize(
    "said",
    [Result("running"), Result("failed"), Result("cancelled"), Result("completed", error=ErrorInfo("trap", "x"))],
)
def test_a_result_that_is_no_proper_end_becomes_a_failure(said: Result) -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    agent.done("j", said)
    result = world.only("c", JobResult).result
    assert result.state == "failed"
    assert result.error is not None


# --- cancel ------------------------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once() -> None:
    world = World()
    world.run("j")
    assert world.ask("d", Cancel(5, "j"), JobStatus).state == "cancelled"
    result = world.only("c", JobResult).result
    assert (result.state, result.error and result.error.code) == ("cancelled", "cancelled")
    assert world.worker("w").names == []
    assert world.ask("d", Cancel(6, "j"), JobStatus).state == "cancelled"


@pytest.mark.parametrize("started", [False, True])
def test_a_job_at_a_worker_is_stopped_there_and_ends_when_the_worker_says_so(started: bool) -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    if started:
        agent.report(ref)
    answer = world.ask("d", Cancel(5, "j"), JobStatus)
    assert (answer.state, answer.cancelling, answer.worker) == ("running" if started else "assigned", True, "w")
    assert agent.look() == [Stop(agent.session, ref)]
    assert world.ask("d", Cancel(6, "j"), JobStatus).cancelling
    assert agent.look() == []
    agent.done("j", Result("cancelled", error=ErrorInfo("cancelled", "The job was cancelled.")))
    assert world.only("c", JobResult).result.state == "cancelled"
    answer = world.ask("d", GetStatus(7, "j"), JobStatus)
    assert (answer.state, answer.cancelling) == ("cancelled", False)


def test_a_job_that_completes_before_the_cancel_gets_there_is_completed() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    world.give("d", Cancel(5, "j"))
    agent.done("j")
    assert world.only("c", JobResult).result.state == "completed"


def test_a_cancelled_job_that_loses_its_worker_is_cancelled() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    agent.look()
    world.give("d", Cancel(5, "j"))
    agent.goodbye()
    assert world.only("c", JobResult).result.state == "cancelled"


@pytest.mark.parametrize("request_", [Cancel(1, "j"), GetStatus(1, "j"), GetResult(1, "j", 10)])
def test_a_job_that_nobody_has_submitted_is_not_found(request_: Cancel) -> None:
    assert refused(World().give("c", request_)) == "not_found"


# --- the rest ----------------------------------------------------------------------------------------


def test_hello_tells_the_limits_in_force() -> None:
    world = World(max_stdin_bytes=123, resend=7.0)
    answer = world.ask("c", Hello(3), Welcome)
    assert (answer.request, answer.principal, answer.versions) == (3, "local", (1,))
    assert (answer.max_stdin_bytes, answer.resend_ms) == (123, 7000)


def test_the_list_of_workers_says_how_they_are() -> None:
    world = World(prefetch=0)
    world.worker("idle", 2)
    busy = world.worker("busy", 1)
    for number in range(4):
        world.run(f"j{number}")
    world.wait(1.0)
    busy.report()
    answer = world.ask("c", ListWorkers(1), WorkerList)
    rows = {row["name"]: row for row in answer.workers}
    assert answer.queued == 1
    assert (rows["busy"]["state"], rows["busy"]["queue"], rows["busy"]["slots"], rows["busy"]["seen_ms"]) == (
        "busy",
        1,
        1,
        0,
    )
    assert rows["idle"]["seen_ms"] == 1000


def test_a_long_list_of_workers_fits_a_frame() -> None:
    world = World(audited=False)
    for number in range(1500):
        agent = world.worker(f"w{number}")
        agent.name = "\N{SNOWMAN}" * 60
    rows = world.ask("c", ListWorkers(1), WorkerList).workers
    assert 500 < len(rows) <= 1000


def test_no_event_leads_out_of_a_terminal_state() -> None:
    assert not {state for state, _ in TRANSITIONS} & TERMINAL


def test_a_wrong_transition_tells_the_story_of_the_job() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    agent.done("j")
    with pytest.raises(InvariantError, match=r"'j'.*requeue is not possible when completed.*dispatch at .*complete at"):
        world.core.jobs["local", "j"].move("requeue", world.now)
