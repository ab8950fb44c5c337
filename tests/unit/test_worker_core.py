"""A job at a worker from its dispatch to its one end, the results that are kept, and the drain."""

from __future__ import annotations

import pytest

from minilambda import messages as m
from minilambda.fields import MAX_FRAME
from minilambda.worker import actions as a
from minilambda.worker.results import INLINE
from tests.unit.worker_driver import Driver, digest_of, outcome, ref, registered, running

PHASES = ["fetching", "preparing", "ready", "running"]
INPUT = bytes(range(256)) * 2_000  # two pieces


def in_phase(phase: str) -> Driver:
    """A worker with the job ``ref()`` in a phase."""
    if phase == "running":
        return running(ref())
    driver = running(ref("first")) if phase == "ready" else registered()
    driver.dispatch(ref(), withheld={"stdin": len(INPUT)} if phase == "fetching" else None)
    assert driver.core.execution.jobs[ref()].phase == phase
    driver.done_actions.clear()
    driver.sent.clear()
    return driver


# --- the way of a job --------------------------------------------------------------------------------


def test_input_that_did_not_ride_along_is_fetched_and_reaches_the_guest() -> None:
    driver = registered()
    driver.disk[digest_of(b"hello")] = False
    driver.dispatch(ref(), withheld={"stdin": len(INPUT), "values": 3, "wasm": 9, "nonsense": 9})
    driver.none(a.StartRun)
    handles = {fetch.handle for fetch in driver.sent if isinstance(fetch, m.Fetch)}
    assert handles == {m.body_handle(ref(), "stdin"), m.body_handle(ref(), "values")}
    for fetch in driver.take(m.Fetch):
        body = INPUT if "stdin" in fetch.handle else b"\x91\x01\x02"
        data = body[fetch.offset : fetch.offset + fetch.size]
        driver.hear(m.Chunk(driver.session, fetch.handle, fetch.offset, len(body), data))
    order = driver.one(a.StartRun).order
    assert (order.stdin, order.values) == (INPUT, b"\x91\x01\x02")


def test_input_that_the_broker_no_longer_has_fails_the_job() -> None:
    driver = in_phase("fetching")
    driver.hear(m.Chunk(driver.session, m.body_handle(ref(), "stdin"), 0, 0))
    error = driver.one(m.Done).result.error
    assert error is not None
    assert (error.code, error.message) == ("internal", "The broker no longer has the job's stdin.")
    assert driver.queue == 0


def test_the_order_says_all_that_the_job_asked_for() -> None:
    driver = registered()
    driver.disk[digest_of(b"hello")] = False
    driver.dispatch(
        ref(), stdin=b"in", args=("a", "b"), env={"K": "V"}, invoke="add", unknown_imports="trap", timeout_ms=1_500
    )
    order = driver.one(a.StartRun).order
    assert (order.digest, order.args, order.env, order.invoke) == (
        digest_of(b"hello"),
        ("a", "b"),
        (("K", "V"),),
        "add",
    )
    assert (order.stdin, order.values, order.unknown_imports, order.timeout_ms) == (b"in", None, "trap", 1_500)


def test_every_done_states_the_queue_length_as_of_the_last_dispatch() -> None:
    driver = running(ref("one"))
    driver.dispatch(ref("two"))
    driver.dispatch(ref("three"))
    said = []
    for _ in range(3):
        driver.finish()
        done = driver.one(m.Done)
        said.append((done.queue, done.seen))
    assert said == [(2, 3), (1, 3), (0, 3)]


def test_a_dispatch_that_comes_twice_runs_once() -> None:
    driver = running(ref())
    driver.dispatch(ref())
    assert driver.queue == 1
    driver.finish()
    driver.one(m.Done)
    driver.dispatch(ref())
    driver.none(a.StartRun)
    assert driver.one(m.Done).ref == ref(), "the broker has not got the result"


def test_two_attempts_of_a_job_are_two_jobs_here() -> None:
    driver = running(ref(attempt=1), slots=2)
    driver.dispatch(ref(attempt=2))
    driver.finish(0, outcome(b"one"))
    driver.finish(1, outcome(b"two"))
    assert [(done.ref.attempt, done.stdout) for done in driver.take(m.Done)] == [(1, b"one"), (2, b"two")]


# --- taken back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_a_stopped_job_is_cancelled_in_each_phase(phase: str) -> None:
    driver = in_phase(phase)
    driver.hear(m.Stop(driver.session, ref()))
    done = driver.one(m.Done)
    assert (done.ref, done.result.state, done.queue) == (ref(), "cancelled", driver.queue)
    assert bool(driver.take(a.Kill)) == (phase == "running")
    assert ref() not in driver.core.execution.jobs


@pytest.mark.parametrize("phase", PHASES)
def test_a_recalled_job_is_handed_back_unless_its_guest_has_begun(phase: str) -> None:
    driver = in_phase(phase)
    driver.hear(m.Recall(driver.session, ref()))
    returned = driver.one(m.Returned)
    assert (returned.ref, returned.begun, returned.queue) == (ref(), phase == "running", driver.queue)
    assert (ref() in driver.core.execution.jobs) == (phase == "running")
    driver.none(a.Kill)


@pytest.mark.parametrize("phase", PHASES)
def test_a_job_that_nobody_wants_leaves_without_a_result_in_each_phase(phase: str) -> None:
    driver = in_phase(phase)
    driver.acknowledge(ref())
    driver.none(m.Done)
    assert ref() not in driver.core.execution.jobs
    assert bool(driver.take(a.Kill)) == (phase == "running")


