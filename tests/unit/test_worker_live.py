"""A worker between running guests and those who follow or feed them."""

from __future__ import annotations

import pytest

from minilambda import messages as m
from minilambda.worker.live import LOOK_EVERY, MAX_WATCHERS, PIECE
from tests.unit.worker_driver import Driver, digest_of, outcome, ref, registered, running

JOB = ref()


def watch(driver: Driver, follower: int = 1, credit: int = 10**6, job: m.JobRef = JOB, **offsets: int) -> None:
    places = {"stdout": 0, "stderr": 0, **offsets}
    driver.hear(m.Watch(driver.session, job, follower, places["stdout"], places["stderr"], credit))


def written(driver: Driver, follower: int = 1) -> dict[str, bytes]:
    """What was said to one follower since this was asked last; its pieces must be in order, and small enough."""
    found = {"stdout": b"", "stderr": b""}
    ends: dict[str, int] = {}
    for piece in driver.take(m.Written):
        if piece.follower == follower and piece.data:
            assert piece.offset == ends.get(piece.stream, piece.offset) and len(piece.data) <= PIECE
            ends[piece.stream] = piece.offset + len(piece.data)
            found[piece.stream] += piece.data
    return found


def feed(driver: Driver, number: int, offset: int, data: bytes = b"", eof: bool = False, job: m.JobRef = JOB) -> None:
    driver.hear(m.Feed(driver.session, job, number, offset, eof, data))


def fed(driver: Driver) -> list[tuple[int, int]]:
    """Numbers and what was received, of what was answered since this was asked last."""
    return [(message.number, message.received) for message in driver.take(m.Fed)]


def interactive(stdin: bytes = b"", **settings: object) -> Driver:
    """A worker that runs a job that takes input."""
    driver = registered(**settings)
    driver.disk[digest_of(b"hello")] = False
    driver.dispatch(JOB, b"hello", stdin=stdin, stream=True)
    assert driver.runners[0].busy is not None
    return driver


# --- output -------------------------------------------------------------------------------------------


def test_a_follower_is_told_once_that_it_has_what_there_was() -> None:
    # given a guest that has written
    driver = running(JOB)
    driver.runners[0].stdout, driver.runners[0].stderr = b"before", b"it"
    # when
    watch(driver, credit=5)
    driver.advance(LOOK_EVERY)
    driver.runners[0].stdout += b" and after"
    assert all(piece.data for piece in driver.take(m.Written))
    driver.hear(m.Allow(driver.session, JOB, 1, 100))
    driver.advance(LOOK_EVERY)
    driver.runners[0].stdout += b" that"
    driver.advance(LOOK_EVERY)
    # then
    pieces = driver.take(m.Written)
    assert [piece.data for piece in pieces].count(b"") == 1
    marked = next(number for number, piece in enumerate(pieces) if not piece.data)
    assert {piece.stream for piece in pieces[:marked]} == {"stdout", "stderr"}
    assert pieces[-1].data.endswith(b" that")


def test_who_follows_a_guest_that_has_written_nothing_is_told_so_at_once() -> None:
    driver = running(JOB)
    watch(driver)
    driver.advance(LOOK_EVERY)
    assert [(piece.offset, piece.data) for piece in driver.take(m.Written)] == [(0, b"")]


def test_what_a_guest_has_written_is_told_within_a_look() -> None:
    driver = running(JOB)
    watch(driver)
    assert written(driver) == {"stdout": b"", "stderr": b""}
    driver.runners[0].stdout, driver.runners[0].stderr = b"out", b"err"
    driver.advance(LOOK_EVERY)
    assert written(driver) == {"stdout": b"out", "stderr": b"err"}
    driver.runners[0].stdout += b" and more"
    driver.advance(LOOK_EVERY)
    assert written(driver) == {"stdout": b" and more", "stderr": b""}


def test_nothing_is_looked_at_that_nobody_follows() -> None:
    driver = running(JOB)
    driver.advance(0.05)
    assert not [action for action in driver.done_actions if type(action).__name__ in ("Measure", "ReadOutput", "Pour")]


def test_credit_bounds_what_is_told_and_without_it_nothing_is_looked_at() -> None:
    driver = running(JOB)
    watch(driver, credit=10)
    driver.runners[0].stdout = bytes(100)
    driver.advance(1.0)
    assert written(driver)["stdout"] == bytes(10)
    driver.done_actions.clear()
    driver.advance(1.0)
    assert not [action for action in driver.done_actions if type(action).__name__ == "Measure"]
    driver.hear(m.Allow(driver.session, JOB, 1, 5))
    driver.advance(LOOK_EVERY)
    assert written(driver)["stdout"] == bytes(5)


