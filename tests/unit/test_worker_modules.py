"""From a digest to an artifact in hand: one look, one fetch, one compilation, however many jobs wait."""

from __future__ import annotations

import pytest

from minilambda import messages as m
from minilambda.fields import MAX_FRAME
from minilambda.notation import MIB
from minilambda.worker import actions as a
from minilambda.worker.elsewhere import LOCK_RETRY, TRUST
from tests.unit.worker_driver import Driver, digest_of, outcome, ref, registered, wasm_of

LARGE = wasm_of("large", 5 * MAX_FRAME + 7)
HELLO = digest_of(b"hello")


def failure(done: m.Done) -> tuple[str, str]:
    assert done.result.error is not None
    return done.result.error.code, done.result.error.message


def wanting(wasm: bytes = b"hello", **settings: object) -> Driver:
    """A worker whose compiler is busy with the module of one job."""
    driver = registered(**settings)
    driver.dispatch(ref(), wasm)
    assert driver.compiling.keys() == {digest_of(wasm)}
    return driver


def test_a_module_that_rode_along_is_compiled_and_run() -> None:
    driver = wanting()
    driver.advance(0.02)
    driver.compiled(b"hello", ms=15.0)
    driver.none(m.Fetch)
    assert driver.one(a.StartRun).order.load
    driver.finish(how=outcome(b"out"))
    done = driver.one(m.Done)
    assert (done.result.state, done.result.tier, done.stdout) == ("completed", "compiled", b"out")
    assert done.result.usage.compile_ms == pytest.approx(15.0)


def test_a_module_is_fetched_in_pieces_within_the_window() -> None:
    driver = registered()
    driver.dispatch(ref(), LARGE, inline=False)
    first = [(fetch.offset, fetch.size) for fetch in driver.sent if isinstance(fetch, m.Fetch)]
    assert first == [(number * MAX_FRAME, MAX_FRAME) for number in range(4)]
    while driver.answer_fetches(LARGE):
        pass
    assert driver.compiling.keys() == {digest_of(LARGE)}
    assert driver.wasm[digest_of(LARGE)] == LARGE


def test_an_artifact_on_disk_needs_neither_bytes_nor_compiler() -> None:
    driver = registered()
    driver.disk[HELLO] = True
    driver.dispatch(ref(), inline=False)
    order = driver.one(a.StartRun).order
    assert order.component
    assert (driver.take(m.Fetch), driver.take(a.Compile)) == ([], [])
    driver.finish()
    assert driver.one(m.Done).result.tier == "disk"


def test_a_module_that_another_worker_compiles_is_looked_for_until_it_is_there() -> None:
    driver = registered()
    driver.foreign_locks.add(HELLO)
    driver.dispatch(ref())
    driver.advance(LOCK_RETRY * 3)
    assert len(driver.take(a.FindArtifact)) == 4
    driver.disk[HELLO] = False
    driver.advance(LOCK_RETRY)
    driver.one(a.StartRun)
    driver.none(a.Compile)


def test_a_module_that_another_worker_never_makes_is_compiled_here_after_a_time() -> None:
    # given a worker of the same machine that has the lock and stands still
    driver = registered()
    driver.foreign_locks.add(HELLO)
    driver.dispatch(ref())
    # when, then
    driver.advance(TRUST - LOCK_RETRY)
    driver.none(a.Compile)
    driver.advance(2 * LOCK_RETRY)
    driver.one(a.Compile)


def test_a_module_whose_other_compiler_gave_up_is_compiled_here() -> None:
    driver = registered()
    driver.foreign_locks.add(HELLO)
    driver.dispatch(ref())
    driver.foreign_locks.clear()
    driver.advance(LOCK_RETRY)
    driver.one(a.Compile)


def test_many_jobs_wait_for_one_compilation() -> None:
    driver = registered(slots=4)
    for number in range(4):
        driver.dispatch(ref(f"job-{number}"))
    driver.one(a.Compile)
    driver.compiled(b"hello")
    assert len(driver.take(a.StartRun)) == 4


def test_a_failed_compilation_fails_all_that_wait_and_the_next_job_tries_again() -> None:
    driver = wanting(slots=2)
    driver.dispatch(ref("other"))
    driver.compiled(b"hello", "invalid_module", "It is no module.")
    assert [failure(done) for done in driver.take(m.Done)] == [("invalid_module", "It is no module.")] * 2
    assert not driver.locks
    driver.take(a.Compile)
    driver.dispatch(ref("third"))
    driver.one(a.Compile)


