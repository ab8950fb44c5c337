"""A worker's tie to the broker: registration, signs of life, sessions."""

from __future__ import annotations

import pytest

from minilambda import messages as m
from minilambda.settings import WorkerSettings
from minilambda.worker import actions as a
from minilambda.worker import events as e
from minilambda.worker import link as links
from minilambda.worker.core import OPEN_AFTER, TELL_AFTER, Core
from minilambda.worker.words import Identity
from tests.unit.worker_driver import Driver, digest_of, outcome, ref, registered, running


def registrations(driver: Driver, count: int) -> list[float]:
    """When the next registrations are sent, the broker being silent."""
    times: list[float] = []
    while len(times) < count:
        wake = driver.core.next_deadline()
        assert wake is not None
        driver.advance(wake - driver.now, beats=False)
        times += [driver.now] * len(driver.take(m.Register))
    return times


def test_a_worker_registers_at_once_and_says_who_it_is() -> None:
    driver = Driver(slots=3)
    about = driver.one(m.Register)
    assert (about.worker, about.name, about.slots, about.held, about.draining) == ("worker-id", "worker", 3, (), False)


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.5), (0.5, 0.75)])
def test_unanswered_registrations_come_in_growing_pauses_with_jitter(jitter: float, share: float) -> None:
    driver = Driver(jitter=jitter)
    begin = driver.now
    driver.take(m.Register)
    times = registrations(driver, 6)
    pauses = [late - early for early, late in zip([begin, *times], times, strict=False)]
    assert pauses == pytest.approx([share * pause for pause in (1.0, 2.0, 4.0, 5.0, 5.0, 5.0)])


def test_a_silent_broker_is_lost_the_worker_connects_anew_and_registers() -> None:
    driver = registered()
    driver.advance(4.9, beats=False)
    driver.none(a.Reconnect)
    driver.advance(0.2, beats=False)
    driver.one(a.Reconnect)
    assert driver.core.link.session == 0
    driver.advance(1.0, beats=False)
    assert driver.take(m.Register)


def test_a_broker_that_beats_is_never_lost() -> None:
    driver = registered()
    driver.advance(60.0)
    driver.none(a.Reconnect)
    assert len(driver.take(m.Report)) == pytest.approx(60, abs=1)


def test_a_worker_that_must_register_again_does_so_at_once_and_names_what_it_has() -> None:
    driver = running(ref("old"), slots=2)
    driver.dispatch(ref("other"))
    driver.finish(1, outcome(b"out"))
    driver.sent.clear()
    driver.hear(m.RegisterAgain())
    driver.hear(m.RegisterAgain())
    driver.advance(0.05)
    about = driver.one(m.Register)
    assert about.held == (ref("old"),)
    assert about.finished == (ref("other"),)


def test_results_are_sent_again_in_a_new_session() -> None:
    driver = running(ref())
    driver.finish(how=outcome(b"out"))
    first = driver.one(m.Done)
    driver.hear(m.RegisterAgain())
    driver.register()
    again = driver.one(m.Done)
    assert again.session == 2
    assert (again.ref, again.result, again.stdout) == (first.ref, first.result, first.stdout)


def test_the_sequence_starts_anew_with_each_session() -> None:
    driver = running(ref())
    assert driver.core.link.seen == 1
    driver.hear(m.RegisterAgain())
    driver.register()
    assert driver.take(m.Report)[-1].seen == 0
    driver.dispatch(ref("next"))
    driver.advance(1.0)
    assert driver.take(m.Report)[-1].seen == 1


def test_what_changed_after_the_registration_is_told_before_the_queue_length_counts_it_out() -> None:
    # Given two running jobs that the registration names, which end before its answer arrives
    driver = running(ref("one"), slots=2)
    driver.dispatch(ref("two"))
    driver.hear(m.RegisterAgain())
    driver.advance(0.1)
    assert len(driver.one(m.Register).held) == 2
    driver.finish(0)
    driver.finish(1)
    driver.none(m.Done)
    # When the broker answers
    driver.register()
    # Then no word claims fewer jobs than the broker can know of
    assert [(done.ref.job, done.queue) for done in driver.take(m.Done)] == [("one", 1), ("two", 0)]


def test_a_job_handed_back_without_a_session_is_handed_back_in_the_next() -> None:
    driver = running(ref("runs"))
    driver.dispatch(ref("waits"))
    driver.hear(m.RegisterAgain())
    driver.advance(0.1)
    driver.event(a.Drain())
    driver.none(m.Returned)
    driver.register()
    returned = driver.one(m.Returned)
    assert (returned.ref, returned.begun, returned.queue) == (ref("waits"), False, 1)


def test_no_job_starts_without_a_session() -> None:
    driver = running(ref("first"))
    driver.dispatch(ref("second"))
    driver.hear(m.RegisterAgain())
    driver.finish()
    driver.none(a.StartRun)
    driver.register()
    driver.advance(OPEN_AFTER)
    driver.one(a.StartRun)


