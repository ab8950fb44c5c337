"""The slots: which runner a job gets, deadlines and kills, runners that die or never come up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minilambda import messages as m
from minilambda.settings import Limits
from minilambda.worker import actions as a
from minilambda.worker import events as e
from minilambda.worker.slots import MAX_BACKOFF, UP_PATIENCE
from tests.unit.worker_driver import Driver, digest_of, outcome, ref, registered, running, wasm_of


def with_modules(*names: str, **settings: object) -> Driver:
    """A worker in session whose disk holds the artifacts of modules."""
    driver = registered(**settings)
    for name in names:
        driver.disk[digest_of(wasm_of(name))] = False
    return driver


def failure(done: m.Done) -> tuple[str, str]:
    assert done.result.error is not None
    return done.result.error.code, done.result.error.message


# --- which runner ------------------------------------------------------------------------------------


def test_every_slot_gets_a_runner_at_the_start_and_jobs_wait_until_one_is_ready() -> None:
    assert sorted(spawn.slot for spawn in Driver(slots=2).take(a.Spawn)) == [0, 1]
    driver = with_modules("a")
    driver.auto.discard(a.Spawn)
    driver.die(0)
    driver.advance(0.2)
    driver.dispatch(ref(), wasm_of("a"))
    driver.none(a.StartRun)
    driver.ready(0)
    driver.one(a.StartRun)


def test_a_runner_that_has_the_module_loaded_is_preferred_and_runs_it_warm() -> None:
    driver = with_modules("a", "b", slots=2)
    driver.dispatch(ref("first"), wasm_of("a"))
    driver.dispatch(ref("second"), wasm_of("b"))
    driver.finish(0)
    driver.finish(1)
    driver.take(a.StartRun)
    driver.take(m.Done)
    driver.dispatch(ref("third"), wasm_of("b"))
    start = driver.one(a.StartRun)
    assert (start.slot, start.order.load) == (1, False)
    driver.finish(1)
    assert driver.one(m.Done).result.tier == "warm"


def test_a_runner_keeps_its_last_modules_and_drops_the_least_recently_used() -> None:
    driver = with_modules("a", "b", "c", modules_per_runner=2)
    evicted = []
    for number, name in enumerate("abacab"):
        driver.dispatch(ref(f"job-{number}"), wasm_of(name))
        order = driver.one(a.StartRun).order
        evicted.append((order.load, order.evict))
        driver.finish()
    drop_b, drop_c = (digest_of(wasm_of(name)) for name in "bc")
    assert evicted == [(True, ()), (True, ()), (False, ()), (True, (drop_b,)), (False, ()), (True, (drop_c,))]


def test_a_job_of_the_same_spec_gets_the_very_same_order_and_any_other_its_own() -> None:
    # given
    driver = with_modules("a")
    spec = m.JobSpec(digest_of(wasm_of("a")), args=("x",))

    def order(job: str, spec: m.JobSpec, stdin: bytes = b"") -> e.RunOrder:
        driver.sequence += 1
        size = len(wasm_of("a"))
        driver.hear(m.Dispatch(driver.session, driver.sequence, ref(job), spec, size, stdin=stdin))
        driver.finish()
        return driver.one(a.StartRun).order

    # when
    first, second, third = order("1", spec), order("2", spec), order("3", spec)
    fed, other, last = order("4", spec, b"in"), order("5", replace(spec, args=("y",))), order("6", spec)
    # then
    assert first.load and not second.load and third is second
    assert (fed.stdin, fed.args, other.stdin, other.args) == (b"in", ("x",), b"", ("y",))
    assert last == second


def test_no_guest_of_one_principal_runs_on_the_runner_of_another() -> None:
    driver = with_modules("a")
    driver.dispatch(ref("hers", principal="ann"), wasm_of("a"))
    driver.finish()
    driver.take(a.StartRun)
    driver.dispatch(ref("his", principal="bob"), wasm_of("a"))
    driver.one(a.Kill)
    start = driver.one(a.StartRun)
    assert start.order.load
    assert driver.runners[0].principal == "bob"


def test_one_waiting_job_replaces_one_foreign_runner_not_all() -> None:
    driver = with_modules("a", slots=3)
    for number in range(3):
        driver.dispatch(ref(f"hers-{number}", principal="ann"), wasm_of("a"))
    for slot in range(3):
        driver.finish(slot)
    driver.auto -= {a.Kill, a.Spawn}
    driver.dispatch(ref("his", principal="bob"), wasm_of("a"))
    driver.dispatch(ref("hers-4", principal="ann"), wasm_of("a"))
    assert len(driver.take(a.Kill)) == 1
    driver.die(0)
    driver.ready(0)
    assert [slot.job.ref.job for slot in driver.core.execution.slots.busy if slot.job] == ["his", "hers-4"]


def test_a_job_that_waits_for_another_runner_does_not_hold_up_the_next() -> None:
    driver = with_modules("a", slots=2)
    for number in range(2):
        driver.dispatch(ref(f"hers-{number}", principal="ann"), wasm_of("a"))
    driver.auto -= {a.Kill, a.Spawn}
    driver.dispatch(ref("his", principal="bob"), wasm_of("a"))
    driver.dispatch(ref("hers-2", principal="ann"), wasm_of("a"))
    driver.take(a.StartRun)
    driver.finish(0)
    driver.one(a.Kill)
    driver.finish(1)
    assert driver.one(a.StartRun).slot == 1


# --- deadlines and limits ----------------------------------------------------------------------------


def test_a_guest_that_outlives_its_deadline_is_killed_a_little_after_it() -> None:
    driver = running(ref(), default=Limits(2.0, 1000, 1000), kill_after=0.1)
    driver.auto.discard(a.Kill)
    driver.advance(2.15)
    driver.none(a.Kill)
    driver.advance(0.06)
    driver.one(a.Kill)
    driver.die(0, "killed by SIGKILL", b"so far", b"and this")
    done = driver.one(m.Done)
    assert failure(done) == ("deadline_exceeded", "The guest was stopped at its deadline of 2 s.")
    assert (done.stdout, done.stderr) == (b"so far", b"and this")
    assert done.result.usage.run_ms == pytest.approx(2210)
    assert driver.runners[0].ready, "the slot works again"


def test_a_guest_that_ended_just_before_its_kill_is_judged_by_how_it_ended() -> None:
    driver = running(ref(), default=Limits(2.0, 1000, 1000))
    driver.auto.discard(a.Kill)
    driver.advance(2.5)
    driver.one(a.Kill)
    driver.finish(how=outcome(b"in time"))
    assert driver.one(m.Done).stdout == b"in time"
    driver.dispatch(ref("next"))
    driver.none(a.StartRun)
    driver.die(0, "killed by SIGKILL")
    driver.one(a.StartRun)
    driver.none(m.Done)


def test_a_cancelled_guest_is_cancelled_even_if_it_ended_just_before_its_kill() -> None:
    driver = running(ref())
    driver.auto.discard(a.Kill)
    driver.hear(m.Stop(driver.session, ref()))
    driver.one(a.Kill)
    driver.finish()
    driver.none(m.Done)
    driver.die(0)
    assert driver.one(m.Done).result.state == "cancelled"


def test_a_guest_that_writes_more_than_it_may_is_killed_when_the_agent_looks() -> None:
    driver = running(ref(), default=Limits(60.0, 1000, 100), look_every=0.1)
    driver.auto.discard(a.Kill)
    driver.advance(0.35)
    assert len(driver.take(a.Look)) == 3
    driver.event(e.OutputSeen(0, 100))
    driver.none(a.Kill)
    driver.event(e.OutputSeen(0, 101))
    driver.one(a.Kill)
    driver.die(0, stdout=b"x" * 80, stderr=b"y" * 80)
    done = driver.one(m.Done)
    assert failure(done)[0] == "output_limit"
    assert (len(done.stdout), len(done.stderr)) == (80, 20)


def test_a_job_can_ask_for_less_than_the_ceiling_and_never_gets_more() -> None:
    driver = with_modules("a", ceiling=Limits(40.0, 2**30, 2**25))
    driver.dispatch(ref("modest"), wasm_of("a"), timeout_ms=5, memory_bytes=7, output_bytes=9)
    order = driver.one(a.StartRun).order
    assert (order.timeout_ms, order.memory_bytes, order.output_bytes) == (5, 7, 9)
    driver.finish()
    driver.dispatch(ref("greedy"), wasm_of("a"), timeout_ms=10**9, memory_bytes=2**48, output_bytes=2**48)
    order = driver.one(a.StartRun).order
    assert (order.timeout_ms, order.memory_bytes, order.output_bytes) == (40_000, 2**30, 2**25)


# --- runners that die --------------------------------------------------------------------------------


def test_a_runner_that_its_guest_brings_down_fails_the_job_and_is_replaced_at_once() -> None:
    driver = running(ref())
    driver.die(0, "killed by SIGSEGV", b"so far")
    done = driver.one(m.Done)
    assert failure(done) == ("runner_crashed", "The process that ran the guest died: killed by SIGSEGV.")
    assert done.stdout == b"so far"
    driver.one(a.Spawn)


def test_a_runner_that_the_kernel_ends_for_want_of_memory_fails_the_job_as_out_of_memory() -> None:
    driver = running(ref())
    driver.die(0, "killed by SIGKILL", starved=True)
    message = "The process that ran the guest needed more memory than a runner may have."
    assert failure(driver.one(m.Done)) == ("out_of_memory", message)
    driver.one(a.Spawn)


def test_runners_that_do_not_come_up_are_tried_again_in_growing_pauses_for_ever() -> None:
    driver = registered()
    driver.auto.discard(a.Spawn)
    pauses = []
    for _ in range(1_100):
        begin = driver.now
        driver.die(0, "could not be started")
        while not driver.take(a.Spawn):
            wake = driver.core.next_deadline()
            assert wake is not None
            driver.advance(wake - driver.now)
        pauses.append(driver.now - begin)
        driver.sent.clear()
    assert pauses[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert max(pauses) == pytest.approx(MAX_BACKOFF)


def test_a_runner_that_hangs_before_it_is_ready_is_killed_and_replaced() -> None:
    driver = registered()
    driver.auto.discard(a.Spawn)
    driver.die(0)
    driver.advance(0.1)
    driver.one(a.Spawn)
    driver.advance(UP_PATIENCE - 0.1)
    driver.none(a.Kill)
    driver.advance(0.3)
    driver.one(a.Kill)
    driver.one(a.Spawn)


def test_the_death_of_an_idle_runner_harms_nobody_and_it_is_replaced() -> None:
    driver = with_modules("a")
    driver.die(0)
    driver.dispatch(ref(), wasm_of("a"))
    driver.advance(0.2)
    driver.one(a.StartRun)
    driver.finish()
    assert driver.one(m.Done).result.state == "completed"


def test_what_a_runner_says_with_nothing_to_answer_changes_nothing() -> None:
    driver = registered()
    driver.event(e.RunnerFinished(0, outcome()))
    driver.event(e.RunnerReady(0))
    driver.event(e.OutputSeen(0, 2**40))
    assert (driver.take(m.Done), driver.take(a.Kill)) == ([], [])