def test_a_compilation_that_takes_too_long_is_killed_and_the_failure_names_the_limit() -> None:
    driver = wanting(compile_timeout=3.0)
    assert driver.one(a.Compile).order.timeout_ms == 3_000
    driver.advance(2.9)
    driver.none(a.KillCompiler)
    driver.advance(0.2)
    driver.one(a.KillCompiler)
    assert failure(driver.one(m.Done)) == ("compile_limit", "Compiling the module took longer than 3 s.")


def test_a_compilation_that_ends_as_it_is_killed_counts() -> None:
    driver = wanting(compile_timeout=3.0)
    driver.auto.discard(a.KillCompiler)
    driver.advance(3.1)
    driver.one(a.KillCompiler)
    driver.compiled(b"hello")
    driver.one(a.StartRun)


def test_large_modules_leave_a_compiler_to_small_ones() -> None:
    driver = wanting(wasm_of("a", 2 * MIB), compilers=2)
    driver.dispatch(ref("b"), wasm_of("b", 2 * MIB))
    driver.dispatch(ref("c"), wasm_of("c"))
    assert [action.order.digest for action in driver.take(a.Compile)] == [
        digest_of(wasm_of("a", 2 * MIB)),
        digest_of(wasm_of("c")),
    ]


def test_a_small_module_may_not_take_as_long_as_a_large_one() -> None:
    driver = wanting(wasm_of("a"), compile_timeout=120.0)
    assert 10_000 <= driver.one(a.Compile).order.timeout_ms < 11_000
    driver.advance(11.0)
    driver.one(a.KillCompiler)


def test_no_more_compilers_run_at_a_time_than_the_settings_allow() -> None:
    driver = wanting(wasm_of("a"), compilers=2)
    driver.dispatch(ref("b"), wasm_of("b"))
    driver.dispatch(ref("c"), wasm_of("c"))
    assert len(driver.take(a.Compile)) == 2
    driver.compiled(wasm_of("b"))
    assert driver.one(a.Compile).order.digest == digest_of(wasm_of("c"))


def test_the_limit_of_a_compilation_does_not_run_while_it_waits_for_a_compiler() -> None:
    driver = wanting(wasm_of("a"), compile_timeout=3.0, compilers=1)
    driver.advance(2.0)
    driver.dispatch(ref("b"), wasm_of("b"))
    driver.advance(0.9)
    driver.compiled(wasm_of("a"))
    driver.advance(2.9)
    driver.none(a.KillCompiler)


def test_time_spent_compiling_is_charged_for_as_long_as_a_job_waited() -> None:
    driver = wanting(slots=2)
    driver.advance(1.0)
    driver.dispatch(ref("late"))
    driver.advance(0.5)
    driver.compiled(b"hello", ms=1500.0)
    driver.finish(0)
    driver.finish(1)
    spent = {done.ref.job: done.result.usage for done in driver.take(m.Done)}
    assert spent["job"].compile_ms == pytest.approx(1500.0)
    assert spent["late"].compile_ms == pytest.approx(500.0)


@pytest.mark.parametrize("compiler", ["winch", "tiered"])
def test_bytes_that_do_not_have_the_hash_fail_the_job_and_no_other_compiler_gets_them(compiler: str) -> None:
    driver = registered(compiler=compiler)
    driver.dispatch(ref(), LARGE, inline=False)
    while driver.answer_fetches(LARGE[:-1] + b"!"):
        pass
    driver.compiled(LARGE)
    assert failure(driver.one(m.Done)) == ("internal", "The bytes do not have the hash.")
    assert not driver.wasm and not driver.locks and not driver.compiling


def test_a_broker_that_no_longer_has_the_module_fails_the_job() -> None:
    driver = registered()
    driver.dispatch(ref(), LARGE, inline=False)
    driver.hear(m.Chunk(driver.session, digest_of(LARGE), 0, 0))
    assert failure(driver.one(m.Done)) == ("internal", "The broker no longer has the module's bytes.")
    assert not driver.locks


def test_an_inline_module_of_another_size_than_stated_is_fetched_instead() -> None:
    driver = registered()
    driver.hear(m.Dispatch(1, 1, ref(), m.JobSpec(HELLO), len(b"hello"), wasm=b"hell"))
    assert driver.answer_fetches(b"hello") == 1
    assert driver.compiling.keys() == {HELLO}


def test_an_inline_module_of_another_size_does_not_displace_a_good_one() -> None:
    driver = registered()
    driver.auto.discard(a.FindArtifact)
    driver.dispatch(ref("good"))
    driver.hear(m.Dispatch(1, 2, ref("bad"), m.JobSpec(HELLO), len(b"hello"), wasm=b"hell"))
    driver.answer_find()
    driver.none(m.Fetch)
    assert driver.compiling.keys() == {HELLO}


