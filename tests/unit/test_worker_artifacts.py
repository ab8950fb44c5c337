"""Artifacts: what becomes of those that do not load, and how many are kept."""

from __future__ import annotations

import pytest

from minilambda import messages as m
from minilambda.worker import actions as a
from minilambda.worker.modules import KEPT
from tests.unit.worker_driver import digest_of, outcome, ref, registered, running, wasm_of

HELLO = digest_of(b"hello")


# --- artifacts that are no good ----------------------------------------------------------------------


def test_a_bad_artifact_is_thrown_away_and_made_again_for_all_that_wait() -> None:
    driver = running(ref())
    driver.dispatch(ref("ready"))
    driver.dispatch(ref("fetching"), withheld={"stdin": 5})
    driver.take(m.Fetch)
    # When the runner can't load the artifact
    driver.finish(bad_artifact=True)
    assert [drop.corrupt for drop in driver.take(a.DropArtifact)] == [True]
    assert HELLO not in driver.disk
    driver.answer_fetches(b"hello")
    driver.one(a.Compile)
    driver.compiled(b"hello")
    # Then all jobs end well, those too that waited for it
    handle = m.body_handle(ref("fetching"), "stdin")
    driver.hear(m.Chunk(driver.session, handle, 0, 5, b"stdin"))
    for _ in range(3):
        driver.finish()
    assert {done.ref.job: done.result.state for done in driver.take(m.Done)} == {
        "job": "completed",
        "ready": "completed",
        "fetching": "completed",
    }


def test_an_artifact_that_is_bad_twice_fails_the_job_and_the_runner_does_not_count_as_having_it() -> None:
    driver = running(ref())
    driver.finish(bad_artifact=True)
    driver.answer_fetches(b"hello")
    driver.compiled(b"hello")
    driver.take(a.StartRun)
    driver.finish(how=outcome(code="internal"), bad_artifact=True)
    error = driver.one(m.Done).result.error
    assert error is not None and error.code == "internal"
    driver.dispatch(ref("next"))
    assert driver.one(a.StartRun).order.load


@pytest.mark.parametrize("compiled_first", [True, False])
def test_an_artifact_that_is_being_made_again_is_not_thrown_away_for_a_runner_that_got_the_old_one(
    compiled_first: bool,
) -> None:
    driver = running(ref("one"), slots=2)
    driver.dispatch(ref("two"))
    driver.finish(0, bad_artifact=True)
    driver.answer_fetches(b"hello")
    driver.take(a.DropArtifact)
    driver.take(a.StartRun)
    if compiled_first:
        driver.compiled(b"hello")
    driver.finish(1, bad_artifact=True)
    if not compiled_first:
        driver.compiled(b"hello")
    driver.none(a.DropArtifact)
    assert len(driver.take(a.StartRun)) == 2


# --- what is kept ------------------------------------------------------------------------------------


def test_artifacts_that_no_job_needs_are_kept_up_to_a_bound_the_oldest_go_first() -> None:
    driver = registered()
    names = [wasm_of(f"module-{number}") for number in range(KEPT + 2)]
    for number, wasm in enumerate(names):
        driver.disk[digest_of(wasm)] = False
        driver.dispatch(ref(f"job-{number}"), wasm)
        driver.finish()
    assert len(driver.held) == KEPT
    assert [drop.digest for drop in driver.take(a.DropArtifact)] == [digest_of(wasm) for wasm in names[:2]]


def test_artifacts_that_jobs_need_are_kept_above_the_bound() -> None:
    driver = registered()
    for number in range(KEPT + 5):
        wasm = wasm_of(f"module-{number}")
        driver.disk[digest_of(wasm)] = False
        driver.dispatch(ref(f"job-{number}"), wasm)
    driver.none(a.DropArtifact)
    for _ in range(KEPT + 5):
        driver.finish()
    assert len(driver.held) == KEPT
