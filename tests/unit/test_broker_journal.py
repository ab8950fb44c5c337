"""What the broker promises for detached jobs: nothing is said before the disk has it, nothing said is lost."""

from __future__ import annotations

import pytest

from minilambda.broker.events import DiskFailing, DiskWorks, ModuleUnsaved
from minilambda.broker.records import JobAccepted, JobEnded, JobMoved, ModuleKept, WorkerKnown
from minilambda.messages import (
    Accepted,
    Cancel,
    Dispatch,
    Done,
    ErrorInfo,
    GetResult,
    GetStatus,
    JobList,
    JobResult,
    JobStatus,
    ListJobs,
    Message,
    Refused,
    Registered,
    Result,
    RunAgain,
    Stop,
)
from tests.broker_world import COMPLETED, DIGEST, Agent, World, kinds


def durable(**settings: object) -> World:
    return World(durable=True, **settings)


def synced_worker(world: World, name: str, slots: int = 1) -> Agent:
    """A worker that has got its session once the disk knew it."""
    agent = Agent(world, name, slots)
    register(world, agent)
    return agent


def register(world: World, agent: Agent, **refs: object) -> list[Message]:
    from minilambda.messages import Register

    message = Register(agent.name, agent.name, agent.slots, draining=agent.draining, **refs)
    got = world.give(agent.peer, message)
    world.sync()
    got += world.take(agent.peer)
    registered = next(each for each in got if type(each) is Registered)
    agent.session, agent.seen, agent.jobs = registered.session, 0, {}
    return agent._hear([each for each in got if each is not registered])


def code(messages: list[Message]) -> str:
    (message,) = messages
    assert isinstance(message, Refused), message
    return message.code


def accept(world: World, job: str = "j", **rest: object) -> None:
    world.run(job, "c", detach=True, **rest)
    world.sync()
    world.only("c", Accepted)


# --- nothing before the disk has it ------------------------------------------------------------------


def test_a_detached_job_is_acknowledged_when_it_and_its_module_are_on_the_disk() -> None:
    world = durable()
    assert world.run("j", detach=True) == []
    assert [type(record) for record in world.writes[0].records] == [ModuleKept, JobAccepted, JobMoved]
    world.sync()
    assert world.only("c", Accepted).state == "queued"


def test_a_waiting_job_touches_no_disk() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    world.run("j")
    agent.done("j")
    assert world.only("c", JobResult).result.state == "completed"
    assert world.writes == []


def test_without_a_journal_nothing_waits() -> None:
    world = World()
    assert kinds(world.run("j", detach=True)) == ["accepted"]
    agent = world.worker("w")
    assert agent.names == ["j"]
    agent.done("j")
    assert kinds(world.give("c", GetResult(2, "j"))) == ["result"]
    assert world.writes == []


def test_a_worker_is_registered_when_the_disk_knows_it() -> None:
    world = durable()
    agent = Agent(world, "w", 1)
    from minilambda.messages import Register

    assert world.give("w", Register("w", "w", 1)) == []
    assert [type(record) for record in world.writes[0].records] == [WorkerKnown]
    world.sync()
    world.only(agent.peer, Registered)


def test_no_worker_has_an_attempt_that_a_crash_forgets() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    world.run("j", detach=True)
    assert agent.look() == []
    world.sync()
    assert agent.ref("j").attempt == 1


def test_a_result_counts_when_it_is_on_the_disk() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    accept(world)
    world.give("d", GetResult(7, "j", 1000))
    assert agent.done("j") == []
    assert world.take("d") == []
    assert world.give("e", GetStatus(8, "j")) == []
    world.sync()
    assert world.only("d", JobResult).result.state == "completed"
    assert world.only("e", JobStatus).state == "completed"
    assert kinds(agent.look()) == ["acknowledge"]


def test_a_dispatch_that_waits_for_the_disk_is_numbered_when_it_goes() -> None:
    world = durable()
    agent = synced_worker(world, "w", 4)
    world.run("slow", "c", detach=True)
    world.run("quick", "d")
    assert agent.names == ["quick"] and agent.seen == 1
    agent.report()
    assert world.core.workers.sessions[agent.session].measure() == 2
    assert world.core.rejected == {}
    world.sync()
    assert agent.names == ["quick", "slow"] and agent.seen == 2
    agent.done("slow")
    agent.done("quick")
    assert world.core.rejected == {}