def test_an_empty_module_reaches_the_compiler_which_refuses_it() -> None:
    driver = registered()
    driver.dispatch(ref(), b"")
    driver.compiled(b"", "invalid_module", "It is empty.")
    assert failure(driver.one(m.Done))[0] == "invalid_module"


def test_pieces_that_nobody_asked_for_are_ignored() -> None:
    driver = registered()
    driver.dispatch(ref(), LARGE, inline=False)
    driver.hear(m.Chunk(driver.session, digest_of(b"never"), 0, 5, b"never"))
    driver.hear(m.Chunk(driver.session, "nonsense", 0, 5, b"never"))
    driver.hear(m.Chunk(driver.session, digest_of(LARGE), 4 * MAX_FRAME, len(LARGE), bytes(MAX_FRAME)))
    while driver.answer_fetches(LARGE):
        pass
    assert driver.compiling.keys() == {digest_of(LARGE)}


def test_a_new_session_asks_again_for_what_had_not_arrived() -> None:
    driver = registered()
    driver.dispatch(ref(), LARGE, inline=False)
    fetch = driver.take(m.Fetch)[0]
    driver.hear(m.Chunk(driver.session, fetch.handle, 0, len(LARGE), LARGE[:MAX_FRAME]))
    driver.take(m.Fetch)
    driver.hear(m.RegisterAgain())
    driver.register()
    while driver.answer_fetches(LARGE):
        pass
    assert driver.wasm[digest_of(LARGE)] == LARGE


# --- jobs that leave ---------------------------------------------------------------------------------


def test_a_job_cancelled_while_its_module_is_fetched_stops_the_fetching() -> None:
    driver = registered()
    driver.dispatch(ref(), LARGE, inline=False)
    asked = driver.take(m.Fetch)
    driver.hear(m.Stop(driver.session, ref()))
    assert driver.one(m.Done).result.state == "cancelled"
    driver.hear(m.Chunk(driver.session, asked[0].handle, 0, len(LARGE), LARGE[:MAX_FRAME]))
    driver.none(m.Fetch)
    assert not driver.locks and not driver.wasm


def test_a_job_cancelled_while_it_waits_for_a_compiler_leaves_no_trace() -> None:
    driver = wanting(wasm_of("a"))
    driver.dispatch(ref("b"), wasm_of("b"))
    driver.hear(m.Stop(driver.session, ref("b")))
    assert driver.one(m.Done).result.state == "cancelled"
    driver.compiled(wasm_of("a"))
    assert not driver.compiling and not driver.locks and not driver.wasm


def test_a_compiler_is_killed_when_nobody_wants_the_module_any_more() -> None:
    driver = wanting()
    driver.hear(m.Stop(driver.session, ref()))
    driver.one(a.KillCompiler)
    assert driver.one(m.Done).result.state == "cancelled"
    assert not driver.locks and not driver.wasm


def test_a_compiler_is_not_killed_while_another_job_wants_the_module() -> None:
    driver = wanting()
    driver.dispatch(ref("other"))
    driver.hear(m.Stop(driver.session, ref()))
    driver.none(a.KillCompiler)
    driver.compiled(b"hello")
    driver.one(a.StartRun)


def test_a_module_that_is_wanted_again_while_its_compiler_is_killed_is_compiled_after_all() -> None:
    driver = wanting()
    driver.auto.discard(a.KillCompiler)
    driver.hear(m.Stop(driver.session, ref()))
    driver.take(a.Compile)
    driver.dispatch(ref("again"), inline=False)
    driver.none(a.Compile)
    driver.compiled(b"hello", "compile_limit", "It was stopped.")
    driver.answer_fetches(b"hello")
    driver.one(a.Compile)
    driver.compiled(b"hello")
    driver.one(a.StartRun)


def test_an_artifact_that_is_done_as_its_compiler_is_killed_is_used() -> None:
    driver = wanting()
    driver.auto.discard(a.KillCompiler)
    driver.hear(m.Stop(driver.session, ref()))
    driver.compiled(b"hello")
    driver.take(a.Compile)
    driver.dispatch(ref("again"))
    driver.none(a.Compile)
    driver.one(a.StartRun)


def test_a_disk_that_answers_after_the_job_has_left_is_told_to_let_go() -> None:
    driver = registered()
    driver.auto.discard(a.FindArtifact)
    driver.dispatch(ref())
    driver.hear(m.Stop(driver.session, ref()))
    driver.answer_find()
    assert not driver.locks
    driver.disk[HELLO] = False
    driver.dispatch(ref("next"))
    driver.hear(m.Stop(driver.session, ref("next")))
    driver.answer_find()
    assert not driver.held
