"""What workers tell the broker, and what of it is believed."""

from __future__ import annotations

import pytest

from minilambda.messages import (
    Acknowledge,
    Beat,
    Cancel,
    Done,
    Fetch,
    Goodbye,
    JobRef,
    JobResult,
    Message,
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
    assert answers == [Acknowledge(slow.session, old, stale=True)]
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


def test_a_result_of_an_older_attempt_is_dropped_even_from_the_worker_that_has_the_newer_one() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    old = agent.ref("j")
    agent.register()
    assert agent.ref("j").attempt == 2
    agent.give(Done(agent.session, old, 1, agent.seen, Result("completed", 66)))
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


def test_a_job_whose_dispatch_never_arrived_is_not_lost() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j", retries=0)
    agent.register()
    assert agent.ref("j").attempt == 2
    assert world.core.jobs["local", "j"].losses == 0


def test_a_registration_that_crossed_another_says_nothing_of_the_session_between() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j", retries=0)
    agent.session = 0  # it was sent before the present session was known
    agent.register(peer="w, connected anew")
    assert world.only("c", JobResult).result.error.code == "worker_lost"


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
    world = World(liveness=5.0, resend=0.5)
    agent = world.worker("w")
    world.run("j")
    ref, gone = agent.ref("j"), JobRef("local", "nobody-knows", 1)
    world.wait(6.0)
    world.worker("other")
    answers = agent.register(held=(ref, gone), finished=(gone,))
    session = agent.session
    assert answers == [
        Stop(session, ref),
        Acknowledge(session, ref, stale=True),
        Stop(session, gone),
        Acknowledge(session, gone, stale=True),
        Acknowledge(session, gone, stale=True),
    ]


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_worker_can_not_claim_the_job_of_another_nor_another_attempt(attempt: int) -> None:
    world = World()
    agent, liar = world.worker("w"), world.worker("liar")
    world.run("j")
    agent.report()
    ref = JobRef("local", "j", attempt)
    claimant = liar if attempt == 1 else agent
    stopped = [message.ref for message in claimant.register(held=(ref,)) if type(message) is Stop]
    assert stopped == [ref]
    assert world.core.jobs["local", "j"].losses == (0 if claimant is liar else 1)


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
