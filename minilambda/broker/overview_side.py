"""What those are told who watch a cluster: who its clients are, and how it does as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minilambda.broker.events import Route
from minilambda.broker.views import client_rows
from minilambda.messages import Message
from minilambda.messages.overview import ClientList, GetOverview, ListClients, Overview

if TYPE_CHECKING:
    from minilambda.broker.core import Core


class OverviewSide:
    """The handlers of these requests."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.handlers: dict[type[Message], Callable[[Route, str, Any, float], None]] = {
            ListClients: self._list_clients,
            GetOverview: self._get_overview,
        }

    def _list_clients(self, route: Route, principal: str, message: ListClients, now: float) -> None:
        core = self._core
        authority = core.access.authority
        limbo = Counter(job.key[0] for job in core.settling.all()) if len(core.settling) else Counter()
        latest = sorted(core.meters.clients.items(), key=lambda item: item[1].seen_at, reverse=True)
        rows = client_rows(
            (
                (who, "" if authority is None else authority.name(who), meter, core.queue.waiting_of(who) + limbo[who])
                for who, meter in latest
            ),
            now,
        )
        core.send(route, ClientList(message.request, rows))

    def _get_overview(self, route: Route, principal: str, message: GetOverview, now: float) -> None:
        core, meters = self._core, self._core.meters
        workers = core.workers.sessions.values()
        queued = core.queue.size + len(core.settling)
        overview = Overview(
            message.request,
            broker=core.name,
            up_ms=(now - meters.began) * 1000,
            workers=len(workers),
            slots=sum(worker.slots for worker in workers),
            queued=queued,
            running=core.unfinished - queued,
            kept=len(core.results),
            accepted=core.accepted,
            outcomes=meters.outcomes,
            rejected=dict(core.rejected),
            modules=core.modules.count,
            store_bytes=core.modules.bytes,
            tiers=meters.tiers(),
        )
        core.send(route, overview)
