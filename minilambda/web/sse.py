"""Server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minilambda.web.bodies import Body
from minilambda.web.problems import Problem, problem_of

log = logging.getLogger(__name__)


class Position(NamedTuple):
    """How far a job's output has been told: the id of an event."""

    attempt: int = 0  # 0: nothing was told
    stdout: int = 0  # bytes
    stderr: int = 0  # bytes
    ended: bool = False  # all was told

    def text(self) -> str:
        return f"{self.attempt}:{self.stdout}:{self.stderr}{':end' if self.ended else ''}"


def parse_position(text: str) -> Position:
    """The position in a Last-Event-ID; the start for one that is none of ours."""
    numbers, _, _ = text.partition(":end")
    parts = numbers.split(":")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
        return Position()
    return Position(int(parts[0]), int(parts[1]), int(parts[2]), text.endswith(":end"))


def event(name: str, value: Any, identity: str = "") -> bytes:
    """One event, its data as JSON in one line."""
    head = f"id: {identity}\n" if identity else ""
    return f"{head}event: {name}\ndata: {json.dumps(value)}\n\n".encode()


class EventStream(Response):
    """A reply of events, until there are no more or the visitor hangs up."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], body: Body, beat: float, stopping: asyncio.Event) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._body = body
        self._beat = beat  # a stream with nothing to tell says so after so long, seconds
        self._stopping = stopping  # set when there are to be no streams any more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pump = asyncio.ensure_future(self._pump(send))
        others = [asyncio.ensure_future(self._body.gone()), asyncio.ensure_future(self._stopping.wait())]
        tasks: list[asyncio.Future[Any]] = [pump, *others]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._events.aclose()
        if not pump.cancelled():
            pump.result()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self, send: Send) -> None:
        await _write(send, b": hello\n\n")
        while True:
            following = asyncio.ensure_future(self._events.__anext__())
            try:
                while not (await asyncio.wait({following}, timeout=self._beat))[0]:
                    await _write(send, b":\n\n")
            finally:
                if not following.done():
                    following.cancel()
                    await asyncio.wait({following})
                if not following.cancelled():
                    following.exception()  # else asyncio complains that nobody has asked, where this ends here
            try:
                data = following.result()
            except StopAsyncIteration:
                return
            except Exception as error:
                data = _last_words(error)
                await _write(send, data)
                return
            await _write(send, data)


def _last_words(error: Exception) -> bytes:
    """The event that tells why there are no more."""
    problem = problem_of(error)
    if problem is None:
        log.error("a stream broke", exc_info=error)
        problem = Problem("internal")
    return event("problem", {"code": problem.code, "status": problem.status, "detail": problem.detail})


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})
