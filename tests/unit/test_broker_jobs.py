"""What a client can submit, and what the broker refuses."""

from __future__ import annotations

import pytest

from minilambda.broker.client_side import MAX_WAITERS
from minilambda.broker.events import Rejected
from minilambda.errors import BadRequest, UnsupportedVersion
from minilambda.messages import (
    Accepted,
    Acknowledge,
    Beat,
    Fetch,
    GetResult,
    GetStatus,
    JobResult,
    JobSpec,
    Refused,
    Result,
    Run,
    Usage,
)
from minilambda.wire import Malformed
from tests.broker_world import DIGEST, WASM, World, kinds

MISSING = "sha256:" + "0" * 64


def refused(messages: list) -> str:
    (answer,) = messages
    assert type(answer) is Refused, answer
    assert answer.message
    return answer.code


# --- run ---------------------------------------------------------------------------------------------


def test_a_job_goes_to_a_worker_and_its_result_to_the_client() -> None:
    world = World()
    agent = world.worker("w", 2)
    assert world.run("j", stdin=b"in", args=("a",)) == []
    dispatch = agent.jobs[agent.ref("j")]
    assert (dispatch.stdin, dispatch.spec.args, dispatch.ref.attempt) == (b"in", ("a",), 1)
    assert agent.done("j", Result("completed", 7), stdout=b"out", stderr=b"err", value=b"v") == []
    answer = world.only("c", JobResult)
    assert (answer.request, answer.job, answer.stdout, answer.stderr, answer.value) == (1, "j", b"out", b"err", b"v")
    assert (answer.result.state, answer.result.exit_code, answer.result.worker, answer.result.attempt) == (
        "completed",
        7,
        "w",
        1,
    )


def test_a_worker_learns_that_a_result_is_safe_with_the_next_dispatch() -> None:
    # given
    world = World()
    agent = world.worker("w")
    world.run("first")
    first = agent.ref("first")
    agent.done("first")
    # when
    world.run("second")
    # then
    assert agent.jobs[agent.ref("second")].settled == (first,)
    world.wait(2.0)
    assert "acknowledge" not in kinds(agent.look())


def test_a_worker_learns_that_a_result_is_safe_with_the_answer_to_a_report_where_no_dispatch_comes() -> None:
    # given
    world = World()
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    agent.done("j")
    # when
    world.wait(1.0)
    answers = [*agent.look(), *agent.report()]
    # then
    assert answers == [Beat(agent.session, (ref,))]
    world.wait(2.0)
    assert agent.look() == []


def test_a_worker_that_gets_no_dispatch_learns_that_a_result_is_safe_by_a_later_one() -> None:
    # given
    world = World()
    agent = world.worker("w", 2)
    world.run("j")
    world.run("later")
    ref = agent.ref("j")
    agent.done("j")
    # when
    world.wait(2.0)
    answers = agent.done("later")
    # then
    assert answers == [Acknowledge(agent.session, ref)]


def test_a_worker_that_shows_signs_of_life_and_never_reports_learns_that_a_result_is_safe_all_the_same() -> None:
    # given
    world = World()
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    agent.done("j")
    # when
    world.wait(4.0)
    agent.give(Fetch(agent.session, "nothing", 0, 1))
    world.wait(2.0)
    # then
    assert Acknowledge(agent.session, ref) in agent.look()


def test_a_worker_that_drains_learns_at_once_that_its_results_are_safe() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    agent.done("j")
    agent.draining = True
    assert Acknowledge(agent.session, ref) in agent.report()


def test_a_job_waits_for_the_first_worker() -> None:
    world = World()
    world.run("j")
    world.wait(3600)
    assert world.state("j") == "queued"
    assert world.worker("w").names == ["j"]


def test_the_broker_adds_its_own_times_to_the_usage() -> None:
    world = World()
    world.run("j")
    world.wait(2.0)
    agent = world.worker("w")
    world.now += 1.0
    agent.done("j", Result("completed", 0, usage=Usage(queued_ms=5.0, run_ms=900.0)))
    usage = world.only("c", JobResult).result.usage
    assert (usage.queued_ms, usage.run_ms, usage.total_ms) == pytest.approx((2005.0, 900.0, 3000.0))


def test_a_detached_job_is_accepted_at_once_and_its_result_can_be_had_later() -> None:
    world = World()
    agent = world.worker("w")
    (answer,) = world.run("j", detach=True)
    assert answer == Accepted(1, "j", "queued")
    agent.done("j")
    assert world.take("c") == []
    assert world.ask("d", GetResult(2, "j"), JobResult).result.state == "completed"


@pytest.mark.parametrize("detach", [False, True])
def test_the_same_job_sent_again_is_the_same_job_and_runs_once(detach: bool) -> None:
    world = World()
    agent = world.worker("w")
    world.run("j", "c1", request=1, detach=detach)
    world.run("j", "c2", request=2, detach=detach)
    assert agent.names == ["j"]
    agent.done("j", stdout=b"x")
    assert [world.run("j", "c3")[0].TYPE, len(world.core.jobs)] == ["result", 1]
    if not detach:
        assert [world.only(peer, JobResult).stdout for peer in ("c1", "c2")] == [b"x", b"x"]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("change", [{"stdin": b"other"}, {"args": ("x",)}, {"priority": 1}, {"wasm": b"\0asm other"}])
