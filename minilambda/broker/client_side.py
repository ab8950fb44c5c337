"""What clients ask of the broker, request by request. Each gets exactly one reply, now or when the job ends.

A handler raises a ``RequestError`` to refuse its request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minilambda.broker.contents import check_spec, files_of, find_files, hold
from minilambda.broker.events import Route
from minilambda.broker.function_side import FunctionSide
from minilambda.broker.jobs import Job, JobKey, Waiter, cost_of
from minilambda.broker.list_side import ListSide
from minilambda.broker.modules import Module
from minilambda.broker.overview_side import OverviewSide
from minilambda.broker.records import Called, ModuleKept
from minilambda.broker.views import failed, result_reply, status_reply
from minilambda.errors import (
    BadRequest,
    Busy,
    Conflict,
    Expired,
    InputTooLarge,
    ModuleTooLarge,
    NotFound,
    NoWorkers,
    StorageFailed,
)
from minilambda.messages import (
    Accepted,
    Cancel,
    GetResult,
    GetStatus,
    Hello,
    Message,
    Refused,
    Run,
    RunAgain,
    Stop,
    Welcome,
)
from minilambda.wire import VERSION, Malformed

if TYPE_CHECKING:
    from minilambda.broker.core import Core

MAX_WAITERS = 64
"""Connections that can wait for one job; the one that has waited longest makes room for another."""

FEATURES: tuple[str, ...] = ("streams", "files", "functions")
"""What this broker can do beyond the first version's least, for ``welcome``."""