def test_a_recall_of_a_finished_job_comes_too_late_and_one_of_an_unknown_job_says_that_it_is_not_here() -> None:
    driver = running(ref())
    driver.finish()
    driver.hear(m.Recall(driver.session, ref()))
    assert driver.one(m.Returned).begun
    driver.hear(m.Recall(driver.session, ref("unknown")))
    assert not driver.one(m.Returned).begun


def test_a_job_that_is_no_longer_wanted_while_it_is_cancelled_has_no_result() -> None:
    driver = running(ref())
    driver.auto.discard(a.Kill)
    driver.hear(m.Stop(driver.session, ref()))
    driver.acknowledge(ref())
    driver.die(0, "killed by SIGKILL")
    driver.none(m.Done)


# --- results -----------------------------------------------------------------------------------------


def test_a_result_is_kept_until_it_is_acknowledged() -> None:
    driver = running(ref())
    driver.finish()
    assert ref() in driver.core.finished
    driver.acknowledge(ref())
    assert ref() not in driver.core.finished


def test_an_unacknowledged_result_is_kept_for_the_stated_window_only() -> None:
    driver = running(ref())
    driver.finish()
    driver.advance(59.9)
    assert ref() in driver.core.finished
    driver.advance(0.2)
    assert ref() not in driver.core.finished


def test_a_large_result_is_withheld_and_served_in_pieces() -> None:
    driver = running(ref())
    stdout, stderr = bytes(range(256)) * (INLINE // 256), b"err"
    driver.finish(how=outcome(stdout, stderr))
    done = driver.one(m.Done)
    assert (done.stdout, done.stderr, done.withheld) == (b"", b"", {"stdout": len(stdout), "stderr": 3})
    handle, pieces, offset = m.body_handle(ref(), "stdout"), [], 0
    while offset < len(stdout):
        driver.hear(m.Fetch(driver.session, handle, offset, 2**40))
        piece = driver.one(m.Chunk)
        assert (piece.handle, piece.offset, piece.total) == (handle, offset, len(stdout))
        assert len(piece.data) <= MAX_FRAME
        pieces.append(piece.data)
        offset += len(piece.data)
    assert b"".join(pieces) == stdout


def test_a_result_that_rides_along_whole_is_not_withheld() -> None:
    driver = running(ref())
    driver.finish(how=outcome(bytes(INLINE)))
    done = driver.one(m.Done)
    assert (len(done.stdout), done.withheld) == (INLINE, {})


def test_a_result_that_is_being_fetched_is_not_dropped() -> None:
    driver = running(ref())
    driver.finish(how=outcome(bytes(INLINE + 1)))
    for _ in range(4):
        driver.advance(40.0)
        driver.hear(m.Fetch(driver.session, m.body_handle(ref(), "stdout"), 0, MAX_FRAME))
        assert driver.take(m.Chunk)[-1].total == INLINE + 1


def test_a_result_that_is_being_fetched_does_not_keep_others_beyond_their_window() -> None:
    driver = running(ref("large"))
    driver.finish(how=outcome(bytes(INLINE + 1)))
    driver.dispatch(ref("small"))
    driver.finish()
    driver.advance(40.0)
    driver.hear(m.Fetch(driver.session, m.body_handle(ref("large"), "stdout"), 0, MAX_FRAME))
    driver.advance(40.0)
    assert list(driver.core.finished) == [ref("large")]


@pytest.mark.parametrize("handle", ["nonsense", "", m.body_handle(ref(), "stdout")])
def test_a_body_that_is_not_here_is_answered_with_nothing(handle: str) -> None:
    driver = registered()
    driver.hear(m.Fetch(driver.session, handle, 5, 10))
    piece = driver.one(m.Chunk)
    assert (piece.total, piece.data) == (0, b"")


# --- drain -------------------------------------------------------------------------------------------


def test_an_idle_worker_that_drains_says_goodbye_and_exits() -> None:
    driver = registered()
    driver.event(a.Drain())
    driver.one(m.Goodbye)
    assert driver.exited
    driver.advance(60.0)
    driver.none(m.Register)


def test_a_draining_worker_hands_back_what_has_not_begun_and_what_comes_and_finishes_the_rest() -> None:
    driver = running(ref("runs"))
    driver.dispatch(ref("waits"))
    driver.event(a.Drain())
    assert driver.take(m.Report)[-1].draining
    driver.dispatch(ref("late"))
    assert [(returned.ref.job, returned.begun) for returned in driver.take(m.Returned)] == [
        ("waits", False),
        ("late", False),
    ]
    driver.finish()
    driver.one(m.Done)
    driver.none(m.Goodbye)
    driver.acknowledge(ref("runs"))
    driver.one(m.Goodbye)
    assert driver.exited


def test_what_still_runs_when_the_grace_period_ends_is_killed() -> None:
    driver = running(ref(), grace=3.0)
    driver.event(a.Drain())
    driver.advance(2.9)
    assert (driver.exited, driver.take(a.Kill)) == (False, [])
    driver.advance(0.2)
    driver.one(a.Kill)
    driver.one(m.Goodbye)
    driver.none(m.Done)
    assert driver.exited


def test_a_second_drain_exits_at_once_and_a_third_changes_nothing() -> None:
    driver = running(ref())
    driver.event(a.Drain())
    assert not driver.exited
    driver.event(a.Drain())
    driver.event(a.Drain())
    driver.one(a.Exit)
    driver.one(m.Goodbye)


def test_a_worker_that_drains_without_a_broker_registers_as_draining_to_deliver_its_results() -> None:
    driver = running(ref())
    driver.hear(m.RegisterAgain())
    driver.event(a.Drain())
    driver.finish()
    driver.advance(1.0)
    assert driver.take(m.Register)[-1].draining
    driver.register()
    assert driver.one(m.Done).ref == ref()
    driver.acknowledge(ref())
    assert driver.exited