def test_a_stop_never_overtakes_its_dispatch() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    world.run("j", detach=True)
    world.give("d", Cancel(3, "j"))
    assert agent.look() == []
    world.sync()
    assert kinds(agent.look()) == ["dispatch", "stop"]


def test_a_dispatch_that_waits_is_dropped_when_its_worker_is_gone() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    world.run("j", detach=True)
    agent.goodbye()
    world.sync()
    assert agent.look() == []
    other = synced_worker(world, "other")
    world.sync()
    assert other.ref("j").attempt == 2


def test_a_waiting_job_that_is_asked_for_with_detach_outlives_the_broker_from_then_on() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    world.run("j")
    assert agent.names == ["j"] and world.writes == []
    world.run("j", "d", request=2, detach=True)
    world.sync()
    assert world.only("d", Accepted).state == "assigned"
    world.crash()
    register(world, agent, held=(world.core.jobs["local", "j"].ref,))
    assert world.state("j") == "assigned"


def test_an_ended_job_that_is_asked_for_with_detach_keeps_its_result() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    world.run("j", stdin=b"in")
    agent.done("j", stdout=b"out")
    world.run("j", "d", request=2, detach=True, stdin=b"in")
    world.sync()
    world.crash()
    assert world.ask("e", GetResult(1, "j"), JobResult).stdout == b"out"


# --- after a crash -----------------------------------------------------------------------------------


def test_jobs_that_wait_are_queued_again_in_order_of_acceptance() -> None:
    world = durable()
    for number in range(5):
        accept(world, f"j{number}", stdin=b"in", args=("a", "b"), env={"A": "b"}, retries=7)
    world.crash()
    assert {world.state(f"j{number}") for number in range(5)} == {"queued"}
    agent = synced_worker(world, "w", 5)
    assert agent.names == [f"j{number}" for number in range(5)]
    dispatch = next(iter(agent.jobs.values()))
    assert (dispatch.stdin, dispatch.spec.args, dispatch.spec.env, dispatch.spec.retries) == (
        b"in",
        ("a", "b"),
        {"A": "b"},
        7,
    )


def test_what_was_not_acknowledged_may_be_gone() -> None:
    world = durable()
    world.run("j", detach=True)
    world.crash()
    assert code(world.give("d", GetStatus(1, "j"))) == "not_found"


def test_a_job_that_is_sent_again_after_a_crash_is_the_same_job() -> None:
    world = durable()
    accept(world, stdin=b"in")
    world.crash()
    assert world.run("j", detach=True, stdin=b"in") == [Accepted(1, "j", "queued")]
    assert code(world.run("j", detach=True, stdin=b"other")) == "conflict"
    assert len(world.core.queue) == 1


def test_a_worker_that_comes_back_goes_on_with_its_job() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    accept(world, retries=0)
    world.sync()
    ref = agent.ref("j")
    world.crash()
    assert world.ask("d", GetStatus(1, "j"), JobStatus).state == "queued"
    other = synced_worker(world, "other")
    assert other.names == [] and world.state("j") == "limbo"
    assert register(world, agent, held=(ref,)) == []
    assert world.state("j") == "assigned"
    agent.give(Done(agent.session, ref, 0, 0, COMPLETED, stdout=b"out"))
    world.sync()
    assert world.ask("d", GetResult(1, "j"), JobResult).result.attempt == 1
    assert kinds(agent.look()) == ["acknowledge"]


def test_a_worker_that_comes_back_with_the_result_is_believed() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    accept(world, retries=0)
    world.sync()
    ref = agent.ref("j")
    agent.done("j", stdout=b"lost with the broker")
    world.crash()
    assert register(world, agent, finished=(ref,)) == []
    agent.give(Done(agent.session, ref, 0, 0, COMPLETED, stdout=b"out"))
    world.sync()
    assert world.ask("d", GetResult(1, "j"), JobResult).stdout == b"out"