def test_both_streams_share_one_credit() -> None:
    driver = running(JOB)
    driver.runners[0].stdout, driver.runners[0].stderr = bytes(8), bytes(8)
    watch(driver, credit=10)
    driver.advance(1.0)
    told = written(driver)
    assert len(told["stdout"]) + len(told["stderr"]) == 10


def test_much_output_goes_piece_by_piece() -> None:
    driver = running(JOB)
    driver.runners[0].stdout = bytes(5 * PIECE + 1)
    watch(driver)
    driver.advance(0.1)
    assert written(driver)["stdout"] == bytes(5 * PIECE + 1)


def test_each_follower_has_its_own_place() -> None:
    driver = running(JOB)
    driver.runners[0].stdout = b"abc"
    watch(driver, 1)
    watch(driver, 2, stdout=2)
    driver.advance(LOOK_EVERY)
    pieces = [(piece.follower, piece.offset, piece.data) for piece in driver.take(m.Written) if piece.data]
    assert pieces == [(1, 0, b"abc"), (2, 2, b"c")]


def test_a_follower_is_told_once_when_it_has_all_that_there_was_when_it_came() -> None:
    driver = running(JOB)
    driver.runners[0].stdout = bytes(20)
    watch(driver, credit=10)
    driver.runners[0].stdout += bytes(20)
    driver.advance(1.0)
    assert [len(piece.data) for piece in driver.take(m.Written)] == [10]
    driver.hear(m.Allow(driver.session, JOB, 1, 10**6))
    driver.advance(1.0)
    assert [len(piece.data) for piece in driver.take(m.Written)] == [30, 0]
    driver.runners[0].stdout += bytes(1)
    driver.advance(1.0)
    assert [len(piece.data) for piece in driver.take(m.Written)] == [1]


def test_a_follower_of_a_job_that_has_not_begun_has_all_there_is_at_once() -> None:
    driver = running(JOB)
    driver.dispatch(ref("other"), b"hello")
    watch(driver, job=ref("other"))
    assert driver.one(m.Written).data == b""


def test_a_job_that_waits_is_looked_at_as_soon_as_it_runs() -> None:
    driver = running(JOB)
    other = ref("other")
    driver.dispatch(other, b"hello")
    watch(driver, job=other)
    driver.finish()
    assert driver.core.execution.slots[0].job is not None
    driver.runners[0].stdout = b"out"
    driver.advance(LOOK_EVERY)
    assert written(driver)["stdout"] == b"out"


def test_an_ended_job_is_told_of_no_more() -> None:
    driver = running(JOB)
    watch(driver)
    driver.finish(how=outcome(b"out"))
    assert driver.one(m.Done).stdout == b"out"
    watch(driver)
    driver.advance(1.0)
    assert written(driver)["stdout"] == b"" and not driver.core.execution.live.jobs


def test_who_wants_no_more_gets_no_more() -> None:
    driver = running(JOB)
    watch(driver)
    driver.hear(m.Unwatch(driver.session, JOB, 1))
    driver.runners[0].stdout = b"out"
    driver.advance(1.0)
    assert written(driver)["stdout"] == b"" and not driver.core.execution.live.jobs


def test_a_new_session_forgets_who_followed() -> None:
    driver = running(JOB)
    watch(driver)
    driver.register()
    driver.runners[0].stdout = b"out"
    driver.advance(1.0)
    assert written(driver)["stdout"] == b"" and not driver.core.execution.live.jobs


def test_output_that_was_taken_back_is_not_told() -> None:
    driver = running(JOB)
    watch(driver, stdout=3)
    driver.runners[0].stdout = b"ab"
    driver.advance(1.0)
    assert written(driver)["stdout"] == b""


def test_followers_without_end_are_not_kept() -> None:
    driver = running(JOB)
    for number in range(10_000):
        driver.hear(m.Watch(driver.session, JOB, number, 0, 0, 1))
    assert len(driver.core.execution.live.jobs[JOB].watchers) == MAX_WATCHERS


@pytest.mark.parametrize("kind", [m.Allow, m.Unwatch])
def test_words_about_followers_that_there_are_not_change_nothing(kind: type) -> None:
    driver = running(JOB)
    driver.hear(m.Allow(driver.session, JOB, 5, 10) if kind is m.Allow else m.Unwatch(driver.session, JOB, 5))
    assert not driver.core.execution.live.jobs


# --- input --------------------------------------------------------------------------------------------


def test_input_goes_into_the_pipe_behind_what_was_there_at_the_start() -> None:
    driver = interactive(stdin=b"first ")
    assert driver.runners[0].busy is not None and driver.runners[0].busy.stdin == b""
    feed(driver, 7, 0, b"then ")
    feed(driver, 8, 5, b"last", eof=True)
    assert driver.runners[0].pipe == b"first then last" and driver.runners[0].closed
    assert fed(driver) == [(7, 5), (8, 9)]


