"""Jobs with files at a worker's core: how the files come, which runner they get, what is brought back."""

from __future__ import annotations

import msgpack
import pytest

from minilambda import messages as m
from minilambda.fields import MAX_FRAME
from minilambda.paths import NOTHING
from minilambda.worker import actions as a
from minilambda.worker import events as e
from minilambda.worker.file_pulls import FIRST
from minilambda.worker.trees import KEPT, TRIES, WINDOW
from tests.unit.worker_driver import Driver, digest_of, outcome, ref, registered

A, B, LARGE = b"file a", b"file b", bytes(range(256)) * 4000
MIB = 1 << 20


def prepared(*on_disk: bytes, **settings: object) -> Driver:
    """A worker in session that has the module's artifact, and files."""
    driver = registered(**settings)
    driver.disk[digest_of(b"hello")] = False
    driver.files.whole.update((digest_of(data), data) for data in on_disk)
    return driver


def named(**files: bytes) -> dict[str, str]:
    return {f"/{name}": digest_of(data) for name, data in files.items()}


def serve(driver: Driver, *bodies: bytes) -> int:
    """Answer all that is asked for until nothing more is; how many pieces that took."""
    pieces, known = 0, {digest_of(body): body for body in bodies}
    while fetches := driver.take(m.Fetch):
        for fetch in fetches:
            body = known[fetch.handle]
            data = body[fetch.offset : fetch.offset + fetch.size]
            driver.hear(m.Chunk(driver.session, fetch.handle, fetch.offset, len(body), data))
            pieces += 1
    return pieces


def failure(driver: Driver) -> tuple[str, str]:
    result = driver.one(m.Done).result
    assert result.error is not None
    return result.error.code, result.error.message


# --- the files come ---


def test_a_job_without_files_has_to_do_with_none_of_this() -> None:
    driver = prepared()
    driver.dispatch(ref())
    for kind in (a.FindFiles, a.BuildTree):
        driver.none(kind)
    assert driver.one(a.StartRun).slot == 0
    assert driver.core.execution.slots.singles == []


def test_files_on_disk_are_put_in_their_places_and_the_job_gets_a_runner_of_its_own() -> None:
    driver = prepared(A, B)
    driver.dispatch(ref(), files=named(a=A, b=B), scratch=MIB, collect=("/tmp/out",), output_bytes=100)
    built, spawn, start = driver.one(a.BuildTree), driver.one(a.Spawn), driver.one(a.StartRun)
    assert (built.files, built.scratch) == (named(a=A, b=B), True)
    assert spawn.home == e.HomeOrder(built.key, MIB, 100, ("/tmp/out",), driver.settings.collect_bytes)
    assert (spawn.slot, start.slot, start.order.load) == (1, 1, True)