@pytest.mark.parametrize(("retries", "state", "losses"), [(0, "failed", 1), (2, "queued", 1)])
def test_a_worker_that_does_not_come_back_within_the_liveness_bound_is_lost(
    retries: int, state: str, losses: int
) -> None:
    world = durable(liveness=5.0)
    agent = synced_worker(world, "w")
    accept(world, retries=retries)
    world.sync()
    assert agent.names == ["j"]
    world.crash()
    world.wait(4.9)
    assert world.state("j") == "limbo"
    world.wait(0.2)
    job = world.core.jobs["local", "j"]
    assert (job.state, job.losses) == (state, losses)
    assert job.code == ("worker_lost" if state == "failed" else "")


@pytest.mark.parametrize(("retries", "state"), [(0, "failed"), (1, "assigned")])
def test_a_worker_that_comes_back_without_its_job_costs_no_loss(retries: int, state: str) -> None:
    world = durable()
    agent = synced_worker(world, "w")
    accept(world, retries=retries)
    world.sync()
    assert agent.names == ["j"]
    world.crash()
    register(world, agent)
    job = world.core.jobs["local", "j"]
    assert job.state == state
    if retries:
        assert (agent.ref("j").attempt, job.losses) == (2, 0)


def test_losses_are_counted_over_crashes_until_the_job_is_poisoned() -> None:
    world = durable(liveness=5.0)
    accept(world, retries=100, stdin=b"in")
    for number in range(3):
        agent = synced_worker(world, f"w{number}")
        world.sync()
        assert agent.ref("j").attempt == number + 1
        world.crash()
        world.wait(5.1)
        world.sync()
    world.crash()
    assert world.core.jobs["local", "j"].code == "poisoned"


def test_an_attempt_of_before_the_crash_never_comes_again() -> None:
    world = durable(liveness=5.0)
    agent = synced_worker(world, "w")
    accept(world)
    world.sync()
    old = agent.ref("j")
    world.crash()
    world.wait(5.1)
    other = synced_worker(world, "other")
    world.sync()
    assert other.ref("j").attempt == old.attempt + 1
    answers = register(world, agent, held=(old,))
    assert kinds(answers) == ["stop", "acknowledge"]


def test_a_cancel_outlives_the_broker() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    accept(world)
    world.sync()
    ref = agent.ref("j")
    world.give("d", Cancel(3, "j"))
    world.sync()
    assert world.only("d", JobStatus).cancelling
    world.crash()
    assert register(world, agent, held=(ref,)) == [Stop(agent.session, ref)]


def test_a_job_in_limbo_can_be_cancelled() -> None:
    world = durable(liveness=5.0)
    agent = synced_worker(world, "w")
    accept(world, retries=0)
    world.sync()
    assert agent.names == ["j"]
    world.crash()
    world.give("d", Cancel(3, "j"))
    world.sync()
    assert world.only("d", JobStatus).cancelling
    world.wait(5.1)
    assert world.state("j") == "cancelled"


def test_results_keep_what_is_left_of_their_time_whatever_the_clock_does() -> None:
    for wall, left in ((0.0, 289.0), (-3600.0, 300.0), (3600.0, 60.0)):
        world = durable(result_ttl=300.0)
        agent = synced_worker(world, "w")
        accept(world)
        world.sync()
        agent.done("j", stdout=b"out")
        world.sync()
        world.wait(1.0)
        world.crash(10.0, wall)
        world.wait(left - 0.5)
        assert world.ask("d", GetResult(1, "j"), JobResult).stdout == b"out"
        world.wait(1.0)
        assert code(world.give("d", GetResult(1, "j"))) == "expired"


def test_a_result_that_is_gone_has_expired_also_after_a_crash() -> None:
    world = durable(result_ttl=60.0)
    agent = synced_worker(world, "w")
    accept(world)
    world.sync()
    agent.done("j")
    world.wait(61.0)
    world.sync()
    world.crash()
    assert code(world.give("d", GetResult(1, "j"))) == "expired"
    assert code(world.run("j")) == "expired"


def test_a_module_that_the_disk_has_lost_fails_its_jobs() -> None:
    world = durable()
    accept(world)
    world.disk.execute("DELETE FROM modules")
    world.crash()
    world.sync()
    result = world.ask("d", GetResult(1, "j"), JobResult).result
    assert result.error is not None and result.error.code == "internal"


