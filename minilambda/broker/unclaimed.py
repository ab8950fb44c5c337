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
        self._refs: dict[JobKey, tuple[Worker, JobRef]] = {}

    def __len__(self) -> int:
        return len(self._refs)

    def open(self, now: float) -> bool:
        """Whether clients and workers may still come back. The first call begins that time."""
        if self._until is None:
            self._until = now + self._patience
        return now < self._until

    def put(self, worker: Worker, ref: JobRef, now: float) -> bool:
        """Remember a job of a worker; False where it is too late for that."""
        if not self.open(now) or len(self._refs) >= MAX_UNCLAIMED:
            return False
        self._refs[ref.principal, ref.job] = (worker, ref)
        return True

    def has(self, worker: Worker, ref: JobRef) -> bool:
        return self._refs.get((ref.principal, ref.job)) == (worker, ref)

    def take(self, key: JobKey) -> tuple[Worker, JobRef] | None:
        """The job and its worker, which are claimed by this."""
        return self._refs.pop(key, None)

    def expired(self, now: float) -> list[tuple[Worker, JobRef]]:
        """What nobody has claimed in time, once."""
        if not self._refs or self.open(now):
            return []
        left = list(self._refs.values())
        self._refs.clear()
        return left
