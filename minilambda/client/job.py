"""The handle of a job that goes on without its client."""

from __future__ import annotations

import os
from collections.abc import Generator
from math import inf
from typing import TYPE_CHECKING, cast

from minilambda.client.live import Chunk, input_pieces, taken
from minilambda.client.requests import result_of
from minilambda.client.results import RunResult, ended, finished
from minilambda.messages import Cancel, Follow, GetStatus, Input, JobStatus, RunAgain, Taken

if TYPE_CHECKING:
    from minilambda.client.listings import Status
    from minilambda.client.sync import Client


class Job:
    """A job by its id. It can be asked by any client of the same principal."""

    def __init__(self, client: Client, job_id: str, principal: str = "") -> None:
        self.id: str = job_id
        self._principal = principal  # whose job; "": the client's own
        self._client = client
        self._written: int | None = None  # input that the job has, bytes; None: not known

    @property
    def endpoint(self) -> str:
        """The broker's address."""
        return self._client.endpoint

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def status(self, *, story: bool = False) -> Status:
        """Where the job is; with ``story``, what happened to it so far, too.

        Raises ``NotFound`` for one that the broker does not know, or no longer.
        """
        return self._status(GetStatus(0, self.id, self._principal, story))

    def result(self, timeout: float | None = None, *, check: bool = True) -> RunResult:
        """Wait for the result, at most ``timeout`` seconds. Raises ``TimeoutError``, else as ``Client.run`` does."""
        request, patience = result_of(self.id, self._principal, timeout)
        return finished(ended(self._client.ask(request, patience), timeout), check)

    def output(self, *, from_start: bool = True, follow: bool = True) -> Generator[Chunk, None, None]:
        """What the job writes, as it writes it, until it has ended; of an ended job, what it wrote.

        Without ``from_start``, only what it writes from now on; without ``follow``, only what is there now. A chunk
        with a higher ``attempt`` than the ones before begins anew: the job runs again on another worker. A slow loop
        holds up nobody else. Raises ``NotFound`` or ``Expired`` for a job that the broker does not know, or no longer.
        """
        if not follow and self.status().state == "queued":
            return
        link, passed = self._client.link(), from_start
        call = link.begin(Follow(0, self.id, 0, principal=self._principal))
        try:
            while True:
                while call.chunks:
                    chunk = call.chunks.popleft()
                    if not chunk.data:  # so far goes what there was at the beginning
                        if not follow:
                            return
                        passed = True
                    elif passed:
                        yield chunk
                    self._client.link().consumed(call.number, len(chunk.data))
                if isinstance(call.outcome, Exception):
                    raise call.outcome
                if call.outcome is not None:
                    return
                self._client.link().step()
        finally:
            link.leave(call)

    def write(self, data: bytes) -> None:
        """Give an ``interactive`` job more standard input. Returns when all of it is in the guest's pipe.

        It waits while the job is queued, and while the guest does not read. Raises ``Conflict`` for a job that has
        ended or whose input is closed, ``BadRequest`` for one that is not interactive.
        """
        for piece in input_pieces(self.id, self._where(), bytes(data)):
            self._input(piece)

    def close_stdin(self) -> None:
        """End the standard input of an ``interactive`` job; ``write`` is refused then. Raises as that does."""
        self._input(Input(0, self.id, self._where(), eof=True))

    def _where(self) -> int:
        """Where the next input begins, bytes: another handle of the job may have given it some."""
        return self._input(Input(0, self.id, 0)) if self._written is None else self._written

    def _input(self, message: Input) -> int:
        self._written = None  # should this be interrupted
        written = self._written = taken(message, cast(Taken, self._client.ask(message, inf)))
        return written

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
