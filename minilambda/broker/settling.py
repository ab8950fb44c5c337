"""Jobs in limbo: a broker that was restarted does not know yet whether a worker still has them.

They wait until the workers of the earlier broker are back, or one liveness bound has passed.
"""

from __future__ import annotations

from minilambda.broker.jobs import InvariantError, Job, JobKey


class Settling:
    """The time after a restart, and the jobs that wait for its end."""

    def __init__(self) -> None:
        self.open = False  # that time has not passed
        self.awaited: set[str] = set()  # ids of the workers that are not back yet
        self._jobs: dict[str, dict[JobKey, Job]] = {}  # by the worker that may have them, "" for any
        self.size = 0  # jobs in limbo: each new job asks for it, whatever the number of workers

    def __len__(self) -> int:
        return self.size

    def add(self, job: Job) -> None:
        """The job must not be here."""
        self._jobs.setdefault(job.holder, {})[job.key] = job
        self.size += 1

    def remove(self, job: Job) -> None:
        """Raises ``InvariantError`` for a job that is not here."""
        jobs = self._jobs.get(job.holder, {})
        if jobs.pop(job.key, None) is None:
            raise InvariantError(job.tell("it is not in limbo"))
        self.size -= 1
        if not jobs:
            del self._jobs[job.holder]

    def of(self, worker: str) -> list[Job]:
        """The jobs that a worker may have, oldest first."""
        return sorted(self._jobs.get(worker, {}).values(), key=lambda job: job.number)

    def all(self) -> list[Job]:
        """All jobs, oldest first."""
        return sorted((job for jobs in self._jobs.values() for job in jobs.values()), key=lambda job: job.number)