def test_another_job_with_the_same_id_is_a_conflict(change: dict, ended: bool) -> None:
    world = World()
    agent = world.worker("w")
    world.run("j", stdin=b"in")
    if ended:
        agent.done("j")
    assert refused(world.run("j", "d", **{"stdin": b"in"} | change)) == "conflict"


def test_where_stdin_ends_and_values_begin_is_part_of_the_content() -> None:
    world = World()
    agent = world.worker("w")
    world.give("c", Run(1, "j", JobSpec(DIGEST), wasm=WASM, stdin=b"ab", values=b"c"))
    agent.done("j")
    assert refused(world.give("d", Run(1, "j", JobSpec(DIGEST), stdin=b"a", values=b"bc"))) == "conflict"


def test_the_same_id_of_another_principal_is_another_job() -> None:
    world = World()
    world.run("j", "a@ann", principal="ann", detach=True)
    assert kinds(world.run("j", "b@bob", principal="bob", detach=True, stdin=b"other")) == ["accepted"]
    assert refused(world.give("x", GetStatus(1, "j"), "carl")) == "not_found"


def test_of_one_connection_only_the_newest_request_for_a_job_is_answered() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j", "c", request=1)
    world.run("j", "c", request=2)
    world.give("c", GetResult(3, "j", 20_000))
    agent.done("j")
    assert world.only("c", JobResult).request == 3


def test_the_oldest_of_too_many_waiting_requests_is_told_to_ask_later() -> None:
    world = World()
    for number in range(MAX_WAITERS + 1):
        world.run("j", f"c{number}")
    answer = world.only("c0", Refused)
    assert (answer.code, answer.job) == ("busy", "j")
    assert answer.retry_after_ms
    assert len(world.core.jobs["local", "j"].waiters) == MAX_WAITERS


# --- refusals ----------------------------------------------------------------------------------------


def test_a_module_that_the_broker_lacks_is_not_found_and_the_sentence_says_what_to_do() -> None:
    world = World()
    (answer,) = world.give("c", Run(1, "j", JobSpec(MISSING)))
    assert answer.code == "not_found"
    assert "send its bytes" in answer.message


def test_bytes_with_another_hash_are_refused() -> None:
    world = World()
    assert refused(world.give("c", Run(1, "j", JobSpec(MISSING), wasm=WASM))) == "bad_request"
    assert refused(world.give("c", GetStatus(1, "j"))) == "not_found"


def test_what_is_too_large_is_refused_by_its_name() -> None:
    world = World(max_module_bytes=64, max_stdin_bytes=8)
    assert refused(world.run("j", wasm=b"\0asm" + bytes(100))) == "module_too_large"
    assert refused(world.run("j", stdin=bytes(9))) == "input_too_large"
    assert refused(world.give("c", Run(1, "j", JobSpec(DIGEST), wasm=WASM, values=bytes(9)))) == "input_too_large"
    assert refused(world.run("j", args=("x" * 255_000,))) == "input_too_large"
    assert refused(world.run("j", env={"x": "\N{SNOWMAN}" * 90_000})) == "input_too_large"


def test_a_full_queue_says_busy_at_once_and_when_to_try_again() -> None:
    world = World(max_queued=2, busy_retry=1.5)
    world.run("j1")
    world.run("j2", "d")
    (answer,) = world.run("j3", "e")
    assert (answer.code, answer.retry_after_ms) == ("busy", 1500)
    assert world.run("j1") == []
    world.worker("w", 4)
    assert world.run("j3", "e") == []


def test_too_much_input_says_busy_until_jobs_have_ended() -> None:
    world = World(max_queued_bytes=10_000)
    agent = world.worker("w", 4)
    world.run("j1", stdin=bytes(6000))
    assert refused(world.run("j2", "d", stdin=bytes(6000))) == "busy"
    agent.done("j1")
    assert world.run("j2", "d", stdin=bytes(6000)) == []


def test_a_job_that_does_not_want_to_wait_is_refused_without_workers() -> None:
    world = World()
    assert refused(world.run("j", if_no_workers="fail")) == "no_workers"
    agent = world.worker("w")
    assert world.run("j", if_no_workers="fail") == []
    agent.draining = True
    agent.report()
    assert refused(world.run("k", if_no_workers="fail")) == "no_workers"


def test_frames_that_are_no_message_are_answered_and_counted() -> None:
    world = World()
    world.step(Rejected((b"c", b""), Malformed(BadRequest("what?"), 9, "j")))
    answer = world.only("c", Refused)
    assert (answer.request, answer.code, answer.message, answer.job) == (9, "bad_request", "what?", "j")
    world.step(Rejected((b"c", b""), Malformed(UnsupportedVersion())))
    assert world.core.rejected == {"bad_request": 1, "unsupported_version": 1}
