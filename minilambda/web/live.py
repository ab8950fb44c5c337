"""How the cluster does, for the live page: asked of the broker once for all who look."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from minilambda._version import __version__
from minilambda.client.aio import AsyncClient
from minilambda.errors import Forbidden, MinilambdaError
from minilambda.web.sse import event

if TYPE_CHECKING:
    from minilambda.web.gateway import Gateway
    from minilambda.web.settings import WebSettings

JOBS = 100
WORKERS = 200
FUNCTIONS = 200
"""So many rows are told, at most; the overview has the numbers of all."""


class Live:
    """The latest state. However many look, the broker is asked at most once in ``settings.poll`` seconds."""

    def __init__(self, client: AsyncClient, settings: WebSettings, gateway: Gateway) -> None:
        self._client = client
        self._settings = settings
        self._gateway = gateway
        self._looking: asyncio.Task[None] | None = None  # a look that is under way
        self._next = 0.0  # when to look again at the earliest, seconds
        self._lists: dict[str, Any] = dict.fromkeys(("overview", "workers", "queued", "jobs", "functions"))
        self._problem: dict[str, str] | None = None  # why the last look failed
        self._seen: float | None = None  # when the broker answered last, seconds since 1970
        self._broker: dict[str, Any] = {"name": "", "principal": ""}

    async def state(self) -> dict[str, Any]:
        """The state, not older than a look may be."""
        await self._look()
        gateway = self._gateway
        return {
            "at": round(time.time(), 3),
            "up": self._problem is None,
            "problem": self._problem,
            "seen": self._seen,
            "broker": self._broker,
            "gateway": {
                "version": __version__,
                "requests": gateway.requests,
                "streams": gateway.streams,
                "tokens": gateway.tokens is not None,
            },
            **self._lists,
        }

    async def up(self) -> dict[str, str] | None:
        """None if the broker answers, else what is wrong."""
        await self._look()
        return self._problem

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The state as it is now, and again whenever it may have changed."""
        while True:
            yield event("state", await self.state())
            await asyncio.sleep(self._settings.poll)

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await self._client.close()

    async def _look(self) -> None:
        """Ask the broker, unless somebody has just done so."""
        if self._looking is None and time.monotonic() >= self._next:
            self._looking = asyncio.ensure_future(self._ask_all())
        if self._looking is not None:
            await asyncio.shield(self._looking)

    async def _ask_all(self) -> None:
        try:
            await asyncio.wait_for(self._fill(), self._settings.quick)
            self._problem, self._seen = None, round(time.time(), 3)
        except (MinilambdaError, asyncio.TimeoutError) as error:
            code = error.code if isinstance(error, MinilambdaError) else "unreachable"
            self._problem = {"code": code, "detail": str(error) or "The broker does not answer."}
        finally:
            self._next = time.monotonic() + self._settings.poll
            self._looking = None

    async def _fill(self) -> None:
        client = self._client
        if not self._broker["name"] or self._problem is not None:
            welcome = await client.limits()
            self._broker = {"name": welcome.broker, "principal": welcome.principal}
        cluster, overview, jobs, functions = await asyncio.gather(
            _allowed(client.cluster),
            _allowed(client.overview),
            _allowed(lambda: client.jobs("", JOBS)),
            _allowed(client.functions),
        )
        self._lists = {
            "overview": _plain(overview),
            "workers": None if cluster is None else _plain(cluster.workers[:WORKERS]),
            "queued": None if cluster is None else cluster.queued,
            "jobs": _plain(jobs),
            "functions": None if functions is None else _plain(functions[:FUNCTIONS]),
        }


async def _allowed(ask: Callable[[], Awaitable[Any]]) -> Any:
    """The answer; None where the gateway's key may not ask this."""
    with contextlib.suppress(Forbidden):
        return await ask()
    return None


def _plain(value: Any) -> Any:
    """Values of the client as JSON can hold them."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return json.loads(json.dumps(dataclasses.asdict(value), default=str))
    return value
