"""The executor against a real broker and a real worker: what users of ``concurrent.futures`` rely on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    BrokenExecutor,
    CancelledError,
    Future,
    as_completed,
    wait,
)
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import pytest

from minilambda import Client, Executor, RunResult, errors
from tests import wat
from tests.cluster import ROOT, Cluster, wait_for
from tests.integration.guests import CAT, HELLO, LOOP, SLEEP, sleeping

ADD = wat.wasm(wat.ADD)
ARGS = wat.wasm(wat.ARGS)
DIVIDE = wat.wasm(wat.DIVIDE)
FOREVER = 60.0  # a guest that is to be stopped by the test may run so long, seconds


@pytest.fixture
def executor(cluster: Cluster) -> Iterator[Executor]:
    with Executor(cluster.address) as executor:
        yield executor


@pytest.fixture
def narrow(cluster: Cluster) -> Iterator[Executor]:
    """An executor that has one job at the broker at a time."""
    executor = Executor(cluster.address, window=1)
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def running(executor: Executor, wasm: bytes = SLEEP) -> Future[RunResult]:
    """The future of a job that is at the broker and does not end by itself."""
    future = executor.submit(wasm, timeout=FOREVER)
    wait_for(future.running, "the future is running")
    return future


@contextlib.contextmanager
def killed(executor: Executor, *futures: Future[RunResult]) -> Iterator[None]:
    try:
        yield
    finally:
        for future in futures:
            executor.kill(future)


# --- submit and its futures ---------------------------------------------------------------------------


def test_a_future_has_the_result(executor: Executor) -> None:
    future = executor.submit(ARGS, "one", "two")
    assert b"two" in future.result(20).stdout
    assert (future.done(), future.running(), future.cancelled(), future.exception()) == (True, False, False, None)
    assert executor.submit_call(ADD, "add", 2, 3).result(20) == 5
    assert executor.submit(CAT, stdin="x").result(20).stdout == b"x"


def test_a_future_raises_why_its_job_failed(executor: Executor) -> None:
    error = executor.submit(DIVIDE).exception(20)
    assert isinstance(error, errors.Trap)
    assert error.result is not None
    assert executor.submit(DIVIDE, check=False).result(20).state == "failed"
    with pytest.raises(errors.NotFound):
        executor.submit("sha256:" + "0" * 64).result(20)


def test_what_no_broker_would_take_is_raised_by_submit(executor: Executor) -> None:
    with pytest.raises(TypeError, match="colour"):
        executor.submit(HELLO, colour="blue")  # type: ignore[call-arg]
    with pytest.raises(FileNotFoundError):
        executor.submit("no-such-file.wasm")
    with pytest.raises(errors.InvalidModule):
        executor.submit(b"")


def test_any_thread_may_submit_and_one_thread_serves_all(executor: Executor) -> None:
    before = threading.active_count()
    outputs: list[bytes] = []

    def use(number: int) -> None:
        outputs.extend(executor.submit(CAT, stdin=f"{number}").result(20).stdout for _ in range(10))

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    assert threading.active_count() <= before + 8 + 1
    for thread in threads:
        thread.join()
    assert sorted(outputs) == sorted(f"{number}".encode() for number in range(8) for _ in range(10))


def test_a_callback_may_submit_and_its_failure_hurts_nobody(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    followed: list[Future[RunResult]] = []
    future = executor.submit(HELLO)
    future.add_done_callback(lambda _: followed.append(executor.submit(CAT, stdin="next")))
    future.add_done_callback(lambda _: {}[0])  # logged by the standard library
    wait_for(lambda: followed, "the callback has submitted")
    assert followed[0].result(20).stdout == b"next"
    assert executor.submit(HELLO).result(20).ok


def test_a_callback_that_wants_to_end_the_thread_is_logged_and_neither_the_others_nor_the_executor_are_hurt(
    executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    told: list[Future[RunResult]] = []
    future = running(executor, sleeping(200))
    future.add_done_callback(lambda _: sys.exit("from a callback"))
    future.add_done_callback(told.append)
    # when
    assert future.result(20).ok
    # then
    wait_for(lambda: told, "the next callback is called")
    assert executor.submit(HELLO).result(20).ok
    assert "exception calling callback" in caplog.text and "from a callback" in caplog.text


def test_a_callback_of_a_future_that_is_done_may_end_the_thread_that_adds_it(executor: Executor) -> None:
    future = executor.submit(HELLO)
    assert future.result(20).ok
    with pytest.raises(SystemExit):
        future.add_done_callback(lambda _: sys.exit(3))


def test_futures_are_awaited_in_a_loop(executor: Executor) -> None:
    async def main() -> list[bytes]:
        futures = [asyncio.wrap_future(executor.submit(CAT, stdin=str(number))) for number in range(20)]
        return [result.stdout for result in await asyncio.gather(*futures)]

    assert asyncio.run(main()) == [str(number).encode() for number in range(20)]


# --- wait and as_completed ----------------------------------------------------------------------------


def test_wait_returns_at_the_first_at_the_first_failure_or_at_the_last(executor: Executor) -> None:
    slow = running(executor)
    with killed(executor, slow):
        first = wait([executor.submit(HELLO), slow], 20, FIRST_COMPLETED)
        assert first.not_done == {slow}
        failed = wait([executor.submit(DIVIDE), executor.submit(HELLO), slow], 20, FIRST_EXCEPTION)
        assert slow in failed.not_done
        timed_out = wait([slow], 0.01)
        assert timed_out.not_done == {slow}
    every = [executor.submit(HELLO) for _ in range(5)]
    assert wait(every, 20, ALL_COMPLETED).done == set(every)


def test_as_completed_yields_each_once_and_times_out(executor: Executor) -> None:
    futures = {executor.submit(HELLO) for _ in range(10)}
    assert set(as_completed(futures, 20)) == futures
    slow = running(executor)
    with killed(executor, slow), pytest.raises(FutureTimeout):
        list(as_completed([slow], 0.05))


def test_a_result_may_be_waited_for_no_longer_than_asked(executor: Executor) -> None:
    slow = running(executor)
    with killed(executor, slow):
        with pytest.raises(FutureTimeout):
            slow.result(0.01)
        with pytest.raises(FutureTimeout):
            slow.exception(0)
        assert slow.running()


# --- map ----------------------------------------------------------------------------------------------


def test_map_keeps_the_order_and_takes_what_a_client_takes(executor: Executor) -> None:
    inputs = [str(number).encode() for number in range(100)]
    assert [result.stdout for result in executor.map(CAT, inputs)] == inputs
    pairs = executor.map(ADD, ["1", "2", "3"], ["10", "20"], invoke="add")
    assert [result.value for result in pairs] == [11, 22]
    mixed = executor.map(ARGS, ["a", ["b", "c"], {"args": ["d"]}], chunksize=7)
    assert [word for word in b"abcd" if any(bytes([word]) in result.stdout for result in mixed)]
    assert list(executor.map(HELLO, [])) == []
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(HELLO, [], chunksize=0)


def test_map_begins_at_once_and_takes_no_more_than_it_needs(cluster: Cluster) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        for taken in itertools.count(1):  # noqa: B007
            yield b"x"

    with Executor(cluster.address, window=4) as executor:
        results = executor.map(CAT, endless())
        assert taken == 8
        for _ in range(30):
            next(results)
        assert taken <= 8 + 30
        results.close()  # type: ignore[attr-defined]


def test_map_raises_a_failure_in_its_turn_and_stops_the_rest(executor: Executor) -> None:
    inputs = [{"timeout": FOREVER if number else 0.1, "job_id": f"pool-map-{number}"} for number in range(4)]
    with pytest.raises(errors.DeadlineExceeded):
        list(executor.map(LOOP, inputs))
    with Client(executor.endpoint) as client:
        for number in range(1, 4):
            with pytest.raises(errors.Cancelled):
                client.job(f"pool-map-{number}").result(timeout=20)


def test_map_times_out_from_its_call_on(executor: Executor) -> None:
    results = executor.map(sleeping(300), [[], []], timeout=0.05)
    with pytest.raises(FutureTimeout):
        list(results)


# --- cancel and kill ----------------------------------------------------------------------------------


def test_a_pending_future_is_cancelled_and_its_job_never_runs(narrow: Executor) -> None:
    first = running(narrow)
    pending = narrow.submit(CAT, job_id="never-sent", stdin="x")
    assert pending.cancel()
    assert pending.cancelled()
    with pytest.raises(CancelledError):
        pending.result(20)
    assert narrow.kill(first)
    assert narrow.submit(HELLO).result(20).ok
    with Client(narrow.endpoint) as client, pytest.raises(errors.NotFound):
        client.job("never-sent").status()


def test_a_running_future_is_not_cancelled_but_killed(executor: Executor) -> None:
    future = running(executor, LOOP)
    assert not future.cancel()
    assert future.running()
    assert executor.kill(future)
    with pytest.raises(errors.Cancelled):
        future.result(20)
    assert not executor.kill(future)


def test_submit_waits_for_room_and_a_cancel_makes_some(cluster: Cluster) -> None:
    executor = Executor(cluster.address, window=1, max_pending=2)
    submitted: list[Future[RunResult]] = []
    thread = threading.Thread(target=lambda: submitted.append(executor.submit(HELLO)))
    first = running(executor)
    with killed(executor, first):
        second = executor.submit(HELLO)
        thread.start()
        thread.join(0.1)
        assert not submitted
        second.cancel()
        thread.join(20)
        assert len(submitted) == 1
    executor.shutdown()
    assert submitted[0].result(0).ok


def test_cancelled_futures_do_not_gather_behind_a_job_that_does_not_end(narrow: Executor) -> None:
    first = running(narrow)
    with killed(narrow, first):
        for _ in range(5_000):
            assert narrow.submit(HELLO).cancel()
        narrow.submit(HELLO)
        wait_for(lambda: len(narrow._thread._orders) < 1_500, "what was cancelled is forgotten", 5)


# --- shutdown -----------------------------------------------------------------------------------------


def test_nothing_is_taken_after_shutdown(cluster: Cluster) -> None:
    executor = Executor(cluster.address)
    future = executor.submit(HELLO)
    executor.shutdown()
    assert future.done()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(HELLO)
    unused = Executor(cluster.address)
    unused.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        unused.submit(HELLO)


def test_shutdown_without_waiting_lets_what_was_submitted_end(cluster: Cluster) -> None:
    executor = Executor(cluster.address)
    futures = [executor.submit(sleeping(50)) for _ in range(5)]
    executor.shutdown(wait=False)
    assert all(future.result(20).ok for future in futures)


def test_shutdown_cancels_pending_futures_if_asked_to(cluster: Cluster) -> None:
    executor = Executor(cluster.address, window=2)
    futures = [executor.submit(sleeping(100)) for _ in range(10)]
    wait_for(futures[1].running, "two are running")
    executor.shutdown(cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 8
    assert futures[0].result(0).ok


def test_shutdown_ends_a_submit_that_waits_for_room(cluster: Cluster) -> None:
    executor = Executor(cluster.address, max_pending=1)
    raised: list[BaseException] = []

    def submit() -> None:
        try:
            executor.submit(HELLO)
        except RuntimeError as error:
            raised.append(error)

    first = running(executor)
    thread = threading.Thread(target=submit)
    thread.start()
    executor.shutdown(wait=False)
    thread.join(20)
    assert len(raised) == 1
    executor.kill(first)
    executor.shutdown()


def test_an_executor_that_nobody_has_any_more_ends_its_thread(cluster: Cluster) -> None:
    executor = Executor(cluster.address)
    future = executor.submit(HELLO)
    thread = next(each for each in threading.enumerate() if each.name == "minilambda-executor")
    gone = weakref.ref(executor)
    del executor
    gc.collect()
    assert gone() is None
    assert future.result(20).ok
    thread.join(20)
    assert not thread.is_alive()


def test_a_future_and_its_result_are_freed(executor: Executor) -> None:
    future = executor.submit(HELLO)
    assert future.result(20).ok
    gone = weakref.ref(future)
    del future
    wait_for(lambda: gone() is None, "nobody holds the future", 5)


def test_no_broker_is_told_by_the_futures() -> None:
    with Executor("127.0.0.1:9", connect_timeout=0.2) as executor:
        futures = [executor.submit(HELLO) for _ in range(3)]
        assert [type(future.exception(20)) for future in futures] == [errors.Unreachable] * 3


def test_an_executor_does_not_outlive_a_fork(executor: Executor) -> None:
    assert executor.submit(HELLO).result(20).ok
    pid = os.fork()
    if pid == 0:
        try:
            executor.submit(HELLO)
        except RuntimeError as error:
            os._exit(7 if "fork" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert executor.submit(HELLO).result(20).ok


def test_a_submit_after_a_fork_does_not_wait_for_room(cluster: Cluster) -> None:
    executor = Executor(cluster.address, max_pending=1)
    first = running(executor)
    with killed(executor, first):
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            try:
                executor.submit(HELLO)
            except RuntimeError:
                os._exit(7)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    executor.shutdown()


def test_a_callback_may_submit_while_a_broker_that_is_away_is_asked_how_large_a_module_may_be(tmp_path: Path) -> None:
    # given
    large = tmp_path / "large.wasm"
    with large.open("wb") as file:
        file.truncate(257 * 2**20)  # above what is read unasked
    executor = Executor("tcp://127.0.0.1:1", connect_timeout=0.5)
    told = threading.Event()

    def again(_: object) -> None:
        executor.submit(HELLO)
        told.set()

    # when
    executor.submit(HELLO).add_done_callback(again)
    with pytest.raises(errors.Unreachable):
        executor.submit(large)
    # then
    assert told.wait(20)
    executor.shutdown()


def test_a_thread_that_fails_fails_the_futures_and_takes_no_more(cluster: Cluster) -> None:
    # given
    executor = Executor(cluster.address)
    first = executor.submit(sleeping(300))
    wait_for(first.running, "the first is running")
    # when
    executor._thread._link._replace = None  # type: ignore[assignment, union-attr]
    executor._thread._link._torn = True  # type: ignore[union-attr]  # it wants another socket before it sends again
    second = executor.submit(HELLO)
    # then
    for future in (first, second):
        with pytest.raises((BrokenExecutor, TypeError)):
            future.result(20)
    wait_for(lambda: executor._thread.broken, "the thread has failed")
    with pytest.raises(BrokenExecutor):
        executor.submit(HELLO)
    executor.shutdown()


@pytest.mark.parametrize("ending", ["", "del executor", "executor.shutdown(wait=False)", "raise SystemExit(0)"])
def test_a_program_that_ends_waits_for_its_jobs(cluster: Cluster, ending: str) -> None:
    program = f"""
import sys
from minilambda import Executor
executor = Executor(sys.argv[1])
future = executor.submit(sys.stdin.buffer.read())
future.add_done_callback(lambda future: print(future.result().exit_code, flush=True))
del future
{ending}
"""
    done = subprocess.run(
        [sys.executable, "-c", program, cluster.address],
        input=sleeping(100),
        capture_output=True,
        timeout=40,
        cwd=ROOT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n", b"")


def test_a_fork_in_a_program_with_an_executor_ends_by_itself(cluster: Cluster) -> None:
    program = """
import os, sys
from minilambda import Executor
executor = Executor(sys.argv[1])
executor.submit(sys.stdin.buffer.read()).result()
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, cluster.address], input=HELLO, timeout=40, cwd=ROOT, check=False
    )
    assert done.returncode == 0