def test_a_full_pipe_is_tried_again_and_the_answer_waits() -> None:
    driver = interactive()
    driver.runners[0].room = 3
    feed(driver, 7, 0, b"hello")
    assert fed(driver) == []
    driver.runners[0].room = 1
    driver.advance(0.1)
    assert fed(driver) == []
    driver.runners[0].room = 10
    driver.advance(0.1)
    assert fed(driver) == [(7, 5)] and driver.runners[0].pipe == b"hello"


def test_a_pipe_that_nobody_reads_is_tried_ever_more_seldom() -> None:
    driver = interactive()
    driver.runners[0].room = 0
    feed(driver, 7, 0, b"hello")
    driver.advance(1.0)
    driver.done_actions.clear()
    driver.advance(1.0)
    assert len([action for action in driver.done_actions if type(action).__name__ == "Pour"]) <= 21


def test_input_before_the_guest_begins_is_kept_for_it() -> None:
    driver = running(JOB)
    other = ref("other")
    driver.dispatch(other, b"hello", stream=True)
    feed(driver, 7, 0, b"hello", job=other)
    assert fed(driver) == []
    driver.finish()
    driver.advance(0.001)
    assert fed(driver) == [(7, 5)] and driver.runners[0].pipe == b"hello"


def test_input_sent_again_is_taken_once() -> None:
    driver = interactive()
    driver.runners[0].room = 2
    feed(driver, 7, 0, b"hello")
    driver.runners[0].room = 10
    feed(driver, 8, 0, b"hello")
    feed(driver, 9, 0, b"hello, you")
    driver.advance(0.1)
    assert driver.runners[0].pipe == b"hello, you"
    assert fed(driver) == [(8, 5), (9, 10)]


def test_a_gap_is_answered_with_what_there_is() -> None:
    driver = interactive()
    feed(driver, 7, 0, b"hello")
    feed(driver, 8, 100, b"more")
    assert fed(driver) == [(7, 5), (8, 5)] and driver.runners[0].pipe == b"hello"


def test_the_question_how_much_there_is_is_answered_at_once() -> None:
    driver = interactive()
    feed(driver, 7, 0, b"hello")
    feed(driver, 8, 5)
    assert fed(driver) == [(7, 5), (8, 5)]


def test_what_comes_behind_the_end_is_not_taken() -> None:
    driver = interactive()
    feed(driver, 7, 0, b"hello", eof=True)
    feed(driver, 8, 5, b"more")
    assert fed(driver) == [(7, 5), (8, 5)] and driver.runners[0].pipe == b"hello"


def test_a_job_whose_input_is_all_there_takes_none() -> None:
    driver = running(JOB)
    feed(driver, 7, 0, b"hello")
    assert fed(driver) == [] and not driver.core.execution.live.jobs


def test_input_in_pieces_from_the_broker_reaches_the_pipe() -> None:
    driver = registered()
    driver.disk[digest_of(b"hello")] = False
    driver.dispatch(JOB, b"hello", withheld={"stdin": 300_000}, stream=True)
    driver.answer_fetches(b"x" * 300_000)
    driver.answer_fetches(b"x" * 300_000)
    driver.runners[0].room = 10**6
    driver.advance(1.0)
    assert driver.runners[0].pipe == b"x" * 300_000


def test_a_bad_artifact_is_made_again_and_the_guest_gets_all_its_input() -> None:
    driver = interactive(stdin=b"first ")
    driver.finish(bad_artifact=True)
    driver.compiled(b"hello") if driver.compiling else driver.answer_fetches(b"hello")
    if driver.compiling:
        driver.compiled(b"hello")
    feed(driver, 7, 0, b"then")
    assert driver.runners[0].pipe == b"first then"


def test_a_guest_that_has_input_which_nobody_has_any_more_does_not_begin_again() -> None:
    driver = interactive()
    feed(driver, 7, 0, b"hello")
    driver.finish(bad_artifact=True, how=outcome(code="internal"))
    assert driver.one(m.Done).result.error.code == "internal"  # type: ignore[union-attr]


def test_a_guest_that_takes_input_does_not_run_deeper() -> None:
    driver = interactive(compiler="tiered")
    driver.finish(how=outcome(code="stack_overflow"))
    assert driver.one(m.Done).result.error.code == "stack_overflow"  # type: ignore[union-attr]


def test_input_that_was_not_taken_in_a_session_is_waited_for_in_the_next() -> None:
    driver = interactive()
    driver.runners[0].room = 2
    feed(driver, 7, 0, b"hello")
    driver.register()
    driver.runners[0].room = 10
    driver.advance(0.1)
    assert driver.runners[0].pipe == b"he" and fed(driver) == []
    feed(driver, 9, 0, b"hello")
    assert driver.runners[0].pipe == b"hello" and fed(driver) == [(9, 5)]
