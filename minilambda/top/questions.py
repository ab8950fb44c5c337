"""The questions that top asks of a broker: one of each kind in a round."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeVar, cast

from minilambda.client.aio import AsyncClient
from minilambda.client.listings import ClientInfo, Cluster, JobInfo, Overview, client_infos, cluster, job_info, overview
from minilambda.errors import BadRequest, Forbidden, MinilambdaError, UnsupportedVersion
from minilambda.messages import Hello, JobList, ListJobs, ListWorkers, Request, Welcome, WorkerList
from minilambda.messages.overview import ClientList, GetOverview, ListClients
from minilambda.messages.overview import Overview as OverviewReply
from minilambda.top.sample import Sample

MOST_JOBS = 500
"""Jobs that are asked for; the broker may tell fewer."""

PATIENCE = 3.0
"""A broker that answers nothing for so long is away, seconds."""

_EVERYBODY = "*"
_REFUSALS = (Forbidden, BadRequest, UnsupportedVersion)  # asking again would get the same answer

_T = TypeVar("_T")


class Away(Exception):
    """The broker does not answer; the text says more."""


class Questions:
    """Asks, and remembers what the broker does not tell this key, so that it isn't asked again and again."""

    def __init__(self, client: AsyncClient, patience: float = PATIENCE) -> None:
        self._client = client
        self._patience = patience
        self._refused: dict[str, str] = {}  # kind of question to the broker's sentence
        self._own_only = False  # jobs of others are not for this key
        self._welcome: Welcome | None = None

    def forget(self) -> None:
        """Ask everything again: the broker, or what it allows, may be another one."""
        self._refused, self._own_only, self._welcome = {}, False, None

    async def round(self, asked: Collection[str], state: str = "") -> Sample:
        """The overview, if it is among ``asked``, and the lists of these names. Raises ``Away``.

        Of the jobs those of a state or code are asked for, of all with "".
        """
        kinds: dict[str, Callable[[], Awaitable[Any]]] = {
            "overview": self._overview,
            "workers": self._cluster,
            "clients": self._clients,
            "functions": self._client.functions,
            "jobs": lambda: self._jobs(state),
        }
        told = [self._told(kind, kinds[kind]) for kind in asked]
        answers = await asyncio.gather(self._greet(), *told, return_exceptions=True)
        for each in answers:
            if isinstance(each, BaseException):
                raise each
        found = dict(zip(asked, answers[1:], strict=True))
        welcome = cast(Welcome, answers[0])
        return Sample(
            time.monotonic(),
            cast("Overview | None", found.get("overview")),
            cast("Cluster | None", found.get("workers")),
            cast("list[JobInfo] | None", found.get("jobs")),
            cast("list[ClientInfo] | None", found.get("clients")),
            found.get("functions"),
            state,
            self._own_only,
            dict(self._refused),
            welcome.broker,
            welcome.principal,
        )

    async def _greet(self) -> Welcome:
        if self._welcome is None:
            self._welcome = cast(Welcome, await self._answer(self._ask(Hello(0))))
        return self._welcome

    async def _told(self, kind: str, question: Callable[[], Awaitable[_T]]) -> _T | None:
        """The answer, or None where it is refused."""
        if kind in self._refused:
            return None
        try:
            return await self._answer(question())
        except _REFUSALS as error:
            self._refused[kind] = error.message
            return None

    async def _answer(self, question: Awaitable[_T]) -> _T:
        try:
            return await asyncio.wait_for(question, self._patience + 1)
        except _REFUSALS:
            raise
        except (MinilambdaError, asyncio.TimeoutError, OSError) as error:
            raise Away(str(error) or "It does not answer.") from None

    async def _ask(self, message: Request) -> Any:
        return await self._client.ask(message, self._patience)

    async def _overview(self) -> Overview:
        return overview(cast(OverviewReply, await self._ask(GetOverview(0))))

    async def _cluster(self) -> Cluster:
        return cluster(cast(WorkerList, await self._ask(ListWorkers(0))))

    async def _clients(self) -> list[ClientInfo]:
        return client_infos(cast(ClientList, await self._ask(ListClients(0))))

    async def _jobs(self, state: str) -> list[JobInfo]:
        try:
            return await self._list(state)
        except Forbidden:
            if self._own_only:
                raise
            self._own_only = True
            return await self._list(state)

    async def _list(self, state: str) -> list[JobInfo]:
        whose = "" if self._own_only else _EVERYBODY
        reply = cast(JobList, await self._ask(ListJobs(0, state, MOST_JOBS, whose)))
        return [job_info(row) for row in reply.jobs]
