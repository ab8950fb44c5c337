"""Many jobs at a time: the order of the results, the window, and what happens to the rest at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from minilambda.client.calls import Ended, Source
from minilambda.client.mapping import Pipeline
from minilambda.client.modules import Module
from minilambda.errors import Busy, Trap, Unreachable
from minilambda.messages import Cancel, ErrorInfo, JobResult, JobSpec, Reply, Request, Result, Run

MODULE = Module("sha256:" + "0" * 64, 4, data=b"wasm")


class Broker:
    """A connection on which the test decides which call ends when."""

    def __init__(self, backwards: bool = False) -> None:
        self.backwards = backwards  # the last call begun ends first
        self.outcomes: dict[str, Reply | Exception] = {}  # job id to how it ends, other than well
        self.running: dict[int, str] = {}
        self.cancelled: list[str] = []
        self.most = 0  # jobs that ran at a time
        self.starts = 0  # jobs begun since an answer was last waited for
        self.bursts: list[int] = []  # jobs begun between two waits
        self._last = 0

    def start(self, message: Request, source: Source | None = None, patience: float | None = None) -> int:
        if isinstance(message, Cancel):
            self.cancelled.append(message.job)
            return 0
        assert isinstance(message, Run)
        self._last += 1
        self.starts += 1
        self.running[self._last] = message.job
        self.most = max(self.most, len(self.running))
        return self._last

    def step(self, timeout: float = float("inf"), most: int = 1) -> list[Ended]:
        self.bursts += [self.starts] * bool(self.starts)
        self.starts = 0
        if not timeout:
            return []
        call = (max if self.backwards else min)(self.running)
        job = self.running.pop(call)
        return [Ended(call, self.outcomes.get(job) or JobResult(call, job, Result("completed", 0), job.encode()))]


class Quick(Broker):
    """Every answer is there when it is looked for."""

    def step(self, timeout: float = float("inf"), most: int = 1) -> list[Ended]:
        return super().step(timeout or 1.0, most) if self.running else []


def jobs(count: int) -> Iterator[Run]:
    return (Run(0, f"job-{number}", JobSpec(MODULE.digest)) for number in range(count))


def failed(code: str) -> JobResult:
    return JobResult(0, "job-2", Result("failed", error=ErrorInfo(code, "No.")))


def test_results_come_in_the_order_of_the_inputs() -> None:
    broker = Broker(backwards=True)
    results = list(Pipeline(broker, MODULE, 4, True).run(jobs(10), True))
    assert [result.index for result in results] == list(range(10))
    assert [result.job_id for result in results] == [f"job-{number}" for number in range(10)]


def test_results_come_as_they_end_where_order_is_not_wanted() -> None:
    broker = Broker(backwards=True)
    results = list(Pipeline(broker, MODULE, 4, False).run(jobs(4), True))
    assert [result.index for result in results] == [3, 2, 1, 0]


@pytest.mark.parametrize("ordered", [True, False])
def test_no_more_inputs_are_taken_than_the_window_holds(ordered: bool) -> None:
    broker, taken = Broker(backwards=True), 0

    def counted() -> Iterator[Run]:
        nonlocal taken
        for job in jobs(50):
            taken += 1
            yield job

    for number, _ in enumerate(Pipeline(broker, MODULE, 5, ordered).run(counted(), True)):
        assert taken <= number + 1 + 5
    assert broker.most <= 5
    assert taken == 50


def test_jobs_are_begun_together_where_the_window_is_large() -> None:
    broker = Broker()
    assert len(list(Pipeline(broker, MODULE, 64, True).run(jobs(256), True))) == 256
    assert sum(broker.bursts) == 256
    assert min(broker.bursts[:-1]) >= 8
    assert broker.most <= 64


def test_a_small_window_is_filled_at_once() -> None:
    broker = Broker()
    list(Pipeline(broker, MODULE, 4, True).run(jobs(20), True))
    assert broker.bursts[1:] == [1] * 16


def test_results_need_not_wait_for_inputs_that_are_slow_to_come() -> None:
    taken = 0

    def slowly() -> Iterator[Run]:
        nonlocal taken
        for job in jobs(20):
            until = time.monotonic() + 0.002
            while time.monotonic() < until:
                pass
            taken += 1
            yield job

    results = Pipeline(Quick(), MODULE, 64, True).run(slowly(), True)
    for number, result in enumerate(results):
        assert result.index == number
        assert taken <= number + 2


def test_no_inputs_are_no_results() -> None:
    assert list(Pipeline(Broker(), MODULE, 5, True).run(jobs(0), True)) == []


def test_a_failure_is_raised_when_its_turn_comes_and_cancels_the_rest() -> None:
    broker = Broker()
    broker.outcomes["job-2"] = failed("trap")
    results = Pipeline(broker, MODULE, 4, True).run(jobs(10), True)
    assert [next(results).index, next(results).index] == [0, 1]
    with pytest.raises(Trap):
        next(results)
    assert broker.cancelled == [f"job-{number}" for number in range(3, 6)]


def test_a_failure_is_a_result_where_it_is_not_to_be_raised() -> None:
    broker = Broker()
    broker.outcomes["job-2"] = failed("trap")
    broker.outcomes["job-3"] = Busy("Full.")
    results = list(Pipeline(broker, MODULE, 4, True).run(jobs(5), False))
    assert [result.error.code if result.error else None for result in results] == [None, None, "trap", "busy", None]
    assert (results[3].job_id, results[3].attempt) == ("job-3", 0)


def test_a_broker_that_is_gone_is_raised_always() -> None:
    broker = Broker()
    broker.outcomes["job-2"] = Unreachable("Gone.")
    with pytest.raises(Unreachable):
        list(Pipeline(broker, MODULE, 4, True).run(jobs(5), False))


def test_leaving_early_cancels_what_runs() -> None:
    broker = Broker()
    results = Pipeline(broker, MODULE, 3, True).run(jobs(10), True)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert broker.cancelled == ["job-1", "job-2"]
