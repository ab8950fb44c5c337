"""Where each job gets a process of its own: runners serve one job, and the next one is ready before it is needed."""

from __future__ import annotations

from minilambda import messages as m
from minilambda.worker import actions as a
from tests.unit.worker_driver import Driver, digest_of, ref, registered, wasm_of


def fresh(slots: int = 1) -> Driver:
    driver = registered(slots=slots, fresh_runner=True)
    driver.disk[digest_of(wasm_of("a"))] = False
    return driver


def test_a_runner_is_killed_after_its_job_and_the_next_job_does_not_wait_for_a_new_one() -> None:
    # given
    driver = fresh()
    driver.auto.discard(a.Kill)
    driver.dispatch(ref("first"), wasm_of("a"))
    first = driver.one(a.StartRun)
    # when
    driver.finish(first.slot)
    driver.dispatch(ref("second"), wasm_of("a"))
    # then
    assert driver.one(a.Kill).slot == first.slot
    assert driver.one(a.StartRun).slot != first.slot


def test_no_runner_ever_gets_a_second_job() -> None:
    # given
    driver = fresh(slots=2)
    served: dict[int, int] = {}
    # when
    for number in range(20):
        driver.dispatch(ref(f"job {number}"), wasm_of("a"))
        start = driver.one(a.StartRun)
        assert start.order.load  # it holds nothing of an earlier job
        driver.finish(start.slot)
        served[start.slot] = served.get(start.slot, 0) + 1
        # then
        assert driver.one(a.Kill).slot == start.slot
        assert driver.one(a.Spawn).slot == start.slot
        assert driver.one(m.Done).result.state == "completed"
    assert sum(served.values()) == 20


def test_the_runners_in_reserve_do_not_make_more_slots() -> None:
    # given
    driver = fresh(slots=2)
    # when
    for number in range(3):
        driver.dispatch(ref(f"job {number}"), wasm_of("a"))
    # then
    started = driver.take(a.StartRun)
    assert len(started) == 2
    driver.finish(started[0].slot)
    assert len(driver.take(a.StartRun)) == 1
