"""What clients ask of the broker, request by request. Each gets exactly one reply, now or when the job ends.

A handler raises a ``RequestError`` to refuse its request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minilambda.broker.events import Route
from minilambda.broker.jobs import Job, JobKey, Waiter
from minilambda.broker.modules import Module
from minilambda.broker.views import failed, module_rows, result_reply, worker_rows
from minilambda.errors import BadRequest, Busy, Conflict, InputTooLarge, ModuleTooLarge, NotFound, NoWorkers
from minilambda.fields import MAX_FRAME
from minilambda.messages import (
    Accepted,
    Cancel,
    GetResult,
    GetStatus,
    Hello,
    JobSpec,
    ListModules,
    ListWorkers,
    Message,
    ModuleList,
    Put,
    Run,
    Stop,
    Stored,
    Welcome,
    WorkerList,
)
from minilambda.wire import VERSION

if TYPE_CHECKING:
    from minilambda.broker.core import Core

MAX_WAITERS = 64
"""Connections that can wait for one job; the one that has waited longest makes room for another."""

JOB_OVERHEAD = 2048
"""Counted for each job beside its texts and input, bytes."""

MAX_SPEC_BYTES = MAX_FRAME - 16 * 1024
"""Arguments and environment together, so that the header of a dispatch fits a frame; bytes."""


class ClientSide:
    """The handlers of clients' messages."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.handlers: dict[type[Message], Callable[[Route, str, Any, float], None]] = {
            Hello: self._hello,
            Run: self._run,
            GetStatus: self._status,
            GetResult: self._get_result,
            Cancel: self._cancel,
            Put: self._put,
            ListModules: self._list_modules,
            ListWorkers: self._list_workers,
        }

    def _hello(self, route: Route, principal: str, message: Hello, now: float) -> None:
        core, settings = self._core, self._core.settings
        welcome = Welcome(
            message.request,
            core.name,
            principal,
            (VERSION,),
            (),
            settings.max_module_bytes,
            settings.max_stdin_bytes,
            settings.max_request_bytes,
            int(settings.resend * 1000),
            int(settings.max_wait * 1000),
        )
        core.send(route, welcome)

    # --- run -------------------------------------------------------------------------------------

    def _run(self, route: Route, principal: str, message: Run, now: float) -> None:
        core = self._core
        key = (principal, message.job)
        job = core.jobs.get(key)
        if job is None:
            job = self._new_job(key, message, now)
        elif not job.same(message.spec, message.stdin, message.values):
            raise Conflict(f"Another job with the id {message.job!r} and other content exists.")
        if message.detach:
            core.send(route, Accepted(message.request, message.job, job.state))
        elif job.ended:
            core.send(route, result_reply(job, message.request))
        else:
            self._wait(job, route, message.request, None)

    def _new_job(self, key: JobKey, message: Run, now: float) -> Job:
        core, settings, spec = self._core, self._core.settings, message.spec
        stdin, values = message.stdin, message.values
        for what, body in (("input", stdin), ("list of parameters", values)):
            if len(body) > settings.max_stdin_bytes:
                text = f"The {what} has {len(body)} bytes, the broker accepts {settings.max_stdin_bytes}."
                raise InputTooLarge(text)
        texts = spec_bytes(spec)
        if texts > MAX_SPEC_BYTES:
            raise InputTooLarge(f"Arguments and environment have {texts} bytes, the broker accepts {MAX_SPEC_BYTES}.")
        if spec.if_no_workers == "fail" and not core.scheduler.taking:
            raise NoWorkers()
        cost = JOB_OVERHEAD + texts + len(stdin) + len(values)
        if len(core.queue) >= settings.max_queued:
            raise Busy(f"The queue is full: {settings.max_queued} jobs wait.")
        if core.input_bytes + cost > settings.max_queued_bytes:
            raise Busy(f"The queue is full: its jobs have {core.input_bytes} bytes of input.")
        module = self._module(key[0], spec.module, message.wasm, now)
        core.modules.acquire(module, now)
        job = Job(key, spec, stdin, values, cost, core.accepted, now, now)
        core.accept(job, now)
        core.claim(job, now)
        return job

    def _module(self, principal: str, digest: str, wasm: bytes, now: float) -> Module:
        store, most = self._core.modules, self._core.settings.max_module_bytes
        module = store.find(principal, digest)
        if module is not None:
            if wasm and len(wasm) != module.size:
                raise BadRequest("The module's bytes do not have the hash that the request names.")
            return module
        if not wasm:
            raise NotFound(f"The broker does not have the module {digest}; send its bytes along, or put them first.")
        if len(wasm) > most:
            raise ModuleTooLarge(f"The module has {len(wasm)} bytes, the broker accepts {most}.")
        return store.add(principal, digest, wasm, now)

    # --- about jobs ------------------------------------------------------------------------------

    def _find(self, principal: str, job_id: str) -> Job:
        job = self._core.jobs.get((principal, job_id))
        if job is None:
            raise NotFound(f"The broker does not know the job {job_id!r}.")
        return job

    def _status(self, route: Route, principal: str, message: GetStatus, now: float) -> None:
        self._core.state(route, message.request, self._find(principal, message.job), now)

    def _get_result(self, route: Route, principal: str, message: GetResult, now: float) -> None:
        job = self._find(principal, message.job)
        wait = min(message.wait_ms / 1000, self._core.settings.max_wait)
        if job.ended:
            self._core.send(route, result_reply(job, message.request))
        elif wait:
            self._wait(job, route, message.request, now + wait)
        else:
            self._core.state(route, message.request, job, now)

    def _wait(self, job: Job, route: Route, request: int, until: float | None) -> None:
        """Answer at the job's end. An older request of the same connection for this job is answered no more."""
        core, connection = self._core, route[0]
        old = job.waiters.pop(connection, None)
        if old is None and len(job.waiters) >= MAX_WAITERS:
            oldest = next(iter(job.waiters))
            self._unwait(job, oldest, Busy("Too many connections wait for this job; ask for its result later."))
        elif old is not None and old.timed:
            core.timers.clear(("wait", job.key, connection))
        job.waiters[connection] = Waiter(route, request, until is not None)
        if until is not None:
            core.timers.set(("wait", job.key, connection), until)

    def _unwait(self, job: Job, connection: bytes, error: Busy) -> None:
        waiter = job.waiters.pop(connection)
        if waiter.timed:
            self._core.timers.clear(("wait", job.key, connection))
        self._core.refuse(waiter.route, GetResult(waiter.request, job.key[1]), error)

    def wait_over(self, key: JobKey, connection: bytes, now: float) -> None:
        """A request has waited for as long as it wanted to."""
        job = self._core.jobs[key]
        waiter = job.waiters.pop(connection)
        self._core.state(waiter.route, waiter.request, job, now)

    def _cancel(self, route: Route, principal: str, message: Cancel, now: float) -> None:
        core, job = self._core, self._find(principal, message.job)
        if job.state == "queued":
            core.queue.remove(job)
            core.end(job, failed("cancelled"), {}, now)
        elif job.worker is not None and not job.cancelling:
            job.cancelling = True
            # A job that is already finished there ends with the result that is on its way.
            if job.key in job.worker.jobs:
                core.send(job.worker.route, Stop(job.worker.session, job.ref))
        core.state(route, message.request, job, now)

    # --- modules and lists -----------------------------------------------------------------------

    def _put(self, route: Route, principal: str, message: Put, now: float) -> None:
        store, most = self._core.modules, self._core.settings.max_module_bytes
        digest, size = message.module, message.size
        if size > most:
            raise ModuleTooLarge(f"The module has {size} bytes, the broker accepts {most}.")
        if not size:
            raise BadRequest("A module has at least one byte.")
        received, complete = 0, False
        if (module := store.find(principal, digest)) is not None:
            received, complete = module.size, True
        elif (upload := store.upload(principal, digest, size)) is not None:
            received = upload.received
        if message.data and not complete and message.offset == received:
            received, complete = store.write(principal, digest, size, message.data, now)
        self._core.send(route, Stored(message.request, digest, received, complete))

    def _list_modules(self, route: Route, principal: str, message: ListModules, now: float) -> None:
        store = self._core.modules
        owned = (store.find(principal, digest) for digest in store.owned(principal))
        rows = module_rows((module for module in owned if module is not None), now)
        self._core.send(route, ModuleList(message.request, rows))

    def _list_workers(self, route: Route, principal: str, message: ListWorkers, now: float) -> None:
        core = self._core
        rows = worker_rows(core.workers.sessions.values(), now)
        core.send(route, WorkerList(message.request, rows, len(core.queue)))


def spec_bytes(spec: JobSpec) -> int:
    """What the texts of a spec take in a header, bytes."""
    total = 0
    for text in spec.args:
        total += len(text.encode()) + 5
    for name, text in spec.env.items():
        total += len(name.encode()) + len(text.encode()) + 10
    return total
