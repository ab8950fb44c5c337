"""The handle of a job for programs that use asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from math import inf
from typing import TYPE_CHECKING, cast

from minilambda.client.async_live import AsyncFollow
from minilambda.client.live import Chunk, input_pieces, taken
from minilambda.client.requests import result_of
from minilambda.client.results import RunResult, ended, finished
from minilambda.messages import Cancel, Follow, GetStatus, Input, JobStatus, RunAgain, Taken

if TYPE_CHECKING:
    from minilambda.client.aio import AsyncClient
    from minilambda.client.listings import Status


class AsyncJob:
    """A job by its id. It can be asked by any client of the same principal."""

    def __init__(self, client: AsyncClient, job_id: str, principal: str = "") -> None:
        self.id: str = job_id
        self._principal = principal  # whose job; "": the client's own
        self._client = client
        self._written: int | None = None  # input that the job has, bytes; None: not known
        self._writing = asyncio.Lock()

    @property
    def endpoint(self) -> str:
        """The broker's address."""
        return self._client.endpoint

    def __repr__(self) -> str:
        return f"<AsyncJob {self.id}>"

    async def status(self, *, story: bool = False) -> Status:
        """Where the job is; with ``story``, what happened to it so far, too. Raises as ``Job.status``."""
        return await self._status(GetStatus(0, self.id, self._principal, story))

    async def result(self, timeout: float | None = None, *, check: bool = True) -> RunResult:
        """Wait for the result, at most ``timeout`` seconds. Raises ``TimeoutError``, else as ``AsyncClient.run``.

        The job goes on when the waiting task is cancelled.
        """
        request, patience = result_of(self.id, self._principal, timeout)
        return finished(ended(await self._client.ask(request, patience), timeout), check)

    async def output(self, *, from_start: bool = True, follow: bool = True) -> AsyncGenerator[Chunk, None]:
        """What the job writes, as ``Job.output`` tells it: ``async for chunk in job.output()``."""
        if not follow and (await self.status()).state == "queued":
            return
        passed = from_start
        following = AsyncFollow(self._client.link(), Follow(0, self.id, 0, principal=self._principal))
        try:
            while True:
                while following.chunks:
                    chunk = following.chunks.popleft()
                    if not chunk.data:  # so far goes what there was at the beginning
                        if not follow:
                            return
                        passed = True
                    elif passed:
                        yield chunk
                    following.consumed(len(chunk.data))
                if isinstance(following.outcome, Exception):
                    raise following.outcome
                if following.outcome is not None:
                    return
                await following.news()
        finally:
            following.close()

    async def write(self, data: bytes) -> None:
        """Give an ``interactive`` job more standard input, as ``Job.write`` does. Several tasks take turns."""
        async with self._writing:
            for piece in input_pieces(self.id, await self._where(), bytes(data)):
                await self._input(piece)

    async def close_stdin(self) -> None:
        """End the standard input of an ``interactive`` job; ``write`` is refused then. Raises as that does."""
        async with self._writing:
            await self._input(Input(0, self.id, await self._where(), eof=True))

    async def cancel(self) -> Status:
        """Cancel the job, whatever it is doing, and return at once; a job that has ended stays as it is."""
        return await self._status(Cancel(0, self.id, self._principal))

    async def run_again(self, job_id: str | None = None) -> AsyncJob:
        """Run the ended job once more, as another job; returns that one's handle. Raises as ``Job.run_again``."""
        again = AsyncJob(self._client, job_id or self._client.new_job_id())
        await self._client.ask(RunAgain(0, again.id, self.id))
        return again

    async def _status(self, request: GetStatus | Cancel) -> Status:
        from minilambda.client.listings import status  # noqa: PLC0415 - few programs need it

        return status(cast(JobStatus, await self._client.ask(request)))

    async def _where(self) -> int:
        """Where the next input begins, bytes: another handle of the job may have given it some."""
        return await self._input(Input(0, self.id, 0)) if self._written is None else self._written

    async def _input(self, message: Input) -> int:
        self._written = None  # should this be cancelled
        written = self._written = taken(message, cast(Taken, await self._client.ask(message, inf)))
        return written
