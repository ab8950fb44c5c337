"""The gateway: the connection to the broker that all requests share, and what each request has of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from minilambda.client.aio import AsyncClient
from minilambda.client.results import RunResult
from minilambda.web.bodies import Body, Budget, Gone, Lease
from minilambda.web.live import Live
from minilambda.web.options import parameters
from minilambda.web.problems import Problem, failure
from minilambda.web.schema import Schema
from minilambda.web.settings import WebSettings
from minilambda.web.tokens import Token, TokenFile

_T = TypeVar("_T")


class Gateway:
    """What all requests share. It belongs to one event loop."""

    def __init__(
        self,
        settings: WebSettings,
        server: str,
        *,
        key: str | None = None,
        server_key: str | None = None,
        tokens: TokenFile | None = None,
    ) -> None:
        self.settings = settings
        self.tokens = tokens
        # A visitor is told at once that the broker is busy or away, and tries again as it likes; but a job that is
        # under way outlives a broker that is started anew.
        connect = settings.connect
        self.client = AsyncClient(
            server, connect_timeout=connect, lost_timeout=10.0, busy_timeout=0.0, key=key, server_key=server_key
        )
        watcher = AsyncClient(
            server, connect_timeout=connect, lost_timeout=connect, busy_timeout=0.0, key=key, server_key=server_key
        )
        self.budget = Budget(settings.bodies_bytes)
        self.requests = 0  # under way
        self.streams = 0  # of these, streams of events
        self.stopping = asyncio.Event()  # set when no more is taken
        self.live = Live(watcher, settings, self)
        self.document: Mapping[str, Any] = {}  # OpenAPI's, which the application knows

    async def close(self) -> None:
        """Leave the broker. What somebody still waits for is cancelled."""
        await self.live.close()
        await self.client.close()


@dataclass(slots=True)
class Asked:
    """One request under way."""

    gateway: Gateway
    request: Request
    body: Body
    lease: Lease
    token: Token | None  # of its sender; None where there are none
    known: Mapping[str, Schema]  # the parameters that its query may have

    @property
    def client(self) -> AsyncClient:
        return self.gateway.client

    @property
    def settings(self) -> WebSettings:
        return self.gateway.settings

    @property
    def path(self) -> Mapping[str, Any]:
        """The parameters in the path."""
        return self.request.path_params

    def query(self) -> dict[str, Any]:
        """The parameters in the query. Raises ``Problem``."""
        try:
            return parameters(self.known, self.request.query_params.multi_items())
        except ValueError as error:
            raise Problem("bad_request", str(error)) from None

    def group(self, given: str = "") -> str:
        """The group of a job: each token has one, so that the broker is fair between them."""
        return given if self.token is None else self.token.name

    async def all_of_body(self) -> bytes:
        """The request's body."""
        return await self.body.read(self.settings.max_body_bytes)

    async def unless_gone(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of ``work``, which is cancelled when the visitor hangs up. Raises ``Gone`` then.

        Only once the body has been read.
        """
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(self.body.gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Gone
            return task.result()
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.wait({task, gone})
            if not task.cancelled():
                task.exception()  # it is known now; nobody is told where the visitor has gone

    def keep(self, result: RunResult) -> RunResult:
        """The result; what it holds counts among the bytes of all requests until it has been sent."""
        files: dict[str, bytes] = getattr(result, "files", None) or {}
        self.lease.note(len(result.stdout) + len(result.stderr) + sum(map(len, files.values())))
        return result

    def begin_stream(self) -> None:
        """The reply is going to be a stream of events. Raises ``Problem`` where there are too many."""
        if self.gateway.streams >= self.settings.max_streams:
            raise failure("overloaded", f"There are {self.settings.max_streams} streams already.")
