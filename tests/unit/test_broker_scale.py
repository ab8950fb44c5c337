"""What thousands of workers or jobs must not multiply. Work is counted, not timed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from minilambda.broker.events import DiskFailing
from minilambda.broker.jobs import Job
from minilambda.broker.registry import Worker
from minilambda.broker.scheduler import PROBES
from minilambda.broker.settling import Settling
from minilambda.messages import JobSpec, Register, Registered, Report
from tests.broker_world import DIGEST, Agent, World
from tests.unit.test_broker_scheduler import Bench, lines_of


def sessions(world: World, agent: Agent, **past: Any) -> list[int]:
    """The sessions that a registration is answered with."""
    answers = world.give(agent.peer, Register(agent.name, agent.name, agent.slots, **past))
    return [answer.session for answer in answers if type(answer) is Registered]


# --- registrations that come twice -------------------------------------------------------------------


def test_a_worker_that_asks_again_before_it_was_heard_keeps_its_session() -> None:
    world = World()
    agent = world.worker("w")
    world.wait(0.3)
    assert sessions(world, agent) == [agent.session]
    agent.give(Report(agent.session, 0, 0))
    assert world.core.rejected == {}


def test_a_job_that_was_dispatched_between_two_registrations_is_not_lost() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j", retries=0)
    assert sessions(world, agent) == [agent.session]
    assert world.core.jobs["local", "j"].losses == 0 and world.state("j") == "assigned"


def test_a_worker_that_was_heard_gets_another_session_when_it_registers_anew() -> None:
    world = World()
    agent = world.worker("w")
    world.wait(0.3)
    agent.report()
    assert sessions(world, agent, ended=agent.session) != [agent.session]


def test_a_worker_that_has_ended_its_session_gets_another_although_it_was_not_heard() -> None:
    world = World()
    agent = world.worker("w")
    assert sessions(world, agent, ended=agent.session) != [agent.session]


def test_a_worker_that_contradicted_itself_gets_another_session() -> None:
    world = World()
    agent = world.worker("w")
    agent.give(Report(agent.session, 0, 7))  # of a dispatch that was never sent
    assert sessions(world, agent) != [agent.session]


def test_a_worker_that_drains_by_now_keeps_its_session_and_gets_no_job() -> None:
    world = World()
    agent = world.worker("w")
    assert sessions(world, agent, draining=True) == [agent.session]
    world.run("j")
    assert world.state("j") == "queued"


# --- work that must not grow -------------------------------------------------------------------------


class Walked(dict[str, Any]):
    """A mapping that counts how often all of it is looked at."""

    walks = 0

    def values(self) -> Any:
        self.walks += 1
        return super().values()


def test_counting_the_jobs_in_limbo_looks_at_no_worker() -> None:
    settling = Settling()
    settling._jobs = walked = Walked()
    jobs = [Job(("p", f"j{n}"), JobSpec(DIGEST), b"", b"", 0, n, 0.0, 0.0, holder=f"w{n % 3}") for n in range(9)]
    for job in jobs:
        settling.add(job)
    settling.remove(jobs[4])
    assert (len(settling), walked.walks) == (8, 0)


class Asked(OrderedDict[Worker, None]):
    """The workers that know a module, counting how often it is asked whether somebody does."""

    asked = 0

    def __contains__(self, worker: object) -> bool:
        Asked.asked += 1
        return super().__contains__(worker)


def test_for_a_module_that_few_workers_have_no_others_are_asked() -> None:
    bench = Bench(*[1] * (4 * PROBES))
    chosen = bench.dispatch("rare")
    bench.scheduler._warm["rare"] = Asked(bench.scheduler._warm["rare"])
    Asked.asked = 0
    assert bench.scheduler.choose("rare").session != chosen  # that one is busy
    assert Asked.asked == 0


def test_a_disk_that_takes_nothing_is_answered_by_work_in_proportion_to_the_jobs_that_wait_for_it() -> None:
    def measure(count: int) -> int:
        world = World(durable=True, audited=False)
        for number in range(count):
            world.run(f"j{number}", f"c{number}", detach=True)
        work = lines_of(lambda: world.step(DiskFailing(True)))
        assert not world.core.jobs
        return work

    assert measure(400) <= 12 * measure(40)
