"""Tiered compiling: the quick compiler makes the first artifact, the other one a better one when it is worth it."""

from __future__ import annotations

import pytest

from minilambda import messages as m
from minilambda.worker import actions as a
from minilambda.worker.compilations import BACKGROUND_PATIENCE
from minilambda.worker.elsewhere import LOCK_RETRY, PATIENT_RETRY
from minilambda.worker.modules import KEPT
from minilambda.worker.upgrades import IDLE_AFTER, KEPT_WASM
from tests.unit.worker_driver import Driver, digest_of, outcome, ref, registered, wasm_of

HELLO = digest_of(b"hello")


def tiered(**settings: object) -> Driver:
    return registered(compiler="tiered", **settings)


def ran_once(**settings: object) -> Driver:
    """A worker on which one job has run a module that nobody had seen."""
    driver = tiered(**settings)
    driver.dispatch(ref("first"))
    driver.compiled(b"hello")
    driver.finish()
    for kind in (a.Compile, a.StartRun, a.FindArtifact, m.Done):
        driver.take(kind)
    return driver


def improving(**settings: object) -> Driver:
    """A worker that compiles a module anew, since it runs again; that run goes on."""
    driver = ran_once(**settings)
    driver.dispatch(ref("second"))
    assert driver.one(a.Compile).order.background
    driver.take(a.StartRun)
    return driver


# --- the first artifact ------------------------------------------------------------------------------


def test_a_new_module_is_compiled_by_winch_and_runs_on_that() -> None:
    driver = tiered()
    driver.dispatch(ref())
    order = driver.one(a.Compile).order
    assert (order.compiler, order.background) == ("winch", False)
    driver.compiled(b"hello")
    assert driver.one(a.StartRun).order.compiler == "winch"
    driver.finish()
    assert driver.one(m.Done).result.usage.compiler == "winch"


@pytest.mark.parametrize("compiler", ["cranelift", "winch"])
def test_with_one_compiler_nothing_is_compiled_twice(compiler: str) -> None:
    driver = registered(compiler=compiler)
    for number in range(3):
        driver.dispatch(ref(f"job-{number}"))
        if number == 0:
            driver.compiled(b"hello")
        driver.finish()
    driver.advance(10 * IDLE_AFTER)
    assert [action.order.compiler for action in driver.take(a.Compile)] == [compiler]
    assert {done.result.usage.compiler for done in driver.take(m.Done)} == {compiler}
    assert not driver.wasm and not driver.locks


def test_what_winch_refuses_cranelift_compiles_without_another_fetch() -> None:
    driver = tiered()
    driver.dispatch(ref(), inline=False)
    driver.answer_fetches(b"hello")
    driver.compiled(b"hello", "invalid_module", "Winch knows no garbage collection.")
    assert [action.order.compiler for action in driver.take(a.Compile)] == ["winch", "cranelift"]
    driver.none(m.Fetch)
    driver.none(m.Done)
    driver.compiled(b"hello")
    driver.finish()
    assert driver.one(m.Done).result.usage.compiler == "cranelift"
    assert not driver.wasm and not driver.locks


def test_what_both_refuse_fails_with_the_reason_of_cranelift() -> None:
    driver = tiered()
    driver.dispatch(ref())
    driver.compiled(b"hello", "invalid_module", "Winch's reason.")
    driver.compiled(b"hello", "invalid_module", "Cranelift's reason.")
    error = driver.one(m.Done).result.error
    assert error is not None and (error.code, error.message) == ("invalid_module", "Cranelift's reason.")
    assert not driver.wasm and not driver.locks


def test_a_module_that_takes_winch_too_long_is_not_given_to_cranelift() -> None:
    driver = tiered(compile_timeout=3.0)
    driver.dispatch(ref())
    driver.advance(3.1)
    error = driver.one(m.Done).result.error
    assert error is not None and error.code == "compile_limit"
    assert len(driver.take(a.Compile)) == 1
    assert not driver.wasm and not driver.locks


# --- when it is worth another compilation ------------------------------------------------------------


def test_a_module_that_runs_again_is_compiled_by_cranelift_while_it_runs() -> None:
    driver = ran_once()
    driver.dispatch(ref("second"))
    order = driver.one(a.Compile).order
    assert (order.compiler, order.background) == ("cranelift", True)
    assert driver.one(a.StartRun).order.compiler == "winch"
    # When Cranelift is done, the next run uses its code, on the runner that has the other loaded
    driver.compiled(b"hello")
    driver.finish()
    driver.dispatch(ref("third"))
    start = driver.one(a.StartRun).order
    assert (start.compiler, start.load, start.evict) == ("cranelift", True, ())
    driver.finish()
    assert [done.result.usage.compiler for done in driver.take(m.Done)] == ["winch", "cranelift"]
    assert driver.held == {(HELLO, "cranelift")}
    assert not driver.wasm and not driver.locks


def test_many_first_runs_at_once_are_a_reason_too() -> None:
    driver = tiered(slots=2)
    driver.dispatch(ref("one"))
    driver.dispatch(ref("two"))
    driver.compiled(b"hello")
    assert [action.order.compiler for action in driver.take(a.Compile)] == ["winch", "cranelift"]


