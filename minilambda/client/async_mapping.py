"""Many jobs of one module at a time for programs that use asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from functools import partial

from minilambda.client.async_link import AsyncLink, Outcome
from minilambda.client.calls import Source
from minilambda.client.mapping import Input, outcome_result
from minilambda.client.results import RunResult
from minilambda.messages import Run


class AsyncPipeline:
    """Keeps at most ``window`` jobs between the first that was not yielded and the last that was begun."""

    def __init__(self, link: AsyncLink, source: Source, window: int, ordered: bool) -> None:
        self._link = link
        self._source = source
        self._window = window
        self._ordered = ordered
        self._running: dict[int, int] = {}  # index of the input to its call
        self._ended: dict[int, tuple[str, Outcome]] = {}  # index to job id and outcome, not yet yielded
        self._burst = max(1, window // 8)  # room that is let grow before jobs are begun, so that they go together
        self._begun = 0  # jobs begun
        self._news: asyncio.Event = asyncio.Event()  # something ended, or an input came

    async def run(
        self, inputs: Iterable[Input] | AsyncIterable[Input], job: Callable[[Input], Run], check: bool
    ) -> AsyncGenerator[RunResult, None]:
        """The results. What still runs is cancelled when the caller leaves early or a failure is raised."""
        source = _Inputs(inputs, self._news)
        turn = 0  # results yielded
        try:
            while source.more or self._running or self._ended:
                room = self._window - (self._begun - turn)
                index = turn if self._ordered else next(iter(self._ended), -1)
                if room >= self._burst or index not in self._ended:
                    self._begin(source, job, room)
                if index in self._ended:
                    turn += 1
                    yield outcome_result(index, *self._ended.pop(index), check)
                elif source.more or self._running:
                    await self._news.wait()
                    self._news.clear()
        finally:
            source.close()
            for call in self._running.values():
                self._link.abandon(call)

    def _begin(self, source: _Inputs, job: Callable[[Input], Run], room: int) -> None:
        """Begin as many jobs as there is room and inputs for."""
        for item in source.take(room):
            request, index = job(item), self._begun
            waiter = partial(self._take, index, request.job)
            self._running[index] = self._link.begin(request, waiter, self._source)
            self._begun += 1

    def _take(self, index: int, job_id: str, outcome: Outcome) -> None:
        self._running.pop(index, None)
        self._ended[index] = (job_id, outcome)
        self._news.set()


class _Inputs:
    """The inputs of a map, from an iterable of either kind."""

    def __init__(self, inputs: Iterable[Input] | AsyncIterable[Input], news: asyncio.Event) -> None:
        self.more = True  # there may be more
        self._news = news
        self._plain: Iterator[Input] | None = None
        self._slow: AsyncIterator[Input] | None = None
        self._next: asyncio.Future[Input] | None = None  # the one that an asynchronous iterator is asked for
        if isinstance(inputs, AsyncIterable):
            self._slow = aiter(inputs)
        else:
            self._plain = iter(inputs)

    def take(self, most: int) -> Iterator[Input]:
        """Those that are there, at most so many. Raises what the iterable does."""
        for _ in range(most):
            if not self.more:
                return
            try:
                if self._plain is not None:
                    item = next(self._plain)
                elif self._next is not None and self._next.done():
                    item, self._next = self._next.result(), None
                else:
                    self._ask()
                    return
            except (StopIteration, StopAsyncIteration):
                self.more = False
                return
            yield item

    def _ask(self) -> None:
        if self._next is None and self._slow is not None:
            self._next = asyncio.ensure_future(self._slow.__anext__())
            self._next.add_done_callback(lambda _: self._news.set())

    def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