class ClientSide:
    """The handlers of clients' messages."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.functions = FunctionSide(core, self._run, self._module, self._keep)
        self.handlers: dict[type[Message], Callable[[Route, str, Any, float], None]] = {
            Hello: self._hello,
            Run: self._run,
            GetStatus: self._status,
            GetResult: self._get_result,
            Cancel: self._cancel,
            RunAgain: self._run_again,
            **ListSide(core).handlers,
            **OverviewSide(core).handlers,
            **self.functions.handlers,
            **core.streams.for_clients(self._find),
        }

    def _hello(self, route: Route, principal: str, message: Hello, now: float) -> None:
        core, settings = self._core, self._core.settings
        welcome = Welcome(
            message.request,
            core.name,
            principal,
            (VERSION,),
            FEATURES,
            settings.max_module_bytes,
            settings.max_stdin_bytes,
            settings.max_request_bytes,
            int(settings.resend * 1000),
            int(settings.max_wait * 1000),
        )
        core.send(route, welcome)

    def reject(self, route: Route, malformed: Malformed) -> None:
        """Answer what is no message, unless a worker has sent it."""
        core, error = self._core, malformed.error
        core.count(error.code)
        if route[0] not in core.workers.by_connection:
            core.send(route, Refused(malformed.request, error.code, error.message, job=malformed.job))

    # --- run -------------------------------------------------------------------------------------

    def _run(
        self, route: Route, principal: str, message: Run, now: float, called: Called | None = None, lender: str = ""
    ) -> None:
        """``called``: the job is a call of a function. ``lender``: whose its module and files are, if another's."""
        core = self._core
        key = (principal, message.job)
        job = core.jobs.get(key)
        if message.detach and core.promises.durable and not core.promises.accepting and not (job and job.journaled):
            raise StorageFailed()
        if job is None:
            job = self._new_job(key, message, now, called, lender or principal)
        elif not job.same(message.spec, message.stdin, message.values):
            raise Conflict(f"Another job with the id {message.job!r} and other content exists.")
        if message.detach:
            self._promise(job)
            core.reply(route, Accepted(message.request, message.job, job.shown), job)
        elif job.result is not None:
            core.reply(route, result_reply(job, message.request), job)
        else:
            self._wait(job, route, message.request, None)

    def _promise(self, job: Job) -> None:
        """From now on the job, with its module and its files, outlives the broker."""
        core = self._core
        if job.journaled or not core.promises.durable:
            return
        if not job.ended:
            self._keep(job.key[0], job.spec.module)
            for digest in job.files:
                self._keep(job.key[0], digest)
        core.promises.accepted(job)

    def _keep(self, principal: str, digest: str) -> None:
        """What a job or a function needs of the store outlives the broker; what is lent is somebody else's."""
        module = self._core.modules.needed(digest)
        principal = principal if principal in module.principals else min(module.principals)
        if principal not in module.saved:
            module.saved.add(principal)
            self._core.promises.note(ModuleKept(digest, module.size, principal))

    def _new_job(self, key: JobKey, message: Run, now: float, called: Called | None, owner: str) -> Job:
        core, settings, spec = self._core, self._core.settings, message.spec
        if key in core.forgotten:
            raise Expired()
        stdin, values = message.stdin, message.values
        most = settings.max_stdin_bytes
        if len(stdin) > most or len(values) > most:
            what, size = ("input", len(stdin)) if len(stdin) > most else ("list of parameters", len(values))
            raise InputTooLarge(f"The {what} has {size} bytes, the broker accepts {most}.")
        texts = check_spec(spec)
        if spec.if_no_workers == "fail" and not core.scheduler.taking and not core.settling.open:
            raise NoWorkers()
        if core.quotas is not None:
            core.quotas.check_job(key[0], core.queue.waiting_of(key[0]), core.scheduler.knows(spec.module), now)
        cost = cost_of(texts, stdin, values, len(spec.files))
        if core.queue.size + core.settling.size >= settings.max_queued:
            raise Busy(f"The queue is full: {settings.max_queued} jobs wait.")
        if core.input_bytes + cost > settings.max_queued_bytes:
            raise Busy(f"The queue is full: its jobs have {core.input_bytes} bytes of input.")
        module = self._module(owner, spec.module, message.wasm, now)
        files = find_files(core.modules, owner, spec) if spec.files else ()
        core.modules.acquire(module, now)
        job = Job(key, spec, stdin, values, cost, core.accepted, now, now)
        job.called = called
        if files:
            hold(core.modules, files, now)
            job.files = files_of(spec)
        promised = message.detach and core.promises.durable  # then no worker had it without the journal's knowledge
        unbegun = key in core.unclaimed.unbegun
        if core.telling:
            job.traceparent = message.traceparent
        job.doubtful = message.again and not job.retries and not promised and not unbegun
        core.accept(job, now, resent=not message.detach and not unbegun, straight=not message.detach)
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
        if self._core.quotas is not None:
            self._core.quotas.check_module(store, principal, len(wasm), now)
        return store.add(principal, digest, wasm, now)

    # --- about jobs ------------------------------------------------------------------------------

    def _find(self, sender: str, job_id: str, owner: str = "") -> Job:
        principal = self._core.access.owner(sender, owner)
        job = self._core.jobs.get((principal, job_id))
        if job is None and (principal, job_id) in self._core.forgotten:
            raise Expired()
        if job is None:
            raise NotFound(f"The broker does not know the job {job_id!r}.")
        return job

    def _status(self, route: Route, principal: str, message: GetStatus, now: float) -> None:
        job = self._find(principal, message.job, message.principal)
        self._core.reply(route, status_reply(job, message.request, now, message.story), job)

    def _get_result(self, route: Route, principal: str, message: GetResult, now: float) -> None:
        job = self._find(principal, message.job, message.principal)
        wait = min(message.wait_ms / 1000, self._core.settings.max_wait)
        if job.ended:
            self._core.reply(route, result_reply(job, message.request), job)
        elif wait:
            self._wait(job, route, message.request, now + wait)
        else:
            self._state(route, message.request, job, now)

    def _state(self, route: Route, request: int, job: Job, now: float) -> None:
        self._core.reply(route, status_reply(job, request, now), job)

    def _wait(self, job: Job, route: Route, request: int, until: float | None) -> None:
        """Answer at the job's end. An older request of the same connection for this job is answered no more."""
        core, connection = self._core, route[0]
        old = job.take_waiter(connection) if job.waiters else None
        if old is None and len(job.waiters) >= MAX_WAITERS:
            self._unwait(job, Busy("Too many connections wait for this job; ask for its result later."))
        elif old is not None and old.timed:
            core.timers.clear(("wait", job.key, connection))
        job.waiters = (*job.waiters, Waiter(route, request, until is not None))
        if until is not None:
            core.timers.set(("wait", job.key, connection), until)

    def _unwait(self, job: Job, error: Busy) -> None:
        """The oldest request that waits is answered with an error."""
        waiter, *rest = job.waiters
        job.waiters = tuple(rest)
        if waiter.timed:
            self._core.timers.clear(("wait", job.key, waiter.route[0]))
        self._core.refuse(waiter.route, GetResult(waiter.request, job.key[1]), error)

    def wait_over(self, key: JobKey, connection: bytes, now: float) -> None:
        """A request has waited for as long as it wanted to."""
        job = self._core.jobs[key]
        waiter = job.take_waiter(connection)
        if waiter is not None:
            self._state(waiter.route, waiter.request, job, now)

    def _cancel(self, route: Route, principal: str, message: Cancel, now: float) -> None:
        core, job = self._core, self._find(principal, message.job, message.principal)
        if job.state == "queued":
            core.queue.remove(job)
            core.end(job, failed("cancelled"), {}, now)
        elif job.state == "limbo" and not job.attempt:
            core.end(job, failed("cancelled"), {}, now)
        elif not job.ended and not job.cancelling:
            job.cancelling = True
            core.promises.moved(job)
            # A job that is already finished there ends with the result that is on its way.
            if job.worker is not None and job.key in job.worker.jobs:
                core.tell(job.worker, Stop(job.worker.session, job.ref), job)
        self._state(route, message.request, job, now)

    def _run_again(self, route: Route, principal: str, message: RunAgain, now: float) -> None:
        """A new job with the module and the input of an ended one."""
        old = self._find(principal, message.of)
        if not old.ended:
            raise Conflict(f"The job {message.of!r} has not ended.")
        if old.content and not (old.stdin or old.values):
            raise BadRequest("The job's input is not kept any more; submit it anew.")
        run = Run(message.request, message.job, old.spec, detach=True, stdin=old.stdin, values=old.values)
        self._run(route, principal, run, now, old.called, self.functions.lender(principal, old))