def test_files_that_are_not_on_disk_are_fetched_in_pieces_within_the_window_and_kept() -> None:
    driver = prepared(A)
    driver.dispatch(ref(), files=named(a=A, large=LARGE, b=B))
    first = driver.take(m.Fetch)
    assert {(fetch.handle, fetch.offset, fetch.size) for fetch in first} == {
        (digest_of(data), 0, FIRST) for data in (LARGE, B)
    }
    driver.sent += first
    assert serve(driver, LARGE, B) == 2 + -(-(len(LARGE) - FIRST) // MAX_FRAME)
    assert driver.files.whole.keys() == {digest_of(data) for data in (A, B, LARGE)}
    assert driver.one(a.StartRun).slot == 1


def test_many_files_are_asked_for_at_once_as_far_as_the_window_goes() -> None:
    driver = prepared()
    some = [b"%d" % number for number in range(500)]
    driver.dispatch(ref(), files={f"/{data.decode()}": digest_of(data) for data in some})
    assert len(driver.take(m.Fetch)) == WINDOW // FIRST


def test_a_file_that_two_jobs_wait_for_is_fetched_once() -> None:
    driver = prepared(slots=2)
    driver.dispatch(ref("one"), files=named(a=A))
    driver.dispatch(ref("two"), files=named(a=A, again=A))
    assert serve(driver, A) == 1
    assert len(driver.take(a.StartRun)) == 2


def test_the_file_of_no_bytes_is_never_fetched() -> None:
    driver = prepared()
    driver.dispatch(ref(), files={"/empty": NOTHING})
    driver.none(m.Fetch)
    assert driver.one(a.BuildTree).files == {"/empty": NOTHING}


def test_jobs_with_the_same_files_share_a_tree_that_outlives_them() -> None:
    driver = prepared(A)
    for job in ("first", "second"):
        driver.dispatch(ref(job), files=named(a=A))
        driver.finish(1)
    driver.one(a.BuildTree)
    driver.one(a.FindFiles)
    driver.none(a.DropTree)


def test_trees_that_nobody_uses_are_dropped_the_oldest_first() -> None:
    driver = prepared(A)
    for number in range(KEPT + 2):
        driver.dispatch(ref(f"job-{number}"), files={f"/{number}": digest_of(A)})
        driver.finish(1)
    built = [action.key for action in driver.take(a.BuildTree)]
    assert [action.key for action in driver.take(a.DropTree)] == built[:2]


def test_after_a_new_session_what_is_missing_is_asked_for_again() -> None:
    driver = prepared()
    driver.dispatch(ref(), files=named(large=LARGE))
    (fetch,) = driver.take(m.Fetch)
    driver.hear(m.Chunk(driver.session, fetch.handle, 0, len(LARGE), LARGE[:FIRST]))
    driver.take(m.Fetch)
    driver.register()
    assert driver.take(m.Fetch)[0].offset == FIRST


@pytest.mark.parametrize("same", [b"hello", bytes(range(256)) * 3000])
def test_the_same_bytes_may_be_on_their_way_as_a_module_and_as_a_file(same: bytes) -> None:
    driver = registered()
    driver.dispatch(ref(), same, inline=False, files=named(a=same))
    serve(driver, same)
    driver.compiled(same)
    driver.one(a.StartRun)
    assert driver.files.whole == {digest_of(same): same}


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("total", "data", "why"),
    [(0, b"", "no longer has"), (len(A), A[:-1] + b"!", "hash"), (len(A), A[:-1], "no longer has")],
)
def test_a_file_that_does_not_come_whole_fails_the_jobs_that_need_it(total: int, data: bytes, why: str) -> None:
    driver = prepared()
    driver.dispatch(ref(), files=named(a=A))
    driver.hear(m.Chunk(driver.session, driver.one(m.Fetch).handle, 0, total, data))
    code, message = failure(driver)
    assert (code, why in message) == ("internal", True)
    assert driver.files.coming == {} and driver.queue == 0


def test_a_disk_that_takes_no_file_fails_the_job_and_says_why() -> None:
    driver = prepared()
    driver.files.broken = "The disk is full."
    driver.dispatch(ref(), files=named(a=A))
    serve(driver, A)
    assert failure(driver) == ("internal", "The disk is full.")


def test_a_file_that_vanishes_before_the_tree_is_made_is_fetched_again() -> None:
    driver = prepared(A, B)
    driver.files.vanishing = {digest_of(A)}
    driver.dispatch(ref(), files=named(a=A, b=B))
    assert serve(driver, A) == 1
    driver.one(a.StartRun)


def test_a_file_that_always_vanishes_fails_the_job() -> None:
    driver = prepared()
    driver.auto.discard(a.FindFiles)
    driver.dispatch(ref(), files=named(a=A))
    for _ in range(TRIES):
        driver.files.whole[digest_of(A)] = A
        driver.files.vanishing = {digest_of(A)}
        driver.event(driver.files.look())
    assert failure(driver)[0] == "internal"


@pytest.mark.parametrize(
    "asked",
    [{"scratch": 2 * MIB}, {"files": named(large=LARGE)}, {"files": {"/a": digest_of(A), "/a/b": digest_of(B)}}],
)
def test_what_a_worker_can_not_give_is_unsupported_and_says_so(asked: dict[str, object]) -> None:
    driver = prepared(LARGE, A, B, scratch_bytes=MIB, files_bytes=len(LARGE) - 1)
    driver.dispatch(ref(), **asked)
    code, message = failure(driver)
    assert code == "unsupported" and message
    driver.none(a.Spawn)


def test_a_file_that_is_too_large_is_not_fetched_to_its_end() -> None:
    driver = prepared(files_bytes=len(LARGE) - 1)
    driver.dispatch(ref(), files=named(large=LARGE))
    assert serve(driver, LARGE) == 1
    assert failure(driver)[0] == "unsupported"


def test_where_nobody_can_mount_the_job_is_unsupported() -> None:
    driver = prepared(A)
    driver.dispatch(ref(), files=named(a=A))
    del driver.runners[1]
    driver.event(e.RunnerDied(1, "Operation not permitted", b"", b"", unsupported=True))
    assert failure(driver)[0] == "unsupported"


