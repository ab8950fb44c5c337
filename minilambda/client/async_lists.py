"""What the asyncio client can ask a broker about itself, its jobs, modules, workers and clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

from minilambda.client.listings import (
    ClientInfo,
    Cluster,
    JobInfo,
    ModuleInfo,
    Overview,
    WorkerInfo,
    client_infos,
    cluster,
    job_info,
    module_info,
    overview,
)
from minilambda.client.requests import QUICK
from minilambda.messages import (
    Hello,
    JobList,
    ListJobs,
    ListModules,
    ListWorkers,
    ModuleList,
    Reply,
    Request,
    Welcome,
    WorkerList,
)
from minilambda.messages.overview import ClientList, GetOverview, ListClients
from minilambda.messages.overview import Overview as OverviewReply


class AsyncLists(ABC):
    """The methods, which are those of ``Client``."""

    async def jobs(self, state: str = "", limit: int = 100, principal: str = "") -> list[JobInfo]:
        """The jobs that the broker knows, as ``Client.jobs`` tells them."""
        reply = cast(JobList, await self.ask(ListJobs(0, state, limit, principal)))
        return [job_info(row) for row in reply.jobs]

    async def modules(self) -> list[ModuleInfo]:
        """The modules that the broker has."""
        reply = cast(ModuleList, await self.ask(ListModules(0)))
        return [module_info(row) for row in reply.modules]

    async def workers(self) -> list[WorkerInfo]:
        """The workers that the broker knows."""
        return (await self.cluster()).workers

    async def cluster(self, *, patience: float = QUICK) -> Cluster:
        """The workers, and how many jobs wait for them. ``patience`` is in seconds."""
        return cluster(cast(WorkerList, await self.ask(ListWorkers(0), patience)))

    async def clients(self) -> list[ClientInfo]:
        """The principals that have jobs, or had some since the broker began. For an admin or an observer."""
        return client_infos(cast(ClientList, await self.ask(ListClients(0))))

    async def overview(self) -> Overview:
        """How the broker does. For an admin or an observer."""
        return overview(cast(OverviewReply, await self.ask(GetOverview(0))))

    async def limits(self) -> Welcome:
        """What the broker says of itself: its version, its limits and its intervals."""
        return cast(Welcome, await self.ask(Hello(0)))

    @abstractmethod
    async def ask(self, message: Request, patience: float = QUICK) -> Reply:
        """One request and its reply."""
