"""Jobs that workers have had since before this broker began, until their clients send them again.

A broker that was restarted knows no jobs. Its workers come back and name what they hold and have finished, its clients
send again what they wait for. Where both are back the job goes on as it was; what nobody claims in time is dropped.
"""

from __future__ import annotations

from minilambda.broker.jobs import JobKey
from minilambda.broker.registry import Worker
from minilambda.messages import JobRef

MAX_UNCLAIMED = 100_000
"""Jobs remembered, at most; those beyond are dropped at once."""


class Unclaimed:
    """What workers brought along. ``patience``: clients come back within so long, seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._until: float | None = None  # end of that time, seconds; None: no worker has come yet
        self.refs: dict[JobKey, tuple[Worker, JobRef, bool]] = {}  # with whether it was asked to give it back
        self.unbegun: set[JobKey] = set()  # jobs that workers have given back, so they have not run

    def __len__(self) -> int:
        return len(self.refs) + len(self.unbegun)

    def open(self, now: float) -> bool:
        """Whether clients and workers may still come back. The first call begins that time."""
        if self._until is None:
            self._until = now + self._patience
        return now < self._until

    def put(self, worker: Worker, ref: JobRef, recalled: bool, now: float) -> bool:
        """Remember a job of a worker, and whether it is asked to give it back; False where it is too late for that."""
        if not self.open(now) or len(self) >= MAX_UNCLAIMED:
            return False
        self.refs[ref.principal, ref.job] = (worker, ref, recalled)
        return True

    def has(self, worker: Worker, ref: JobRef) -> bool:
        found = self.refs.get((ref.principal, ref.job))
        return found is not None and found[0] is worker and found[1] == ref

    def given_back(self, ref: JobRef) -> None:
        """The worker has not begun the job, and does not have it any more."""
        self.refs.pop((ref.principal, ref.job), None)
        self.unbegun.add((ref.principal, ref.job))

    def take(self, key: JobKey) -> tuple[Worker, JobRef, bool] | None:
        """The job, its worker and whether it was asked to give it back, which are claimed by this."""
        self.unbegun.discard(key)
        return self.refs.pop(key, None)

    def expired(self, now: float) -> list[tuple[Worker, JobRef]]:
        """What nobody has claimed in time, once."""
        if not len(self) or self.open(now):
            return []
        self.unbegun.clear()
        left = [(worker, ref) for worker, ref, _ in self.refs.values()]
        self.refs.clear()
        return left
