"""What jobs write, as it comes to the tasks of an event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from minilambda.client.async_link import AsyncLink, Outcome, settle
from minilambda.client.calls import Source
from minilambda.client.live import Chunk, Told
from minilambda.messages import Call, Follow, JobResult, Reply, Run


class AsyncFollow:
    """One ``follow`` under way. End it by ``close``."""

    def __init__(self, link: AsyncLink, message: Follow) -> None:
        self.chunks: deque[Chunk] = deque()  # what came and was not taken yet
        self.outcome: Outcome | None = None  # how it ended; None: it has not
        self._link = link
        self._news = asyncio.Event()
        self._number = link.begin(message, self._end, listener=self._hear)

    async def news(self) -> None:
        """Wait for another chunk, or for the end."""
        await self._news.wait()
        self._news.clear()

    def consumed(self, size: int) -> None:
        """The caller is done with so many bytes."""
        self._link.consumed(self._number, size)

    def close(self) -> None:
        self._link.abandon(self._number)

    def _hear(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self._news.set()

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._news.set()


async def attended(
    link: AsyncLink,
    request: Run | Call,
    source: Source | None,
    wait: float | None,
    on_output: Callable[[Chunk], object],
) -> JobResult:
    """A job from start to end, its caller told of what it writes. Raises what ends it, and what ``on_output`` raises.

    What could not be followed comes with the result, so the caller hears all of it in any case. A job whose caller is
    gone, or raised, is cancelled.
    """
    told = Told()
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    run = link.begin(request, future, source, wait)

    def tell(chunk: Chunk) -> None:
        if chunk.data:
            told.note(chunk)
            on_output(chunk)

    def hear(chunk: Chunk) -> None:
        if future.done():
            return
        try:
            tell(chunk)
        except asyncio.CancelledError:
            future.cancel()
        except Exception as error:
            settle(future, error)
        link.consumed(follow, len(chunk.data))

    follow = link.begin(Follow(0, request.job, 0), lambda _: None, listener=hear, beside=run)
    try:
        reply = cast(JobResult, await future)
        for chunk in told.rest(reply):
            tell(chunk)
        return reply
    finally:
        link.abandon(run)
        link.abandon(follow)
