"""What clients ask of the broker beside running jobs: modules ahead of them, and lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from minilambda.broker.authority import EVERYBODY
from minilambda.broker.events import Route
from minilambda.broker.jobs import KEEP_INPUT, Job
from minilambda.broker.modules import Module
from minilambda.broker.views import job_rows, module_rows, worker_rows
from minilambda.errors import BadRequest, ModuleTooLarge
from minilambda.messages import (
    JobList,
    ListJobs,
    ListModules,
    ListWorkers,
    Message,
    ModuleList,
    Put,
    Stored,
    WorkerList,
)
from minilambda.paths import NOTHING

if TYPE_CHECKING:
    from minilambda.broker.core import Core

LOOKED_AT = 20_000
"""Jobs that are looked at for one list, at most, so that no list takes long."""


class ListSide:
    """The handlers of these requests. One that raises a ``RequestError`` refuses its request."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.handlers: dict[type[Message], Callable[[Route, str, Any, float], None]] = {
            Put: self._put,
            ListModules: self._list_modules,
            ListWorkers: self._list_workers,
            ListJobs: self._list_jobs,
        }

    def _put(self, route: Route, principal: str, message: Put, now: float) -> None:
        store, most = self._core.modules, self._core.settings.max_module_bytes
        digest, size = message.module, message.size
        if size > most:
            raise ModuleTooLarge(f"The module has {size} bytes, the broker accepts {most}.")
        if not size:
            if digest != NOTHING:
                raise BadRequest("What has this hash has at least one byte.")
            self._core.send(route, Stored(message.request, digest, 0, True))
            return
        received, complete = 0, False
        if (module := store.find(principal, digest)) is not None:
            received, complete = module.size, True
        elif (upload := store.upload(principal, digest, size)) is not None:
            received = upload.received
        if message.data and not complete and message.offset == received:
            if self._core.quotas is not None and not received:
                self._core.quotas.check_module(store, principal, size, now)
            received, complete = store.write(principal, digest, size, message.data, now)
        self._core.send(route, Stored(message.request, digest, received, complete))

    def _list_modules(self, route: Route, principal: str, message: ListModules, now: float) -> None:
        store = self._core.modules
        authority = self._core.access.authority
        if authority is not None and authority.observes(principal):
            found: Iterable[Module | None] = store.all()
        else:
            found = (store.find(principal, digest) for digest in store.owned(principal))
        rows = module_rows((module for module in found if module is not None), now)
        self._core.send(route, ModuleList(message.request, rows))

    def _list_workers(self, route: Route, principal: str, message: ListWorkers, now: float) -> None:
        core = self._core
        rows = worker_rows(core.workers.sessions.values(), now)
        core.send(route, WorkerList(message.request, rows, len(core.queue)))

    def _list_jobs(self, route: Route, principal: str, message: ListJobs, now: float) -> None:
        core, wanted = self._core, message.state
        owner = core.access.owner(principal, message.principal)
        jobs = core.results.again if wanted in KEEP_INPUT else core.jobs

        def fitting() -> Iterator[Job]:
            for job in islice(reversed(jobs.values()), LOOKED_AT):
                if owner in (job.key[0], EVERYBODY) and wanted in ("", job.shown, job.code):
                    yield job

        core.send(route, JobList(message.request, job_rows(islice(fitting(), message.limit), now)))