def test_a_principal_may_run_the_modules_of_its_jobs_by_hash_after_a_crash_and_nobody_else() -> None:
    world = durable()
    accept(world)
    world.crash()
    assert world.run("k", "c", wasm=b"", principal="local") != []  # other hash: of no bytes
    from minilambda.messages import JobSpec, Run

    assert world.give("c", Run(2, "l", JobSpec(DIGEST))) == []
    assert code(world.give("e", Run(2, "l", JobSpec(DIGEST)), "stranger")) == "not_found"


# --- waiting clients, settling -----------------------------------------------------------------------


def test_a_waiting_job_that_is_sent_again_waits_until_it_is_known_where_it_is() -> None:
    world = durable(liveness=5.0)
    agent = synced_worker(world, "w")
    other = synced_worker(world, "other")
    world.run("j")
    ref = agent.ref("j")
    world.crash()
    world.run("j")
    register(world, other)
    assert world.state("j") == "limbo"
    assert register(world, agent, held=(ref,)) == []
    assert world.state("j") == "assigned"
    agent.give(Done(agent.session, ref, 0, 0, COMPLETED, stdout=b"out"))
    assert world.only("c", JobResult).result.attempt == 1


def test_when_all_workers_are_back_a_job_that_none_has_is_queued() -> None:
    world = durable(liveness=5.0)
    agents = [synced_worker(world, name) for name in ("v", "w")]
    world.crash()
    world.run("j")
    register(world, agents[0])
    assert world.state("j") == "limbo"
    register(world, agents[1])
    assert world.state("j") == "assigned"


def test_a_job_is_not_held_for_longer_than_the_liveness_bound() -> None:
    world = durable(liveness=5.0)
    synced_worker(world, "w")
    world.crash()
    world.run("j")
    other = synced_worker(world, "other")
    world.wait(4.0)
    other.report()
    world.wait(0.9)
    assert other.names == []
    world.wait(0.2)
    assert other.names == ["j"]


def test_a_new_detached_job_is_not_held() -> None:
    world = durable()
    synced_worker(world, "w")
    world.crash()
    accept(world)
    assert world.state("j") == "queued"


def test_a_broker_that_knew_no_workers_holds_nothing() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    agent.goodbye()
    world.sync()
    world.crash()
    world.run("j")
    assert world.state("j") == "queued"


def test_a_lost_worker_is_not_waited_for() -> None:
    world = durable(liveness=5.0)
    synced_worker(world, "w")
    world.wait(5.1)
    world.sync()
    world.crash()
    world.run("j")
    assert world.state("j") == "queued"


# --- poisoned jobs -----------------------------------------------------------------------------------


def poison(world: World, job: str = "j") -> None:
    for number in range(3):
        synced_worker(world, f"w{number}").goodbye()
        world.sync()
    assert world.core.jobs["local", job].code == "poisoned"


def test_poisoned_jobs_are_listed_and_can_be_run_again_with_their_input() -> None:
    world = durable()
    accept(world, retries=100, stdin=b"in")
    poison(world)
    world.crash()
    (row,) = world.ask("d", ListJobs(1, "poisoned"), JobList).jobs
    assert (row["job"], row["state"], row["losses"], row["module"]) == ("j", "failed", 3, DIGEST)
    world.give("d", RunAgain(2, "k", "j"))
    world.sync()
    assert world.only("d", Accepted).job == "k"
    agent = synced_worker(world, "w")
    world.sync()
    (dispatch,) = agent.jobs.values()
    assert (dispatch.ref.job, dispatch.ref.attempt, dispatch.stdin) == ("k", 1, b"in")
    assert world.core.jobs["local", "j"].code == "poisoned"


def test_a_job_whose_input_is_gone_can_not_be_run_again() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j", stdin=b"in")
    agent.done("j", Result("failed", error=ErrorInfo("trap", "x")))
    assert code(world.give("d", RunAgain(2, "k", "j"))) == "bad_request"
    world.run("n")
    assert code(world.give("d", RunAgain(2, "k", "n"))) == "conflict"
    assert code(world.give("d", RunAgain(2, "k", "unknown"))) == "not_found"