def test_a_job_that_the_broker_gave_to_another_is_not_started_in_the_new_session() -> None:
    # Given a job that is ready and that outlives a session
    driver = running(ref("first"))
    driver.dispatch(ref("second"))
    driver.hear(m.RegisterAgain())
    driver.finish()
    # When the broker's word on it follows the registration
    driver.register()
    driver.hear(m.Stop(driver.session, ref("second")))
    driver.acknowledge(ref("second"))
    driver.advance(1.0)
    # Then its guest never starts
    driver.none(a.StartRun)
    assert driver.queue == 0


def test_a_session_that_replaces_another_holds_waiting_jobs_back_for_a_moment_too() -> None:
    driver = running(ref("first"))
    driver.dispatch(ref("second"))
    driver.register()
    driver.finish()
    driver.none(a.StartRun)
    driver.advance(OPEN_AFTER)
    driver.one(a.StartRun)


def test_a_job_that_is_taken_away_is_told_in_the_queue_length_at_once() -> None:
    driver = running(ref("first"))
    driver.dispatch(ref("second"))
    driver.acknowledge(ref("second"))
    assert driver.one(m.Report).queue == 1
    driver.acknowledge(ref("first"))
    assert driver.one(m.Report).queue == 0


@pytest.mark.parametrize("session", [0, 1])
def test_a_registration_that_says_nothing_new_changes_nothing(session: int) -> None:
    driver = registered()
    driver.hear(m.Registered("worker-id", session, 1000, 5000, 60000))
    assert driver.core.link.session == 1
    driver.none(m.Report)


def test_words_meant_for_another_worker_or_session_are_not_heard() -> None:
    driver = registered()
    driver.hear(m.Registered("somebody", 9, 1000, 5000, 60000))
    driver.hear(m.Dispatch(9, 1, ref(), m.JobSpec(digest_of(b"hello")), 5))
    assert driver.core.link.session == 1
    assert driver.queue == 0


def test_a_broker_that_asks_for_impossible_intervals_does_not_make_the_worker_spin() -> None:
    driver = Driver()
    driver.register(heartbeat=0, liveness=0, keep=0)
    driver.sent.clear()
    driver.advance(1.0)
    assert len(driver.take(m.Report)) <= 1.0 / links.SHORTEST + 1
    driver.none(a.Reconnect)


def test_a_guest_that_runs_for_longer_is_reported_as_running() -> None:
    driver = running(ref())
    driver.advance(TELL_AFTER / 2)
    driver.none(m.Report)
    driver.advance(TELL_AFTER)
    report = driver.one(m.Report)
    assert (report.running, report.queue, report.seen) == ((ref(),), 1, 1)
    driver.advance(0.5)
    driver.none(m.Report)


def test_a_guest_that_ends_soon_is_not_reported_as_running() -> None:
    driver = running(ref())
    driver.finish()
    driver.advance(0.5)
    driver.none(m.Report)


def test_lists_of_jobs_stay_within_what_a_message_holds() -> None:
    driver = running(ref("first"))
    for number in range(1_200):
        driver.dispatch(ref(f"job-{number}"))
    driver.hear(m.RegisterAgain())
    driver.advance(0.1)
    assert len(driver.one(m.Register).held) == 1_000


def test_a_worker_registers_once_it_can_run_a_job_and_not_before() -> None:
    # given
    core = Core(WorkerSettings(), Identity("worker-id", "worker"), lambda: 0.5)
    core.start()
    # when
    early = core.tick(1000.0)
    late = core.handle(e.RunnerReady(0), 1001.0) + core.tick(1001.0)
    # then
    assert early == []
    assert [type(action.message) for action in late if isinstance(action, a.Send)] == [m.Register]


def test_an_acknowledged_result_is_named_and_sent_to_the_next_broker() -> None:
    # given: the broker's word to the client may have died with it
    driver = running(ref("job"))
    driver.finish(0, outcome(b"out"))
    driver.take(m.Register)
    driver.acknowledge(ref("job"))
    # when
    driver.hear(m.RegisterAgain())
    driver.advance(0.1)
    # then
    assert ref("job") in driver.one(m.Register).finished


def test_a_beat_that_says_that_the_last_result_is_safe_ends_a_worker_that_drains() -> None:
    # given
    driver = running(ref("job"))
    driver.finish(0, outcome(b"out"))
    driver.event(a.Drain())
    assert not driver.exited
    # when
    driver.hear(m.Beat(driver.session, (ref("job"),)))
    # then
    assert driver.exited and not driver.core.finished


def test_a_stale_result_is_not_offered_again() -> None:
    # given
    driver = running(ref("job"))
    driver.finish(0, outcome(b"out"))
    driver.take(m.Register)
    # when
    driver.hear(m.Acknowledge(driver.session, ref("job"), stale=True))
    driver.hear(m.RegisterAgain())
    driver.advance(0.1)
    # then
    assert driver.one(m.Register).finished == ()
