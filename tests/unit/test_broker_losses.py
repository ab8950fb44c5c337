"""What happens to jobs whose worker is lost, drains, or is busy while another is free."""

from __future__ import annotations

import pytest

from minilambda.broker.events import Paused, Unreachable
from minilambda.messages import (
    Beat,
    Cancel,
    Dispatch,
    Fetch,
    JobRef,
    JobResult,
    Recall,
    Refused,
    RegisterAgain,
    Report,
)
from tests.broker_world import Agent, World


def error_of(world: World, peer: str = "c") -> str:
    result = world.only(peer, JobResult).result
    assert result.error is not None
    return result.error.code


# --- losses ------------------------------------------------------------------------------------------


def test_a_silent_worker_is_lost_and_its_jobs_run_elsewhere_in_their_order() -> None:
    world = World(liveness=5.0, prefetch=2)
    agent = world.worker("w")
    for number in range(5):
        world.run(f"j{number}", f"c{number}")
    world.wait(4.9)
    assert world.state("j0") == "assigned"
    world.wait(0.2)
    assert not world.core.workers.sessions
    other = world.worker("other", 5)
    assert other.names == ["j0", "j1", "j2", "j3", "j4"]
    assert [ref.attempt for ref in other.jobs] == [2, 2, 2, 1, 1]
    assert agent.report() == [RegisterAgain()]


def test_jobs_of_several_groups_that_lost_their_worker_keep_their_order() -> None:
    world = World(liveness=5.0, prefetch=2)
    world.worker("w")
    for number, group in enumerate("abc"):
        world.run(f"j{number}", f"c{number}", group=group)
    world.run("j3", "c3", group="d")
    world.wait(5.1)
    assert world.worker("other", 5).names == ["j0", "j1", "j2", "j3"]


@pytest.mark.parametrize("message", ["report", "fetch"])
def test_any_message_is_a_sign_of_life(message: str) -> None:
    world = World(liveness=5.0)
    agent = world.worker("w")
    for _ in range(5):
        world.wait(4.0)
        agent.give(Report(agent.session, 0, 0) if message == "report" else Fetch(agent.session, "x", 0, 1))
    assert len(world.core.workers) == 1


def test_after_a_pause_of_the_broker_nobody_is_lost_before_a_whole_liveness_has_passed() -> None:
    world = World(liveness=5.0)
    world.worker("w")
    world.now += 60.0
    world.step(Paused())
    world.wait(4.9)
    assert len(world.core.workers) == 1
    world.wait(0.2)
    assert len(world.core.workers) == 0


def test_a_goodbye_gives_the_jobs_to_others_at_once() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    agent.goodbye()
    assert world.worker("other").ref("j").attempt == 2


def test_a_job_that_loses_three_workers_is_poisoned() -> None:
    world = World(max_losses=3)
    world.run("j", retries=100)
    for attempt in (1, 2, 3):
        agent = world.worker(f"w{attempt}")
        assert agent.ref("j").attempt == attempt
        agent.goodbye()
    assert error_of(world) == "poisoned"


def test_a_job_without_retries_fails_with_its_first_worker() -> None:
    world = World()
    world.run("j", retries=0)
    world.worker("w").goodbye()
    assert error_of(world) == "worker_lost"


def test_a_message_that_can_not_be_sent_takes_the_worker_out_and_its_dispatch_back() -> None:
    world = World()
    agent = world.worker("w", 2)
    world.run("j", retries=0)
    kept = agent.ref("j")
    world.run("k", "d", retries=0)
    lost = agent.ref("k")
    world.step(Unreachable((b"w", b""), agent.jobs.pop(lost)))
    assert (world.state("j"), world.state("k")) == ("assigned", "queued")
    agent.register(held=(kept,), peer="w2")
    assert agent.ref("k").attempt == 2
    assert world.core.jobs["local", "k"].losses == 0


def test_a_worker_that_reads_again_gets_a_new_session() -> None:
    world = World()
    agent = world.worker("w")
    world.step(Unreachable((b"w", b""), Beat(agent.session)))
    assert agent.report() == [RegisterAgain()]
    agent.register()
    world.run("j")
    assert agent.names == ["j"]


def test_a_client_that_can_not_be_reached_changes_nothing() -> None:
    world = World()
    world.run("j")
    world.step(Unreachable((b"c", b""), Beat(1)))
    assert world.state("j") == "queued"
    assert world.core.rejected == {}  # it has left, and got nothing wrong


def test_a_client_whose_answer_found_no_room_is_told_to_ask_again() -> None:
    # given a job that has ended, and a client that is told so
    world = World()
    agent = world.worker("w")
    world.run("j", request=5)
    agent.done("j")
    (answer,) = world.take("c")
    assert type(answer) is JobResult
    world.open["c", 5] += 1  # what was dropped has answered nobody
    # when the answer is dropped
    world.step(Unreachable((b"c", b""), answer, behind=True))
    # then
    refused = world.only("c", Refused)
    assert (refused.request, refused.job, refused.code) == (5, "j", "busy")
    assert refused.retry_after_ms


# --- draining ----------------------------------------------------------------------------------------


