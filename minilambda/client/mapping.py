"""Many jobs of one module at a time, their results in order and a bounded number of them in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from time import monotonic, sleep
from typing import Any, Protocol

from minilambda.client.calls import Ended, Source
from minilambda.client.results import RunResult, finished, refused_result
from minilambda.errors import RequestError, Unreachable
from minilambda.messages import Cancel, JobResult, Reply, Request, Run

Input = Sequence[str] | bytes | Mapping[str, Any]
"""One input of a ``map``: a list of arguments, bytes for stdin, or run options with ``args``."""

_MANY = 16  # with so many jobs under way, answers are let gather: a process that wakes for each costs twice the time
_GATHER = 0.001  # answers, or inputs, gather for so long before the other side gets its turn, seconds


class Calls(Protocol):
    """A connection that takes many calls at a time."""

    def start(self, message: Request, source: Source | None = None, patience: float | None = None) -> int: ...
    def step(self, timeout: float = ..., most: int = ...) -> list[Ended]: ...


class Pipeline:
    """Keeps at most ``window`` jobs between the first that was not yielded and the last that was begun."""

    def __init__(self, calls: Calls, source: Source, window: int, ordered: bool) -> None:
        self._calls = calls
        self._source = source
        self._window = window
        self._ordered = ordered
        self._running: dict[int, tuple[int, str]] = {}  # call to the index of its input and its job id
        self._ended: dict[int, tuple[str, Reply | Exception]] = {}  # index to job id and outcome, not yet yielded
        self._burst = max(1, window // 8)  # room that is let grow before jobs are begun, so that they go together
        self._begun = 0  # jobs begun
        self._more = True  # there may be more inputs
        self._slow = False  # the inputs came slowly, last time

    def run(self, jobs: Iterator[Run], check: bool) -> Iterator[RunResult]:
        """The results. What still runs is cancelled when the caller leaves early or a failure is raised."""
        turn, needed = 0, 1  # results yielded; room in the window that is needed for more jobs to be begun
        try:
            while self._more or self._running or self._ended:
                index = turn if self._ordered else next(iter(self._ended), -1)
                ready = index in self._ended
                room, pause = self._window - (self._begun - turn), _GATHER
                if self._more and room >= needed and not (ready and self._slow):
                    room, needed, pause = self._begin(jobs, room), self._burst, 0.0
                if ready:
                    turn += 1
                    yield outcome_result(index, *self._ended.pop(index), check)
                elif self._running and not self._take_in(pause if self._more and room else inf):
                    needed = 1
        finally:
            for _, job_id in self._running.values():
                self._calls.start(Cancel(0, job_id))

    def _begin(self, jobs: Iterator[Run], room: int) -> int:
        """Begin as many jobs as the window has room for, one at least; return the room that is left.

        Where the inputs are slow to come, it stops in between, so that answers need not wait for them.
        """
        until = monotonic() + _GATHER
        self._slow = False
        while room:
            job = next(jobs, None)
            if job is None:
                self._more = False
                break
            self._running[self._calls.start(job, self._source)] = (self._begun, job.job)
            self._begun += 1
            room -= 1
            if monotonic() > until:
                self._slow = True
                break
        return room

    def _take_in(self, timeout: float) -> bool:
        """Wait for answers; False where none came."""
        if len(self._running) >= _MANY:
            sleep(_GATHER)
        found = self._calls.step(timeout, self._window)
        for ended in found:
            index, job_id = self._running.pop(ended.call)
            self._ended[index] = (job_id, ended.outcome)
        return bool(found)


def outcome_result(index: int, job_id: str, outcome: Reply | Exception, check: bool) -> RunResult:
    """The result of one job of many; with ``check`` a failure is raised, and else only one that is not the job's."""
    if isinstance(outcome, JobResult):
        return finished(outcome, check, index)
    if isinstance(outcome, RequestError) and not isinstance(outcome, Unreachable) and not check:
        return refused_result(job_id, outcome, index)
    if isinstance(outcome, Exception):
        raise outcome
    raise TypeError(f"{outcome.TYPE} is no result.")
