"""The handle of a job that goes on without its client."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, cast

from minilambda.client.results import RunResult, run_result
from minilambda.messages import Cancel, GetResult, GetStatus, JobResult, JobStatus, RunAgain

if TYPE_CHECKING:
    from minilambda.client.listings import Status
    from minilambda.client.sync import Client

QUICK = 30.0
"""A broker that says nothing for so long to a question that it can answer at once is gone, seconds."""

_FOREVER_MS = 366 * 24 * 3600 * 1000


class Job:
    """A job by its id. It can be asked by any client of the same principal."""

    def __init__(self, client: Client, job_id: str, principal: str = "") -> None:
        self.id: str = job_id
        self._principal = principal  # whose job; "": the client's own
        self._client = client

    @property
    def endpoint(self) -> str:
        """The broker's address."""
        return self._client.endpoint

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def status(self) -> Status:
        """Where the job is. Raises ``NotFound`` for one that the broker does not know, or no longer."""
        return self._status(GetStatus(0, self.id, self._principal))

    def result(self, timeout: float | None = None, *, check: bool = True) -> RunResult:
        """Wait for the result, at most ``timeout`` seconds. Raises ``TimeoutError``, else as ``Client.run`` does."""
        wait_ms = _FOREVER_MS if timeout is None else max(0, math.ceil(timeout * 1000))
        patience = math.inf if timeout is None else timeout + QUICK
        request = GetResult(0, self.id, min(wait_ms, _FOREVER_MS), self._principal)
        reply = self._client.ask(request, patience)
        if not isinstance(reply, JobResult):
            state = cast(JobStatus, reply).state
            raise TimeoutError(f"Job {self.id} is still {state} after {timeout:g} s.")
        result = run_result(reply)
        failure = result.exception() if check else None
        if failure is not None:
            raise failure
        return result

    def cancel(self) -> Status:
        """Cancel the job, whatever it is doing, and return at once; a job that has ended stays as it is."""
        return self._status(Cancel(0, self.id, self._principal))

    def _status(self, request: GetStatus | Cancel) -> Status:
        from minilambda.client.listings import status  # noqa: PLC0415 - few programs need it

        return status(cast(JobStatus, self._client.ask(request)))

    def run_again(self, job_id: str | None = None) -> Job:
        """Run the ended job once more, as another job; returns that one's handle.

        Raises ``Conflict`` for a job that has not ended, ``BadRequest`` where its input is not kept any more: that of a
        job that failed with its workers (``poisoned``, ``worker_lost``) is.
        """
        again = Job(self._client, job_id or os.urandom(8).hex())
        self._client.ask(RunAgain(0, again.id, self.id))
        return again