def test_a_job_without_input_can_be_run_again_and_again_under_the_same_id() -> None:
    world = World()
    agent = world.worker("w", 2)
    world.run("j")
    agent.done("j")
    assert kinds(world.give("d", RunAgain(2, "k", "j"))) == ["accepted"]
    assert kinds(world.give("d", RunAgain(3, "k", "j"))) == ["accepted"]
    assert agent.names == ["k"]


def test_jobs_are_listed_by_state_newest_first_and_of_one_principal() -> None:
    world = World()
    agent = world.worker("w")
    for name in "abc":
        world.run(name, name)
    world.run("x", "x", principal="stranger")
    agent.done("a")
    rows = world.ask("d", ListJobs(1), JobList).jobs
    assert [row["job"] for row in rows] == ["c", "b", "a"]
    assert [row["job"] for row in world.ask("d", ListJobs(1, "completed"), JobList).jobs] == ["a"]
    assert [row["job"] for row in world.ask("d", ListJobs(1, "", 1), JobList).jobs] == ["c"]


# --- a disk that fails -------------------------------------------------------------------------------


def test_a_full_disk_refuses_detached_jobs_and_nothing_else() -> None:
    world = durable()
    agent = synced_worker(world, "w", 4)
    accept(world)
    world.step(DiskFailing(False))
    assert code(world.run("k", detach=True)) == "storage_failed"
    assert kinds(world.run("j", detach=True)) == ["accepted"]
    world.run("waiting", "d")
    assert agent.names == ["j", "waiting"]
    agent.done("j")
    world.sync()
    assert world.ask("e", GetResult(1, "j"), JobResult).result.state == "completed"
    world.step(DiskWorks())
    accept(world, "k")


def test_a_disk_that_takes_nothing_withdraws_what_was_not_acknowledged() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    accept(world, "safe")
    world.run("j", "d", detach=True)
    world.run("k", "e", detach=True)
    world.step(DiskFailing(True))
    assert code(world.take("d")) == code(world.take("e")) == "storage_failed"
    assert list(world.core.jobs) == [("local", "safe")]
    world.sync()
    assert agent.names == ["safe"]
    world.crash()
    assert list(world.core.jobs) == [("local", "safe")]


def test_a_disk_that_takes_nothing_keeps_no_worker_out() -> None:
    world = durable()
    world.step(DiskFailing(True))
    agent = world.worker("w")
    world.run("j")
    assert agent.names == ["j"]


def test_a_worker_that_registers_when_the_disk_stops_is_told_of_it_first() -> None:
    world = durable()
    from minilambda.messages import Register

    world.give("w", Register("w", "w", 1))
    world.run("j")
    world.step(DiskFailing(True))
    assert [type(message) for message in world.take("w")] == [Registered, Dispatch]


def test_a_module_that_the_disk_has_no_room_for_refuses_its_job() -> None:
    world = durable()
    world.run("j", detach=True)
    world.step(ModuleUnsaved(DIGEST))
    assert code(world.take("c")) == "storage_failed"
    world.sync()
    world.crash()
    assert not [job for job in world.core.jobs.values() if not job.ended]


def test_a_waiting_client_is_served_where_only_the_promise_failed() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    world.run("j")
    world.run("j", "d", request=2, detach=True)
    world.step(DiskFailing(True))
    assert code(world.take("d")) == "storage_failed"
    agent.done("j", stdout=b"out")
    assert world.only("c", JobResult).stdout == b"out"


def test_the_record_of_an_end_is_whole() -> None:
    world = durable()
    agent = synced_worker(world, "w")
    accept(world, stdin=b"in")
    world.sync()
    agent.done("j", Result("completed", 3, tier="warm"), stdout=b"o", stderr=b"e", value=b"\x01")
    (record,) = [record for write in world.writes for record in write.records if isinstance(record, JobEnded)]
    world.sync()
    before = world.ask("d", GetResult(1, "j"), JobResult)
    world.crash()
    assert record.drops_input
    assert world.ask("d", GetResult(1, "j"), JobResult) == before