def test_an_idle_worker_improves_what_it_has_one_module_at_a_time_the_newest_first() -> None:
    driver = tiered()
    for name in ("old", "new"):
        driver.dispatch(ref(name), wasm_of(name))
        driver.compiled(wasm_of(name))
        driver.finish()
    driver.take(a.Compile)
    driver.advance(IDLE_AFTER * 0.9)
    driver.none(a.Compile)
    driver.advance(IDLE_AFTER * 0.2)
    assert driver.one(a.Compile).order.digest == digest_of(wasm_of("new"))
    driver.compiled(wasm_of("new"))
    assert driver.one(a.Compile).order.digest == digest_of(wasm_of("old"))


def test_a_worker_with_a_job_is_not_idle() -> None:
    driver = tiered(slots=2)
    driver.dispatch(ref())
    driver.compiled(b"hello")
    driver.take(a.Compile)
    driver.advance(IDLE_AFTER * 3)
    driver.none(a.Compile)


def test_a_module_in_the_background_holds_up_no_first_compilation() -> None:
    driver = improving(compilers=1)
    driver.dispatch(ref("other"), wasm_of("other"))
    order = driver.one(a.Compile).order
    assert (order.digest, order.background) == (digest_of(wasm_of("other")), False)


def test_one_module_at_a_time_is_compiled_in_the_background() -> None:
    driver = improving()
    driver.dispatch(ref("a"), wasm_of("a"))
    driver.compiled(wasm_of("a"))
    driver.take(a.Compile)
    driver.dispatch(ref("b"), wasm_of("a"))
    driver.none(a.Compile)
    driver.compiled(b"hello")
    assert driver.one(a.Compile).order.digest == digest_of(wasm_of("a"))


def test_a_compilation_in_the_background_has_more_time() -> None:
    driver = improving(compile_timeout=2.0)
    driver.advance(2.0 * BACKGROUND_PATIENCE - 0.1)
    driver.none(a.KillCompiler)
    driver.advance(0.2)
    driver.one(a.KillCompiler)


@pytest.mark.parametrize("code", ["invalid_module", "compile_limit", "internal"])
def test_a_failure_in_the_background_harms_nobody_and_is_not_repeated(code: str) -> None:
    driver = improving()
    driver.compiled(b"hello", code, "It failed.")
    driver.finish()
    driver.dispatch(ref("third"))
    driver.finish()
    driver.advance(IDLE_AFTER * 3)
    assert {done.result.state for done in driver.take(m.Done)} == {"completed"}
    driver.none(a.Compile)
    assert not driver.wasm and not driver.locks


# --- where the bytes and the artifacts come from -----------------------------------------------------


def test_cranelifts_artifact_on_disk_is_preferred() -> None:
    driver = tiered()
    driver.disk[HELLO] = driver.better[HELLO] = False
    driver.dispatch(ref())
    assert driver.one(a.StartRun).order.compiler == "cranelift"
    assert driver.one(a.FindArtifact).compilers == ("cranelift", "winch")


def test_winchs_artifact_on_disk_is_used_and_improved_from_bytes_that_are_fetched() -> None:
    driver = tiered()
    driver.disk[HELLO] = False
    for number in range(2):
        driver.dispatch(ref(f"job-{number}"), inline=False)
        driver.finish()
    assert {start.order.compiler for start in driver.take(a.StartRun)} == {"winch"}
    assert driver.answer_fetches(b"hello") == 1
    assert driver.one(a.Compile).order.compiler == "cranelift"


def test_an_improvement_that_another_worker_has_made_is_taken_from_the_disk() -> None:
    driver = ran_once()
    driver.better[HELLO] = False
    driver.dispatch(ref("second"))
    driver.none(a.Compile)
    driver.finish()
    driver.dispatch(ref("third"))
    assert driver.take(a.StartRun)[-1].order.compiler == "cranelift"


def test_an_improvement_that_another_worker_is_making_is_looked_for_now_and_then() -> None:
    driver = ran_once()
    driver.foreign_locks.add(HELLO)
    driver.dispatch(ref("second"))
    driver.take(a.FindArtifact)
    driver.advance(LOCK_RETRY * 2)
    driver.none(a.FindArtifact)
    driver.advance(PATIENT_RETRY)
    driver.one(a.FindArtifact)


def test_bytes_that_the_broker_no_longer_has_are_no_reason_to_fail() -> None:
    driver = tiered()
    driver.disk[HELLO] = False
    driver.dispatch(ref("one"), inline=False)
    driver.dispatch(ref("two"), inline=False)
    driver.hear(m.Chunk(driver.session, HELLO, 0, 0))
    driver.finish()
    driver.finish()
    assert {done.result.state for done in driver.take(m.Done)} == {"completed"}
    assert not driver.locks


