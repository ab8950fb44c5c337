"""How much a worker may have in hand: short jobs by the time that they take, long ones by number."""

from __future__ import annotations

from typing import Any

import pytest

from minilambda.broker.forecast import HANDING_OVER, MAX_MODULES, UNKNOWN, Forecast
from minilambda.messages import Result, Usage
from tests.broker_world import Agent, World


def took(run_ms: float, load_ms: float = 0.0) -> Result:
    return Result("completed", 0, usage=Usage(run_ms=run_ms, load_ms=load_ms))


def busy_worker(world: World, run_ms: float, slots: int = 1, jobs: int = 100, **spec: Any) -> Agent:
    """A worker that has told once what a job of the module takes, and has its share of those that wait."""
    agent = world.worker("w", slots)
    world.run("first", "c0")
    agent.done("first", took(run_ms))
    for number in range(jobs):
        world.run(f"j{number}", f"c{number}", **spec)
    return agent


def test_the_length_of_a_module_of_which_nothing_is_known_is_as_good_as_for_ever() -> None:
    assert Forecast().of("sha256:a") == UNKNOWN


def test_the_mean_is_that_of_what_the_jobs_took_with_their_handing_over() -> None:
    forecast = Forecast()
    for _ in range(3):
        forecast.note("sha256:a", 2.0)
    assert forecast.of("sha256:a") == 2000 + HANDING_OVER


def test_one_long_run_among_short_ones_is_felt_at_once_and_forgotten_slowly() -> None:
    forecast = Forecast()
    forecast.note("sha256:a", 0.1)
    forecast.note("sha256:a", 10_000.0)
    after = forecast.of("sha256:a")
    assert after > 100_000
    for _ in range(64):
        forecast.note("sha256:a", 0.1)
    assert after / 4 < forecast.of("sha256:a") < after / 2


def test_modules_are_remembered_in_bounded_number() -> None:
    forecast = Forecast()
    for number in range(MAX_MODULES + 10):
        forecast.note(f"sha256:{number}", 1.0)
    known = [number for number in range(MAX_MODULES + 10) if forecast.of(f"sha256:{number}") != UNKNOWN]
    assert known == list(range(10, MAX_MODULES + 10))


def test_a_worker_holds_as_many_short_jobs_as_it_does_in_the_time() -> None:
    # each takes 0.75 ms and 0.25 ms more until the next one runs
    agent = busy_worker(World(prefetch=2, prefetch_time=0.005), run_ms=0.75)
    assert len(agent.names) == 5


def test_each_slot_adds_to_what_it_holds() -> None:
    agent = busy_worker(World(prefetch=2, prefetch_time=0.005), run_ms=0.75, slots=3)
    assert len(agent.names) == 15


@pytest.mark.parametrize("run_ms", [5.0, 1000.0])
def test_a_worker_of_long_jobs_holds_the_prefetch_and_no_more(run_ms: float) -> None:
    agent = busy_worker(World(prefetch=2, prefetch_time=0.005), run_ms)
    assert len(agent.names) == 3


def test_few_jobs_that_may_not_run_again_wait_at_a_worker_however_short_they_are() -> None:
    agent = busy_worker(World(prefetch=2, prefetch_time=0.005), run_ms=0.75, retries=0)
    assert len(agent.names) == 3


def test_without_prefetch_a_worker_holds_no_short_jobs_either() -> None:
    agent = busy_worker(World(prefetch=0, prefetch_time=0.005), run_ms=0.1)
    assert len(agent.names) == 1


def test_however_short_they_are_there_is_an_end_to_what_it_holds() -> None:
    agent = busy_worker(World(prefetch=2, prefetch_time=3600.0), run_ms=0.1)
    assert len(agent.names) == 32


def test_a_worker_is_topped_up_as_its_jobs_end() -> None:
    agent = busy_worker(World(prefetch=2, prefetch_time=0.005), run_ms=0.75)
    for job in agent.names[:3]:
        agent.done(job, took(0.75))
    assert agent.names == ["j3", "j4", "j5", "j6", "j7"]


def test_a_job_that_turns_out_long_keeps_more_from_piling_up_behind_it() -> None:
    world = World(prefetch=2, prefetch_time=0.005)
    agent = busy_worker(world, run_ms=0.75, jobs=20)
    agent.done("j0", took(60_000.0))
    while len(names := agent.names) > 3:
        agent.done(names[0], took(0.75))
    agent.done(agent.names[0], took(0.75))
    assert len(agent.names) == 3


def test_jobs_that_wait_behind_others_are_recalled_for_a_free_worker() -> None:
    world = World(prefetch=2, prefetch_time=0.005, recall_after=0.005)
    busy = busy_worker(world, run_ms=0.75, jobs=5)
    assert busy.names == ["j0", "j1", "j2", "j3", "j4"]
    world.worker("free")
    world.wait(0.01)
    assert [ref.job for ref in busy.recalls()] == ["j4"]


def turns(world: World, agent: Agent, count: int) -> None:
    """So many jobs end at the worker, one in a millisecond."""
    for _ in range(count):
        world.wait(0.001)
        agent.done(agent.names[0], took(0.75))


def test_what_waits_behind_a_job_that_turns_out_long_goes_elsewhere_though_no_slot_is_ever_free() -> None:
    world = World(prefetch=2, prefetch_time=0.005, audited=False)
    stuck = busy_worker(world, run_ms=0.75, jobs=1000)
    other = world.worker("other")
    assert stuck.names == ["j0", "j1", "j2", "j3", "j4"]
    turns(world, other, 400)
    assert stuck.recalls() == []
    turns(world, other, 200)
    recalled = stuck.recalls()
    assert [ref.job for ref in recalled] == ["j4", "j3", "j2", "j1"]
    for ref in recalled:
        stuck.hand_back(ref)
    turns(world, other, 10)
    world.audit()
    assert stuck.names == ["j0"]
    assert {world.state(f"j{number}") for number in (1, 2, 3, 4)} == {"completed"}


def test_a_worker_whose_slot_is_free_again_gets_more_than_its_slots_take() -> None:
    world = World(prefetch=2, prefetch_time=0.005, audited=False)
    stuck = busy_worker(world, run_ms=0.75, jobs=1000)
    other = world.worker("other")
    turns(world, other, 600)
    for ref in stuck.recalls():
        stuck.hand_back(ref)
    turns(world, other, 10)
    stuck.done("j0", took(0.75))
    world.audit()
    assert len(stuck.names) == 5


def test_a_worker_that_does_not_answer_is_asked_once_for_each_job() -> None:
    world = World(prefetch=2, prefetch_time=0.005)
    silent = busy_worker(world, run_ms=0.75, jobs=20)
    world.wait(1.5)
    assert len(silent.recalls()) == 4
    world.wait(0.4)
    assert silent.recalls() == []
