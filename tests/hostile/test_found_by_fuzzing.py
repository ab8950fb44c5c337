"""What the fuzzers and the hostile modules have found, each as it was found."""

from __future__ import annotations

from pathlib import Path

from minilambda.broker.events import DiskFailing
from minilambda.broker.jobs import MAX_ATTEMPTS
from minilambda.messages import Dispatch, Goodbye, JobRef, JobSpec, Refused, Register, Run
from tests import wat
from tests.broker_world import WASM, World, digest_of
from tests.cluster import running_cluster
from tests.hostile.expected import FOLDER


def test_a_disk_that_fails_twice_withdraws_a_job_once() -> None:
    # given a detached job whose acceptance is not on the disk, and another one that needs the module too
    world = World(durable=True)
    world.run("kept", peer="a", wasm=WASM)
    world.run("withdrawn", peer="b", detach=True, wasm=WASM)
    # when
    world.step(DiskFailing(True))
    assert isinstance(world.take("b")[-1], Refused)
    held = world.core.input_bytes, dict(world.core.modules.needs())
    for _ in range(3):
        world.step(DiskFailing(True))
    # then what was given back is given back once, and the one that waits is still there
    assert (world.core.input_bytes, world.core.modules.needs()) == held == (held[0], {digest_of(WASM): 1})
    assert set(world.core.jobs) == {("local", "kept")}


def test_a_disk_that_goes_on_failing_takes_nothing_from_the_job_that_was_sent_again() -> None:
    # given a job that was withdrawn, and that its client has sent again as a waiting one
    world = World(durable=True)
    world.run("j", peer="a", detach=True)
    world.step(DiskFailing(True))
    world.run("j", peer="a", request=2)
    # when
    world.step(DiskFailing(True))
    # then
    assert world.state("j") == "queued"


def test_a_worker_that_claims_an_attempt_beyond_all_numbers_leaves_a_job_that_ends() -> None:
    # given a broker that was restarted, and a worker that claims the highest attempt that can be said
    world = World()
    claim = JobRef("local", "j", 1_000_000)
    world.give("liar", Register("liar", "liar", 1, held=(claim,)))
    spec = JobSpec(digest_of(WASM), retries=5)
    world.give("c", Run(1, "j", spec, again=True, wasm=WASM))
    assert world.core.jobs["local", "j"].attempt == claim.attempt
    # when it goes, and honest ones are there
    world.worker("honest")
    session = next(worker.session for worker in world.core.workers.sessions.values() if worker.id == "liar")
    world.give("liar", Goodbye(session))
    # then the job is not given to anybody under a number that nobody can read
    ended = world.core.jobs["local", "j"]
    assert ended.state == "failed" and ended.code == "poisoned"
    assert not [message for message in world.take("honest") if isinstance(message, Dispatch)]


def test_a_job_that_is_handed_back_for_ever_ends() -> None:
    # given a job that workers have handed back nearly as often as can be
    world = World()
    world.run("j", peer="c")
    job = world.core.jobs["local", "j"]
    job.attempt = MAX_ATTEMPTS - 3
    agent = world.worker("w")
    # when
    for number in range(3):
        assert agent.ref("j").attempt == MAX_ATTEMPTS - 2 + number
        agent.hand_back(agent.ref("j"))
        agent.register()  # it is willing again
    # then
    assert job.code == "poisoned"
    assert agent.names == []


def test_a_guest_with_a_large_memory_leaves_enough_for_the_next_one_with_a_small_limit(tmp_path: Path) -> None:
    # given a runner whose pool still has the memory of a guest that was allowed much
    large = wat.wasm((FOLDER / "two_million_subscriptions.wat").read_text())
    with running_cluster(tmp_path, workers=[("--slots", "1")]) as cluster, cluster.connect() as client:
        for number in range(2):
            result = client.run(large, memory="1G", timeout=30, check=False)
            assert result.error is not None and result.error.code == "trap"
            # when
            next_one = client.run(wat.wasm(wat.printing(f"small {number}")), memory="16M")
            # then
            assert next_one.stdout == f"small {number}".encode()