def test_a_worker_that_drains_gets_nothing_new_and_can_hand_back_without_a_loss() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    world.run("k", "d", retries=0)
    agent.look()
    agent.draining = True
    agent.report(agent.ref("j"))
    agent.hand_back(agent.ref("k"))
    assert (world.state("k"), world.core.jobs["local", "k"].losses) == ("queued", 0)
    world.run("l", "e")
    assert agent.names == ["j"]
    agent.done("j")
    agent.goodbye()
    other = world.worker("other")
    assert other.names == ["k", "l"]
    assert other.ref("k").attempt == 2


def test_a_worker_that_hands_back_unasked_does_not_get_the_job_at_once_again() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    agent.hand_back(agent.ref("j"))
    assert agent.names == []
    agent.report()
    assert agent.names == ["j"]


# --- recall ------------------------------------------------------------------------------------------


def surplus(world: World) -> tuple[Agent, Agent]:
    """A busy worker with two more jobs than slots, and a free one that has just come."""
    busy = world.worker("busy")
    for number in range(3):
        world.run(f"j{number}", f"c{number}")
    assert busy.names == ["j0", "j1", "j2"]
    return busy, world.worker("free")


def test_the_last_unstarted_job_is_recalled_for_a_free_worker_after_a_moment() -> None:
    world = World(recall_after=0.5, prefetch=2)
    busy, free = surplus(world)
    world.wait(0.4)
    assert busy.recalls() == []
    world.wait(0.2)
    (ref,) = busy.recalls()
    assert ref.job == "j2"
    assert free.names == []
    busy.hand_back(ref)
    assert free.ref("j2").attempt == 2
    assert world.core.jobs["local", "j2"].losses == 0


def test_there_is_one_recall_for_each_free_slot() -> None:
    world = World(recall_after=0.5, prefetch=3)
    busy = world.worker("busy")
    for number in range(4):
        world.run(f"j{number}", f"c{number}")
    world.worker("free", 2)
    world.wait(1.0)
    assert [ref.job for ref in busy.recalls()] == ["j3", "j2"]
    world.wait(1.0)
    assert busy.recalls() == []


def test_a_job_that_has_begun_stays_and_is_not_asked_for_again() -> None:
    world = World(recall_after=0.5, prefetch=1)
    busy = world.worker("busy")
    world.run("j0")
    world.run("j1", "d")
    world.worker("free")
    world.wait(1.0)
    (ref,) = busy.recalls()
    busy.hand_back(ref, begun=True)
    world.wait(1.0)
    assert busy.recalls() == []
    assert world.core.recalls == 0


def test_a_running_job_is_not_recalled() -> None:
    world = World(recall_after=0.5, prefetch=1)
    busy = world.worker("busy")
    world.run("j0")
    world.run("j1", "d")
    busy.report(busy.ref("j0"), busy.ref("j1"))
    world.worker("free")
    world.wait(1.0)
    assert busy.recalls() == []


def test_a_recall_that_meets_the_result_is_over() -> None:
    world = World(recall_after=0.5, prefetch=2)
    busy, free = surplus(world)
    world.wait(1.0)
    assert [ref.job for ref in busy.recalls()] == ["j2"]
    busy.done("j2")
    assert world.core.recalls == 1
    (ref,) = [ref for ref in busy.jobs if world.core.jobs["local", ref.job].recalled]
    assert ref.job == "j1"
    busy.hand_back(ref)
    assert free.names == ["j1"]


def test_a_recall_that_meets_a_result_whose_output_is_still_to_come_is_over() -> None:
    world = World(recall_after=0.5, prefetch=1)
    busy = world.worker("busy")
    world.run("j0")
    world.run("j1", "d")
    world.worker("free")
    world.wait(1.0)
    assert len(busy.recalls()) == 1
    busy.done("j1", withheld={"stdout": 10})
    assert world.core.recalls == 0


def test_a_cancelled_job_that_comes_back_from_a_recall_ends() -> None:
    world = World(recall_after=0.5, prefetch=2)
    busy, free = surplus(world)
    world.wait(1.0)
    (ref,) = busy.recalls()
    world.give("x", Cancel(1, "j2"))
    busy.hand_back(ref)
    assert world.state("j2") == "cancelled"
    assert free.names == []


def test_jobs_that_waited_at_a_worker_through_a_new_registration_are_recalled_too() -> None:
    world = World(recall_after=0.5, prefetch=2)
    busy, _ = surplus(world)
    busy.register(held=tuple(busy.jobs))
    world.wait(1.0)
    assert [ref.job for ref in busy.recalls()] == ["j2"]


def test_a_dispatch_says_whom_it_is_for() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    (message,) = world.take("w")
    assert type(message) is Dispatch
    assert (message.session, message.sequence, message.ref) == (agent.session, 1, JobRef("local", "j", 1))
    assert not isinstance(message, Recall)


def test_a_job_that_was_asked_back_and_is_not_there_after_a_registration_is_not_lost() -> None:
    # given a job without retries that waits behind another, and is recalled for a worker that is free
    world = World(recall_after=0.001)
    agent = world.worker("w")
    world.run("j", "c")
    world.run("k", "d", retries=0)
    agent.report(agent.ref("j"))
    kept, given = agent.ref("j"), agent.ref("k")
    other = world.worker("other")
    world.wait(0.01)
    assert agent.recalls() == [given]
    # when the worker's answer is lost between two registrations
    agent.register(held=(kept,))
    # then
    job = world.core.jobs["local", "k"]
    assert (job.losses, other.ref("k").attempt) == (0, 2)
