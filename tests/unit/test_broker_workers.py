"""What workers tell the broker, what it believes, and what it does when one is lost."""

from __future__ import annotations

import pytest

from minilambda.broker.events import Paused, Unreachable
from minilambda.messages import (
    Acknowledge,
    Beat,
    Cancel,
    Dispatch,
    Done,
    Fetch,
    Goodbye,
    JobRef,
    JobResult,
    Message,
    Recall,
    Register,
    RegisterAgain,
    Registered,
    Report,
    Result,
    Returned,
    Stop,
)
from tests.broker_world import Agent, World, kinds


def error_of(world: World, peer: str = "c") -> str:
    result = world.only(peer, JobResult).result
    assert result.error is not None
    return result.error.code


# --- sessions ----------------------------------------------------------------------------------------


def test_a_worker_is_told_its_session_and_the_intervals() -> None:
    world = World(heartbeat=2.0, liveness=9.0, result_keep=40.0)
    (answer,) = world.give("w", Register("w", "w", 1))
    assert answer == Registered("w", answer.session, 2000, 9000, 40_000)


def test_every_registration_is_a_session_of_its_own() -> None:
    world = World()
    agent = world.worker("w")
    first = agent.session
    agent.register()
    assert agent.session > first
    assert kinds(world.give("w", Report(first, 0, 0))) == ["register_again"]


@pytest.mark.parametrize(
    "message",
    [
        Report(1, 0, 0),
        Done(1, JobRef("local", "j", 1), 0, 0, Result("completed")),
        Returned(1, JobRef("local", "j", 1), 0, 0),
        Goodbye(1),
        Fetch(1, "x", 0, 1),
    ],
)
def test_a_worker_that_the_broker_does_not_know_is_told_to_register_again(message: Message) -> None:
    world = World()
    assert world.give("stranger", message) == [RegisterAgain()]
    assert world.core.rejected == {"unknown_session": 1}


def test_a_session_is_worth_nothing_on_another_connection() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    answers = world.give("thief", Done(agent.session, ref, 0, 1, Result("completed", 66)))
    assert answers == [RegisterAgain()]
    assert world.state("j") == "assigned"


def test_a_report_is_answered_by_a_beat() -> None:
    agent = World().worker("w")
    assert agent.report() == [Beat(agent.session)]


def test_a_report_tells_which_jobs_have_started() -> None:
    world = World()
    agent = world.worker("w", 2)
    world.run("j")
    world.run("k", "d")
    agent.report(agent.ref("j"), JobRef("local", "k", 7), JobRef("local", "nope", 1))
    assert (world.state("j"), world.state("k")) == ("running", "assigned")


# --- load --------------------------------------------------------------------------------------------


def test_the_load_counts_what_was_sent_and_is_not_in_the_report_yet() -> None:
    world = World(prefetch=0)
    agent = world.worker("w", 3)
    world.run("j1")
    agent.look()
    world.run("j2", "d")
    world.give("w", Report(agent.session, 1, 1))
    assert world.core.workers.by_id["w"].load == 2


@pytest.mark.parametrize(
    ("queue", "seen"), [(1, 2), (0, 1), (5, 0)], ids=["never sent", "a job vanished", "going back"]
)
def test_a_worker_that_contradicts_what_was_sent_is_told_to_register_again_and_gets_no_jobs(
    queue: int, seen: int
) -> None:
    world = World()
    agent = world.worker("w", 4)
    world.run("j")
    agent.report()
    answers = world.give("w", Report(agent.session, queue, seen))
    assert RegisterAgain() in answers
    assert world.core.rejected["contradiction"] == 1
    world.run("k", "d")
    assert world.state("k") == "queued"
    agent.register(held=(JobRef("local", "j", 1),))
    assert world.state("k") == "assigned"
    assert world.core.jobs["local", "j"].losses == 0


def test_a_worker_that_says_nonsense_many_times_is_told_once_for_each_report() -> None:
    world = World()
    agent = world.worker("w", 4)
    ref = JobRef("local", "nope", 1)
    answers = [world.give("w", Done(agent.session, ref, 0, 99, Result("completed"))) for _ in range(5)]
    assert [RegisterAgain() in answer for answer in answers] == [True, False, False, False, False]