def test_the_wasm_that_is_kept_for_later_is_bounded() -> None:
    driver = tiered()
    names = [wasm_of(f"module-{number}", KEPT_WASM // 3) for number in range(4)]
    for wasm in names:
        driver.dispatch(ref(wasm[:9].decode()), wasm)
        driver.compiled(wasm)
        driver.finish()
    assert driver.wasm.keys() == {digest_of(wasm) for wasm in names[1:]}
    # And what was dropped is fetched when its time has come
    driver.dispatch(ref("again"), names[0], inline=False)
    assert driver.take(m.Fetch)


def test_modules_that_are_dropped_take_their_wasm_with_them() -> None:
    driver = tiered()
    for number in range(KEPT + 2):
        wasm = wasm_of(f"module-{number}")
        driver.dispatch(ref(f"job-{number}"), wasm)
        driver.compiled(wasm)
        driver.finish()
    assert len(driver.wasm) == len(driver.held) == KEPT


# --- a stack that is too shallow ---------------------------------------------------------------------


def overflowing(**settings: object) -> Driver:
    """A worker whose first run of a module has just overflowed its stack."""
    driver = tiered(**settings)
    driver.dispatch(ref())
    driver.compiled(b"hello")
    driver.take(a.Compile)
    driver.take(a.StartRun)
    driver.finish(how=outcome(b"half", code="stack_overflow"))
    return driver


def test_a_guest_that_overflows_its_stack_under_winch_runs_again_under_cranelift() -> None:
    driver = overflowing()
    driver.none(m.Done)
    order = driver.one(a.Compile).order
    assert (order.compiler, order.background) == ("cranelift", False), "somebody waits for it"
    driver.compiled(b"hello")
    assert driver.one(a.StartRun).order.compiler == "cranelift"
    driver.finish(how=outcome(b"whole"))
    done = driver.one(m.Done)
    assert (done.result.state, done.stdout, done.result.usage.compiler) == ("completed", b"whole", "cranelift")


def test_a_guest_that_overflows_under_both_has_overflowed() -> None:
    driver = overflowing()
    driver.compiled(b"hello")
    driver.finish(how=outcome(b"half", code="stack_overflow"))
    error = driver.one(m.Done).result.error
    assert error is not None and error.code == "stack_overflow"


def test_a_guest_that_overflows_and_that_cranelift_refuses_has_overflowed() -> None:
    driver = overflowing()
    driver.compiled(b"hello", "compile_limit", "It took too long.")
    done = driver.one(m.Done)
    assert done.result.error is not None and done.result.error.code == "stack_overflow"
    assert (done.stdout, done.result.usage.compiler) == (b"half", "winch")


def test_a_guest_that_overflows_when_the_better_code_is_there_runs_on_it_at_once() -> None:
    driver = improving()
    driver.compiled(b"hello")
    driver.finish(how=outcome(code="stack_overflow"))
    assert driver.one(a.StartRun).order.compiler == "cranelift"


def test_a_guest_that_overflows_while_the_better_code_is_made_waits_for_it() -> None:
    driver = improving()
    driver.finish(how=outcome(code="stack_overflow"))
    driver.none(a.StartRun)
    driver.compiled(b"hello")
    assert driver.one(a.StartRun).order.compiler == "cranelift"


def test_a_job_that_waits_for_better_code_can_be_cancelled() -> None:
    driver = overflowing()
    driver.hear(m.Stop(driver.session, ref()))
    assert driver.one(m.Done).result.state == "cancelled"
    driver.compiled(b"hello")
    driver.none(a.StartRun)


@pytest.mark.parametrize("compiler", ["cranelift", "winch"])
def test_with_one_compiler_an_overflow_is_final(compiler: str) -> None:
    driver = registered(compiler=compiler)
    driver.dispatch(ref())
    driver.compiled(b"hello")
    driver.finish(how=outcome(code="stack_overflow"))
    error = driver.one(m.Done).result.error
    assert error is not None and error.code == "stack_overflow"


# --- artifacts that are no good ----------------------------------------------------------------------


def test_a_bad_artifact_of_cranelift_is_made_again_by_winch() -> None:
    driver = tiered()
    driver.better[HELLO] = False
    driver.dispatch(ref())
    driver.finish(bad_artifact=True)
    assert HELLO not in driver.better
    driver.answer_fetches(b"hello")
    assert driver.one(a.Compile).order.compiler == "winch"
    driver.compiled(b"hello")
    driver.finish()
    assert driver.one(m.Done).result.state == "completed"


def test_a_bad_artifact_of_winch_waits_for_the_better_one_that_is_being_made() -> None:
    driver = ran_once()
    driver.die(0)
    driver.advance(0.2)  # another runner, which has nothing loaded
    driver.dispatch(ref("second"))
    driver.take(a.StartRun)
    driver.take(a.Compile)
    driver.finish(bad_artifact=True)
    driver.none(a.Compile)
    driver.compiled(b"hello")
    assert driver.one(a.StartRun).order.compiler == "cranelift"
    driver.finish()
    assert driver.one(m.Done).result.state == "completed"


def test_a_bad_artifact_that_was_replaced_meanwhile_takes_nothing_down() -> None:
    driver = improving()
    driver.compiled(b"hello")
    driver.finish(bad_artifact=True)
    assert (HELLO, "cranelift") in driver.held
    assert driver.one(a.StartRun).order.compiler == "cranelift"
