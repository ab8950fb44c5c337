"""Which worker gets a job, which job is recalled, and that neither costs more with more workers."""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilambda.broker.bucket import RECENT
from minilambda.broker.registry import Worker
from minilambda.broker.scheduler import PROBES, Scheduler
from minilambda.transfers import Puller
from tests.broker_world import World


def worker(number: int, slots: int = 1) -> Worker:
    return Worker(
        f"w{number}", number, (b"%d" % number, b""), f"w{number}", slots, "", "", 0, False, Puller(1), 0, 0.0, 0.0
    )


class Bench:
    """A scheduler and its workers."""

    def __init__(self, *slots: int, prefetch: int = 2) -> None:
        self.scheduler = Scheduler(prefetch)
        self.workers = {number: worker(number, count) for number, count in enumerate(slots)}
        for item in self.workers.values():
            self.scheduler.update(item)

    def dispatch(self, digest: str = "d", now: float = 0.0) -> int:
        chosen = self.scheduler.choose(digest)
        chosen.dispatched += 1
        self.scheduler.sent(chosen, digest, now)
        self.scheduler.check(self.workers)
        return chosen.session

    def finish(self, number: int) -> None:
        self.workers[number].seen = self.workers[number].dispatched
        self.workers[number].queue = self.workers[number].load - 1
        self.scheduler.update(self.workers[number])
        self.scheduler.check(self.workers)


def test_the_least_load_relative_to_slots_goes_first() -> None:
    bench = Bench(1, 4)
    assert [bench.dispatch(str(n)) for n in range(5)] == [0, 1, 1, 1, 1]


def test_among_equals_the_least_recently_used_goes_first() -> None:
    bench = Bench(1, 1, 1)
    assert [bench.dispatch(str(n)) for n in range(3)] == [0, 1, 2]
    for number in (1, 0, 2):
        bench.finish(number)
    assert [bench.dispatch(str(n + 3)) for n in range(3)] == [1, 0, 2]


def test_among_equals_a_worker_that_has_the_module_goes_first() -> None:
    bench = Bench(1, 1, 1)
    assert bench.dispatch("python") == 0
    bench.finish(0)
    assert bench.dispatch("python") == 0


def test_a_worker_that_has_the_module_is_found_among_many_that_have_not() -> None:
    bench = Bench(*[1] * (3 * PROBES))
    first = bench.dispatch("python")
    bench.finish(first)
    assert bench.dispatch("python") == first


def test_warmth_never_beats_a_free_worker() -> None:
    bench = Bench(1, 1)
    assert bench.dispatch("python") == 0
    assert bench.dispatch("python") == 1


def test_a_worker_gets_its_slots_and_the_prefetch_and_no_more() -> None:
    bench = Bench(2, prefetch=3)
    for _ in range(5):
        assert bench.scheduler.has_room()
        bench.dispatch()
    assert not bench.scheduler.has_room()


def test_a_worker_that_drains_gets_nothing() -> None:
    bench = Bench(1, 1)
    bench.workers[0].draining = True
    bench.scheduler.update(bench.workers[0])
    bench.scheduler.check(bench.workers)
    assert (bench.dispatch(), bench.dispatch(), bench.dispatch()) == (1, 1, 1)
    assert not bench.scheduler.has_room()


def test_changing_loads_leave_no_memory_behind() -> None:
    bench = Bench(4096)
    only = bench.workers[0]
    for slots in range(1, 3000):
        only.slots, only.queue = slots, slots - 1
        bench.scheduler.update(only)
        bench.scheduler.check(bench.workers)
        assert len(bench.scheduler._order) < 128


def test_of_many_idle_workers_a_few_take_turns_and_each_has_its_jobs_of_a_few() -> None:
    bench = Bench(*[1] * 100)
    chosen = []
    for number in range(10 * RECENT):
        chosen.append(bench.dispatch(str(number)))
        bench.finish(chosen[-1])
    assert chosen == chosen[:RECENT] * 10
    assert len(set(chosen)) == RECENT


def test_of_many_idle_workers_each_is_found_once_all_are_needed() -> None:
    bench = Bench(*[1] * 100, prefetch=0)
    bench.finish(bench.dispatch())
    assert {bench.dispatch(str(number)) for number in range(100)} == set(range(100))
    assert not bench.scheduler.has_room()


def test_a_module_that_many_busy_workers_have_is_found_at_an_idle_one_in_the_end() -> None:
    bench = Bench(*[1] * 100)
    learned = [bench.dispatch("python") for _ in range(2 * PROBES)]
    bench.finish(learned[-1])
    for number in range(RECENT + 1):  # others come back later than the one that has the module
        bench.finish(bench.dispatch(f"{number}"))
    found = set()
    for _ in range(3):
        found.add(bench.dispatch("python"))
    assert learned[-1] in found


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.lists(st.integers(0, 7), max_size=60), st.integers(0, 3))
def test_a_choice_is_the_same_as_the_rules_taken_literally(slots: list[int], steps: list[int], prefetch: int) -> None:
    bench = Bench(*slots, prefetch=prefetch)
    since = dict.fromkeys(bench.workers, 0)  # when a worker came to its present load, for the age of its place
    for clock, step in enumerate(steps, 1):
        roomy = [w for w in bench.workers.values() if w.load < w.slots + prefetch]
        assert bench.scheduler.has_room() == bool(roomy)
        busy = [w for w in bench.workers.values() if w.load]
        if step < 4 and roomy:
            digest = str(step % 2)
            least = min(w.load / w.slots for w in roomy)
            best = [w for w in roomy if w.load / w.slots == least]
            warm = [w for w in best if digest in w.warm]
            expected = min(warm or best, key=lambda w: (since[w.session], w.session))
            assert bench.dispatch(digest) == expected.session
            since[expected.session] = clock
        elif busy:
            chosen = busy[step % len(busy)]
            bench.finish(chosen.session)
            since[chosen.session] = clock


def lines_of(work: Any) -> int:
    """Lines of Python that a call executes: a measure of work that does not depend on the machine."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.collect()
    gc.disable()  # what is left of other tests has finalizers in Python
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


@pytest.mark.parametrize("busy", [False, True])
def test_the_work_of_a_decision_does_not_grow_with_the_number_of_workers(busy: bool) -> None:
    def measure(count: int) -> int:
        bench = Bench(*[2] * count)
        for item in bench.workers.values():
            item.queue = 2 if busy else 0
            bench.scheduler.sent(item, "d", 0.0)

        def decide() -> None:
            for now in range(20):
                chosen = bench.scheduler.choose("other")
                chosen.dispatched += 1
                bench.scheduler.sent(chosen, "d", now)
                bench.scheduler.surplus(100.0, 1.0)

        return lines_of(decide)

    few, many = measure(4 * RECENT), measure(5000)
    assert many <= few + 20 * PROBES


def test_the_work_of_a_job_does_not_grow_with_workers_and_queued_jobs() -> None:
    def measure(workers: int, queued: int) -> int:
        world = World(audited=False, prefetch=0)
        agents = [world.worker(f"w{n}") for n in range(workers)]
        for number in range(workers + queued):
            world.run(f"j{number}", f"c{number}")
        (holder,) = [agent for agent in agents if "j0" in agent.names]
        return lines_of(lambda: (holder.done("j0"), world.run("extra", "x")))

    few, many = measure(3, 3), measure(400, 4000)
    assert many <= few * 1.2
