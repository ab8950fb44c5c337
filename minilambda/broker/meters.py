"""What a broker counts. Plain numbers, so that counting costs a job next to nothing. Pure.

The loop's thread alone writes here. Another thread may read at any time: it copies what it reads, so that what it tells
agrees with itself, and the loop never waits for it. Nothing here grows with what peers name: codes are those of
``errors``, and principals are forgotten, the one that was silent longest first, once they have no job and are many.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minilambda.broker.jobs import Job
from minilambda.errors import JOB_CODES, MinilambdaError
from minilambda.histogram import BOUNDS, Histogram
from minilambda.messages import Result

OTHER = "other"
"""Counted for a code that no version of minilambda gives, since whoever runs a worker can make any up."""

CODES = JOB_CODES | {MinilambdaError.code}
"""The codes that are counted by name."""

TIERS = ("warm", "disk", "compiled", "")
"""How cold a job was; "" for one that never ran."""

PHASES = ("fetch", "compile", "load")
"""What may come before a guest's start, where the module is not warm."""

RECENT = 512
"""Jobs of each tier whose time from end to end is remembered."""

MAX_CLIENTS = 1024
"""Principals without a job that are remembered, about."""


class TierMeter(Histogram):
    """Times of jobs from end to end, and the latest ones as they were."""

    __slots__ = ("recent",)

    def __init__(self) -> None:
        super().__init__()
        self.recent: deque[float] = deque(maxlen=RECENT)  # milliseconds


@dataclass(slots=True, eq=False)
class ClientMeter:
    """The jobs of one principal since this broker began."""

    seen_at: float  # last request, monotonic seconds
    unfinished: int = 0  # jobs that have not ended
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


class Meters:
    """The numbers of one broker."""

    def __init__(self) -> None:
        self.began = 0.0  # when this broker began, monotonic seconds
        self.completed = 0  # jobs
        self.failures: dict[str, int] = {}  # other ended jobs by code
        self.clients: dict[str, ClientMeter] = {}  # by principal
        self.timing = False  # whether somebody wants the histograms
        self.queue_wait = Histogram()  # of jobs that were given to a worker: in the broker's queue and the worker's
        self.totals = {tier: TierMeter() for tier in TIERS}  # accepted to result
        self.phases = {phase: Histogram() for phase in PHASES}  # of the jobs that had such a phase
        self.losses = 0  # attempts that were lost with their worker
        self._most = MAX_CLIENTS  # principals that are remembered before some are forgotten

    def client(self, principal: str, now: float) -> ClientMeter:
        """The meter of a principal that has a job."""
        meter = self.clients.get(principal)
        if meter is None:
            if len(self.clients) >= self._most:
                self._forget()
            meter = self.clients[principal] = ClientMeter(now)
        return meter

    def _forget(self) -> None:
        """Half of what may be remembered goes, so that this is seldom done."""
        idle = [(meter.seen_at, who) for who, meter in self.clients.items() if not meter.unfinished]
        for _, who in sorted(idle)[: max(0, len(self.clients) - MAX_CLIENTS // 2)]:
            del self.clients[who]
        self._most = max(MAX_CLIENTS, 2 * len(self.clients))

    def ended(self, job: Job, result: Result) -> None:
        """A job that was accepted has its result. Each job comes here: what it costs is counted in nanoseconds."""
        usage = result.usage
        meter = self.clients[job.key[0]]  # one with unfinished jobs is never forgotten
        meter.unfinished -= 1
        if result.error is None:
            meter.completed += 1
            self.completed += 1
        else:
            self._failed(meter, result.state, result.error.code)
        if job.spec.stream:
            return  # such a job waits for people, which says nothing of the cluster
        total, tier = usage.total_ms, self.totals[result.tier]
        tier.recent.append(total)
        if not self.timing:
            return
        tier.counts[bisect_left(BOUNDS, total)] += 1
        tier.total += total
        if job.attempt:
            waited, seen = usage.queued_ms, self.queue_wait
            seen.counts[bisect_left(BOUNDS, waited)] += 1
            seen.total += waited
        if result.tier != "warm":
            for name, took in (("fetch", usage.fetch_ms), ("compile", usage.compile_ms), ("load", usage.load_ms)):
                if took:
                    self.phases[name].add(took)

    def _failed(self, meter: ClientMeter, state: str, code: str) -> None:
        if state == "cancelled":
            meter.cancelled += 1
        else:
            meter.failed += 1
        code = code if code in CODES else OTHER
        self.failures[code] = self.failures.get(code, 0) + 1

    @property
    def outcomes(self) -> dict[str, int]:
        """Ended jobs so far by "completed" or the code of the failure."""
        return {"completed": self.completed, **self.failures}

    def tiers(self) -> tuple[dict[str, Any], ...]:
        """Of the last jobs that ran, by tier: how many, and within how long so many of a hundred were done."""
        rows = []
        for tier in TIERS[:-1]:
            times = sorted(self.totals[tier].recent)
            if times:
                marks: Mapping[str, float] = {f"p{share}_ms": _mark(times, share) for share in (50, 90, 99)}
                rows.append({"tier": tier, "count": len(times), **marks})
        return tuple(rows)


def _mark(times: list[float], share: int) -> float:
    """So many of a hundred sorted times are not longer than this one."""
    return times[min(len(times) - 1, len(times) * share // 100)]
