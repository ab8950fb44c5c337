"""What a worker counts. Plain numbers: the loop's thread alone adds to them, any may copy them. Pure."""

from __future__ import annotations

from bisect import bisect_left

from minilambda.errors import JOB_CODES, MinilambdaError
from minilambda.histogram import BOUNDS, Histogram
from minilambda.worker.results import Finished

OTHER = "other"
"""Counted for a code that no version of minilambda gives."""

CODES = JOB_CODES | {MinilambdaError.code}
"""The codes that are counted by name."""

PHASES: dict[str, tuple[str, ...]] = {
    "warm": ("total",),
    "disk": ("fetch", "load", "total"),
    "compiled": ("fetch", "compile", "load", "total"),
}
"""How cold a job was, to what came before its guest's start; ``total``: all of that, and the wait for a slot."""


class Meters:
    """The numbers of one worker."""

    def __init__(self) -> None:
        self.counting = False  # whether somebody wants to know of jobs and messages: else these are not counted
        self.completed = 0  # jobs
        self.failures: dict[str, int] = {}  # other ended jobs by code
        self.starts = {(tier, each): Histogram() for tier in PHASES for each in PHASES[tier]}  # of guests that began
        self._totals = {tier: self.starts[tier, "total"] for tier in PHASES}
        self.runs = Histogram()  # guest's start to its end
        self.lookups = {"hit": 0, "miss": 0, "locked": 0}  # of artifacts on disk; "locked": another worker makes it
        self.compilations: dict[str, int] = {"completed": 0}  # by "completed" or the code of the failure
        self.rejected = {"malformed": 0, "no_envelope": 0}  # messages of the broker's that were none
        self.received_messages = 0
        self.received_bytes = 0
        self.sent_messages = 0
        self.sent_bytes = 0

    def ended(self, finished: Finished) -> None:
        """A job has its result. Each job comes here: what it costs is counted in nanoseconds."""
        error, tier, usage = finished.error, finished.tier, finished.usage
        if error is None:
            self.completed += 1
        else:
            code = error.code if error.code in CODES else OTHER
            self.failures[code] = self.failures.get(code, 0) + 1
        if not tier:
            return
        before, seen = usage.queued_ms + usage.load_ms, self._totals[tier]
        if tier != "warm":
            before += usage.fetch_ms + usage.compile_ms
            for phase, took in (("fetch", usage.fetch_ms), ("compile", usage.compile_ms), ("load", usage.load_ms)):
                if took and (tier, phase) in self.starts:
                    self.starts[tier, phase].add(took)
        seen.counts[bisect_left(BOUNDS, before)] += 1
        seen.total += before
        ran, seen = usage.run_ms, self.runs
        seen.counts[bisect_left(BOUNDS, ran)] += 1
        seen.total += ran

    @property
    def outcomes(self) -> dict[str, int]:
        """Ended jobs so far by "completed" or the code of the failure."""
        return {"completed": self.completed, **self.failures}

    def compiled(self, code: str | None) -> None:
        """A compiler has ended; ``code`` says why it failed."""
        outcome = "completed" if code is None else code if code in CODES else OTHER
        self.compilations[outcome] = self.compilations.get(outcome, 0) + 1
