"""Reading what a visitor sends: bounded in size, in time, and all visitors together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.types import Receive, Scope

from minilambda.web.problems import Problem, failure
from minilambda.web.settings import WebSettings


class Gone(Exception):
    """The visitor has hung up: nobody waits for a reply."""


class Budget:
    """Bytes that all requests together may hold."""

    def __init__(self, total: int) -> None:
        self.left = total  # bytes; less than 0 where results took more than there was


class Lease:
    """What one request holds of the budget, until it is released."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0  # bytes

    def take(self, size: int) -> None:
        """Hold more. Raises ``Problem`` where others hold too much."""
        if size > self._budget.left:
            raise failure("overloaded", "Other requests hold all the memory for bodies; try again.")
        self.note(size)

    def note(self, size: int) -> None:
        """Hold more of what is there already, whether there was room for it or not."""
        self._budget.left -= size
        self._held += size

    def release(self) -> None:
        """Hold nothing any more."""
        self._budget.left += self._held
        self._held = 0


class Body:
    """The body of one request."""

    def __init__(self, scope: Scope, receive: Receive, lease: Lease, settings: WebSettings) -> None:
        self._scope = scope
        self._receive = receive
        self._lease = lease
        self._settings = settings
        self._complete = False  # all of it has been read

    async def pieces(self, limit: int) -> AsyncIterator[bytes]:
        """The body as it comes. Raises ``Problem`` for one above the limit or too slow, ``Gone`` without a visitor."""
        _refuse_announced(self._scope, limit)
        loop = asyncio.get_running_loop()
        began, size, settings = loop.time(), 0, self._settings
        while not self._complete:
            left = began + settings.body_grace + size / settings.body_rate - loop.time()
            try:
                message = await asyncio.wait_for(self._receive(), max(0.001, left))
            except asyncio.TimeoutError:
                raise Problem("slow_request", headers={"Connection": "close"}) from None
            if message["type"] == "http.disconnect":
                raise Gone
            piece: bytes = message.get("body", b"")
            self._complete = not message.get("more_body", False)
            size += len(piece)
            if size > limit:
                raise too_large(limit)
            if piece:
                self._lease.take(len(piece))
                yield piece

    async def read(self, limit: int) -> bytes:
        """All of the body; raises as ``pieces`` does."""
        found = bytearray()
        async for piece in self.pieces(limit):
            found += piece
        return bytes(found)

    async def gone(self) -> None:
        """Return when the visitor hangs up. Only after the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def too_large(limit: int) -> Problem:
    return Problem("body_too_large", f"The body has more than the {limit} bytes that are taken here.")


def _refuse_announced(scope: Scope, limit: int) -> None:
    """Raises ``Problem`` for a body whose length is said to be above the limit."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
            raise too_large(limit)
