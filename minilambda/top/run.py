"""Running the dashboard, or asking once."""

from __future__ import annotations

import asyncio

from minilambda.client.aio import AsyncClient
from minilambda.errors import Unreachable
from minilambda.extras import MissingExtra
from minilambda.top.questions import PATIENCE, Away, Questions
from minilambda.top.sample import LISTS
from minilambda.top.watch import Watch

_FOREVER = 366 * 24 * 3600.0  # what waits for a broker that is away goes on when it is back, seconds


def connect(server: str, key: str | None, server_key: str | None, patience: float = PATIENCE) -> AsyncClient:
    """The client of a dashboard. Raises ``BadKey`` and ``OSError``."""
    return AsyncClient(server, connect_timeout=patience, lost_timeout=_FOREVER, key=key, server_key=server_key)


def run_top(client: AsyncClient, every: float) -> int:
    """Show the dashboard until somebody leaves it; returns the exit code. Raises ``MissingExtra``."""
    try:
        from minilambda.top.app import Top  # noqa: PLC0415 - all else does without textual
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise MissingExtra("The dashboard", "textual", "top") from None
    top = Top(client, every)
    top.run()
    return top.return_code or 0


def look_once(client: AsyncClient, every: float, patience: float = PATIENCE) -> Watch:
    """Ask everything, and the overview again after ``every`` seconds: what ends a second needs two looks.

    Raises ``Unreachable``.
    """

    async def look() -> Watch:
        watch, questions = Watch(), Questions(client, patience)
        async with client:
            try:
                watch.take(await questions.round(("overview",)))
                if watch.latest.overview is not None:
                    await asyncio.sleep(every)
                watch.take(await questions.round(("overview", *LISTS)))
            except Away as error:
                raise Unreachable(str(error)) from None
        return watch

    return asyncio.run(look())