# --- fencing -----------------------------------------------------------------------------------------


def test_a_late_result_of_an_older_attempt_is_dropped_and_acknowledged() -> None:
    world = World(liveness=5.0)
    slow = world.worker("slow")
    world.run("j")
    old = slow.ref("j")
    world.wait(6.0)
    fast = world.worker("fast")
    assert fast.ref("j").attempt == 2
    slow.register(held=(old,))
    answers = slow.give(Done(slow.session, old, 0, 0, Result("completed", 66)))
    assert answers == [Acknowledge(slow.session, old)]
    assert world.take("c") == []
    fast.done("j", Result("completed", 7))
    assert world.only("c", JobResult).result.exit_code == 7


def test_a_result_for_a_job_that_another_worker_has_is_dropped() -> None:
    world = World()
    agent, liar = world.worker("w"), world.worker("liar")
    world.run("j")
    ref = agent.ref("j")
    liar.give(Done(liar.session, ref, 0, 0, Result("completed", 66)))
    assert world.core.rejected == {"stale_result": 1}
    assert world.state("j") == "assigned"


def test_a_result_that_comes_twice_counts_once_and_is_acknowledged_twice() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    agent.done("j")
    assert agent.give(Done(agent.session, ref, 0, 1, Result("completed", 66))) == [Acknowledge(agent.session, ref)]
    assert world.core.jobs["local", "j"].result.exit_code == 0  # type: ignore[union-attr]


# --- registering again -------------------------------------------------------------------------------


def test_a_job_that_the_worker_still_holds_goes_on_after_a_new_registration() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    assert agent.register(held=(ref, ref), peer="new connection") == []
    assert world.core.jobs["local", "j"].losses == 0
    agent.done("j")
    assert world.only("c", JobResult).result.attempt == 1
    assert len(world.core.workers) == 1


def test_a_job_whose_result_the_worker_keeps_ends_with_it_after_a_new_registration() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    agent.register(finished=(ref,))
    assert world.state("j") == "assigned"
    agent.give(Done(agent.session, ref, 0, 0, Result("completed", 3)))
    assert world.only("c", JobResult).result.exit_code == 3


def test_a_job_that_the_worker_no_longer_lists_is_lost() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    agent.look()
    agent.register()
    assert agent.ref("j").attempt == 2
    assert world.core.jobs["local", "j"].losses == 1


def test_a_job_that_still_waits_goes_on_at_the_worker_that_was_taken_for_lost() -> None:
    world = World(liveness=5.0)
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    world.wait(6.0)
    assert world.state("j") == "queued"
    agent.register(held=(ref,))
    assert world.state("j") == "assigned"
    agent.done("j")
    assert world.only("c", JobResult).result.attempt == 1


def test_a_job_that_has_moved_on_is_stopped_at_the_worker_that_comes_back() -> None:
    world = World(liveness=5.0)
    agent = world.worker("w")
    world.run("j")
    ref, gone = agent.ref("j"), JobRef("local", "nobody-knows", 1)
    world.wait(6.0)
    world.worker("other")
    answers = agent.register(held=(ref, gone), finished=(gone,))
    session = agent.session
    assert answers == [
        Stop(session, ref),
        Acknowledge(session, ref),
        Stop(session, gone),
        Acknowledge(session, gone),
        Acknowledge(session, gone),
    ]


def test_a_cancelled_job_is_stopped_again_at_a_worker_that_registers_again() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    ref = agent.ref("j")
    world.give("d", Cancel(1, "j"))
    assert Stop(agent.session + 1, ref) in agent.register(held=(ref,))


def test_another_worker_on_the_same_connection_replaces_the_first() -> None:
    world = World()
    world.worker("first")
    world.run("j")
    Agent(world, "second", 1).register(peer="first")
    assert [worker.name for worker in world.core.workers.sessions.values()] == ["second"]
    assert world.core.jobs["local", "j"].ran_on == "second"


def test_a_thousand_workers_register_and_register_again_each_once() -> None:
    world = World(audited=False)
    agents = [world.worker(f"w{n}") for n in range(1000)]
    for agent in agents:
        agent.register(peer=f"again {agent.name}")
    world.audit()
    assert len(world.core.workers) == 1000


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