def test_a_job_that_is_recalled_while_its_files_come_leaves_nothing() -> None:
    driver = prepared()
    driver.dispatch(ref(), files=named(large=LARGE))
    (fetch,) = driver.take(m.Fetch)
    driver.hear(m.Chunk(driver.session, fetch.handle, 0, len(LARGE), LARGE[:FIRST]))
    driver.hear(m.Recall(driver.session, ref()))
    assert driver.files.coming == {}
    trees = driver.core.execution.needs.trees
    assert not trees.by_key and not trees.wanted and not trees.pulls.pulls and trees.pulls.outstanding == 0


# --- its runner ---


def test_a_runner_with_files_counts_as_a_slot_and_ends_with_its_job() -> None:
    driver = prepared(A)
    driver.dispatch(ref("one"), files=named(a=A))
    driver.dispatch(ref("two"))
    assert [start.slot for start in driver.take(a.StartRun)] == [1]
    driver.finish(1)
    assert [start.slot for start in driver.take(a.StartRun)] == [0]
    assert [kill.slot for kill in driver.take(a.Kill)] == [1]
    driver.dispatch(ref("three"), files=named(a=A))
    driver.none(a.StartRun)
    driver.finish(0)
    assert [start.slot for start in driver.take(a.StartRun)] == [1]


def test_jobs_that_waited_start_when_the_process_with_files_dies() -> None:
    driver = prepared(A)
    driver.dispatch(ref("one"), files=named(a=A))
    driver.dispatch(ref("two"))
    driver.die(1)
    assert [start.slot for start in driver.take(a.StartRun)] == [1, 0]


def test_the_deadline_of_a_guest_with_files_runs_once_its_process_is_up() -> None:
    driver = prepared(A)
    driver.auto.discard(a.Spawn)
    driver.dispatch(ref(), files=named(a=A), timeout_ms=1000)
    driver.advance(5.0)
    driver.none(a.Kill)
    driver.ready(1)
    driver.advance(1.0)
    driver.none(a.Kill)
    driver.advance(0.5)
    assert failure(driver)[0] == "deadline_exceeded"


# --- what is brought back ---


def collected(done: m.Done) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = msgpack.unpackb(done.collected)
    return found


def test_what_was_collected_goes_with_the_result_however_the_guest_ended() -> None:
    brought = e.Collected(msgpack.packb({"/tmp/out": b"made"}))
    driver = prepared()
    driver.dispatch(ref("well"), scratch=MIB, collect=("/tmp/out",))
    driver.runners[1].busy = None
    driver.event(e.RunnerFinished(1, outcome(), collected=brought))
    driver.dispatch(ref("trapped"), scratch=MIB, collect=("/tmp/out",))
    driver.runners[1].busy = None
    driver.event(e.RunnerFinished(1, outcome(code="trap"), collected=brought))
    driver.dispatch(ref("killed"), scratch=MIB, collect=("/tmp/out",))
    del driver.runners[1]
    driver.event(e.RunnerDied(1, "killed by SIGKILL", b"", b"", collected=brought))
    ends = driver.take(m.Done)
    assert [done.result.state for done in ends] == ["completed", "failed", "failed"]
    assert [collected(done) for done in ends] == [{"/tmp/out": b"made"}] * 3


def test_too_much_to_collect_fails_a_job_that_ended_well_and_no_other() -> None:
    too_much = e.Collected(problem="It is too much.")
    for code, expected in ((None, ("output_limit", "It is too much.")), ("trap", ("trap", "It failed with trap."))):
        driver = prepared()
        driver.dispatch(ref(), scratch=MIB, collect=("/tmp",))
        driver.runners[1].busy = None
        driver.event(e.RunnerFinished(1, outcome(code=code), collected=too_much))
        assert failure(driver) == expected


def test_what_is_large_is_withheld_until_the_broker_asks_for_it() -> None:
    brought = e.Collected(msgpack.packb({"/tmp/out": bytes(3 * MIB)}))
    driver = prepared()
    driver.dispatch(ref(), scratch=4 * MIB, collect=("/tmp/out",))
    driver.runners[1].busy = None
    driver.event(e.RunnerFinished(1, outcome(b"text"), collected=brought))
    done = driver.one(m.Done)
    assert (done.collected, done.withheld) == (b"", {"stdout": 4, "collected": len(brought.files)})
    driver.hear(m.Fetch(driver.session, m.body_handle(ref(), "collected"), 5, 10))
    assert driver.one(m.Chunk).data == brought.files[5:15]
