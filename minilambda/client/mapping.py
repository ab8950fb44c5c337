"""Many jobs of one module at a time, their results in order and a bounded number of them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from minilambda.client.calls import Ended, Source
from minilambda.client.results import RunResult, refused_result, run_result
from minilambda.errors import RequestError, Unreachable
from minilambda.messages import Cancel, JobResult, Reply, Request, Run

Input = Sequence[str] | bytes | Mapping[str, Any]
"""One input of a ``map``: a list of arguments, bytes for stdin, or run options with ``args``."""


class Calls(Protocol):
    """A connection that takes many calls at a time."""

    def start(self, message: Request, source: Source | None = None, patience: float | None = None) -> int: ...
    def step(self, timeout: float = ...) -> list[Ended]: ...


class Pipeline:
    """Keeps at most ``window`` jobs between the first that was not yielded and the last that was begun."""

    def __init__(self, calls: Calls, source: Source, window: int, ordered: bool) -> None:
        self._calls = calls
        self._source = source
        self._window = window
        self._ordered = ordered
        self._running: dict[int, tuple[int, str]] = {}  # call to the index of its input and its job id
        self._ended: dict[int, tuple[str, Reply | Exception]] = {}  # index to job id and outcome, not yet yielded

    def run(self, jobs: Iterator[Run], check: bool) -> Iterator[RunResult]:
        """The results. What still runs is cancelled when the caller leaves early or a failure is raised."""
        begun, turn, more = 0, 0, True
        try:
            while more or self._running or self._ended:
                index = turn if self._ordered else next(iter(self._ended), -1)
                if index in self._ended:
                    turn += 1
                    yield _result(index, *self._ended.pop(index), check)
                elif more and begun - turn < self._window:
                    job = next(jobs, None)
                    if job is None:
                        more = False
                        continue
                    self._running[self._calls.start(job, self._source)] = (begun, job.job)
                    begun += 1
                    self._take_in(0.0)
                else:
                    self._take_in()
        finally:
            for _, job_id in self._running.values():
                self._calls.start(Cancel(0, job_id))

    def _take_in(self, *timeout: float) -> None:
        for ended in self._calls.step(*timeout):
            index, job_id = self._running.pop(ended.call)
            self._ended[index] = (job_id, ended.outcome)


def _result(index: int, job_id: str, outcome: Reply | Exception, check: bool) -> RunResult:
    if isinstance(outcome, JobResult):
        result = run_result(outcome, index)
    elif isinstance(outcome, RequestError) and not isinstance(outcome, Unreachable) and not check:
        return refused_result(job_id, outcome, index)
    elif isinstance(outcome, Exception):
        raise outcome
    else:
        raise TypeError(f"{outcome.TYPE} is no result.")
    failure = result.exception() if check else None
    if failure is not None:
        raise failure
    return result
