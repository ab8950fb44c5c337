"""A broker that was restarted: its workers still have jobs, its clients send them again, and none runs twice."""

from __future__ import annotations

import pytest

from minilambda.messages import (
    Acknowledge,
    Beat,
    Cancel,
    Dispatch,
    Done,
    JobRef,
    JobResult,
    JobSpec,
    JobStatus,
    Recall,
    RegisterAgain,
    Report,
    Returned,
    Run,
    Stop,
)
from tests.broker_world import COMPLETED, DIGEST, WASM, Agent, World

REF = JobRef("local", "j", 3)


def finish(agent: Agent, queue: int = 0) -> list[JobRef]:
    """The worker has done the job; returns the results that it may forget, by the answer to its next report."""
    assert agent.give(Done(agent.session, REF, queue, 0, COMPLETED, stdout=b"out")) == []
    (beat,) = agent.give(Report(agent.session, queue, 0))
    assert type(beat) is Beat
    return [*beat.settled]


def answer(world: World) -> tuple[bytes, int]:
    reply = world.only("c", JobResult)
    return reply.stdout, reply.result.attempt


def test_a_job_goes_on_at_the_worker_that_came_back_before_its_client() -> None:
    # given
    world = World()
    agent = world.worker("w")
    assert agent.register(held=(REF,)) == [Recall(agent.session, REF)]
    agent.give(Returned(agent.session, REF, 1, 0, begun=True))
    # when
    world.run("j")
    # then
    assert agent.look() == [RegisterAgain()] and world.state("j") == "assigned"
    assert agent.register(held=(REF,)) == []
    assert finish(agent) == [REF]
    assert answer(world) == (b"out", 3)


def test_a_job_goes_on_at_the_worker_that_came_back_after_its_client() -> None:
    # given
    world = World()
    world.run("j")
    agent = Agent(world, "w", 1)
    # when
    assert agent.register(held=(REF,)) == []
    # then
    assert world.state("j") == "assigned"
    assert finish(agent) == [REF]
    assert answer(world) == (b"out", 3)


@pytest.mark.parametrize("client_first", [True, False])
def test_a_job_that_has_ended_meanwhile_is_not_run_again(client_first: bool) -> None:
    # given
    world = World()
    agent = Agent(world, "w", 1)
    if client_first:
        world.run("j")
        agent.register(finished=(REF,))
    else:
        agent.register(finished=(REF,))
        world.run("j")
        assert agent.look() == [RegisterAgain()]
        agent.register(finished=(REF,))
    # when
    assert finish(agent) == [REF]
    # then
    assert answer(world) == (b"out", 3)


def test_a_result_that_comes_before_its_client_stays_at_the_worker() -> None:
    # given
    world = World()
    agent = world.worker("w")
    agent.register(held=(REF,))
    # when
    assert finish(agent) == []
    world.run("j")
    # then
    assert agent.look() == [RegisterAgain()]
    agent.register(finished=(REF,))
    assert finish(agent) == [REF]
    assert answer(world) == (b"out", 3)


def test_a_job_that_the_worker_hands_back_begins_anew() -> None:
    # given
    world = World()
    agent = world.worker("w")
    agent.register(held=(REF,))
    # when
    agent.give(Returned(agent.session, REF, 0, 0))
    world.run("j")
    # then
    (dispatch,) = agent.look()
    assert isinstance(dispatch, Dispatch) and dispatch.ref.attempt == 1


def test_a_job_without_retries_that_was_handed_back_has_not_run_and_begins() -> None:
    # given
    world = World()
    agent = world.worker("w")
    agent.register(held=(REF,))
    agent.give(Returned(agent.session, REF, 0, 0))
    # when
    world.give("c", Run(1, "j", JobSpec(DIGEST, retries=0), again=True, wasm=WASM))
    # then
    assert agent.ref("j").attempt == 1


def test_a_claimed_job_can_be_cancelled() -> None:
    # given
    world = World()
    agent = world.worker("w")
    agent.register(held=(REF,))
    world.run("j", detach=True)
    # when
    world.ask("c", Cancel(2, "j"), JobStatus)
    # then
    assert agent.look() == [RegisterAgain(), Stop(agent.session, REF)]
    assert Stop(agent.session + 1, REF) in agent.register(held=(REF,))


def test_what_nobody_claims_is_dropped_in_the_end() -> None:
    # given
    world = World(resend=10.0, liveness=5.0)
    agent = world.worker("w")
    agent.register(held=(REF,))
    # when
    answers = []
    for _ in range(6):
        world.wait(4.0)
        answers += agent.look()
        answers += agent.give(Report(agent.session, 1, 0))
    # then
    assert answers.count(Acknowledge(agent.session, REF, stale=True)) == 1
    world.run("j")
    assert agent.ref("j").attempt == 1


def test_a_claim_on_a_worker_that_is_gone_is_a_new_job() -> None:
    # given
    world = World()
    agent = world.worker("w")
    agent.register(held=(REF,))
    world.wait(6.0)
    # when
    world.run("j")
    # then
    assert world.state("j") == "queued"
    assert world.worker("other").ref("j").attempt == 1
