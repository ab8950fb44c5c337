"""How jobs leave their workers: done, or handed back. A word counts only for the attempt that the worker has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minilambda.broker.body_side import BodySide
from minilambda.broker.events import Route
from minilambda.broker.jobs import UNSENT, Job
from minilambda.broker.registry import Worker
from minilambda.messages import Acknowledge, Done, JobRef, Message, Report, Returned

if TYPE_CHECKING:
    from minilambda.broker.core import Core


class JobSide:
    """The handlers of these words.

    ``find`` gives the session of a message, if the broker knows it; ``hear`` takes over the queue length in it.
    """

    def __init__(
        self,
        core: Core,
        find: Callable[[Route, Any, float], Worker | None],
        hear: Callable[[Worker, Report | Done | Returned], None],
        bodies: BodySide,
    ) -> None:
        self._core = core
        self._find = find
        self._hear = hear
        self._collect = bodies.collect
        self.handlers: dict[type[Message], Callable[[Route, str, Any, float], None]] = {
            Done: self._done,
            Returned: self._returned,
        }

    def _mine(self, worker: Worker, ref: JobRef) -> Job | None:
        """The job of a reference, if the worker has that very attempt of it and has not finished it."""
        job = worker.jobs.get((ref.principal, ref.job))
        return job if job is not None and job.attempt == ref.attempt else None

    def _done(self, route: Route, principal: str, message: Done, now: float) -> None:
        core, find, hear = self._core, self._find, self._hear
        worker = find(route, message, now)
        if worker is None:
            return
        ref = message.ref
        if core.unclaimed.refs and core.unclaimed.has(worker, ref):
            hear(worker, message)  # it keeps the result until the job is claimed
            return
        key = ref[:2]
        job = worker.jobs.get(key)
        leaving = job is None
        if job is None:
            job = worker.leaving.get(key)
        if job is None or job.attempt != ref.attempt or (message.withheld and job.sequence == UNSENT):
            core.count("stale_result")
            hear(worker, message)
            core.send(route, Acknowledge(worker.session, ref, stale=not core.answered(ref)))
            return
        if leaving and any(item.job is job for item in worker.arrivals.values()):
            core.count("stale_result")
            return
        bodies = {"stdout": message.stdout, "stderr": message.stderr, "value": message.value}
        if message.collected:
            bodies["collected"] = message.collected
        if job.recalled:
            core.placement.recall_over(job)
        if message.withheld:
            worker.let_go(job)
            worker.leaving[key] = job
            job.leaving_since = now
            hear(worker, message)
            self._collect(worker, job, message.result, bodies, message.withheld, now)
            return
        # All is here: the job leaves the worker before the load is measured, so that this need not be done again.
        if not worker.let_go(job):
            del worker.leaving[key]
        job.worker = None
        hear(worker, message)
        core.end_at(worker, job, message.result, bodies, now)

    def _returned(self, route: Route, principal: str, message: Returned, now: float) -> None:
        core = self._core
        worker = self._find(route, message, now)
        if worker is None:
            return
        job = self._mine(worker, message.ref)
        if core.unclaimed.has(worker, message.ref):
            if not message.begun:
                core.unclaimed.given_back(message.ref)
        elif job is None:
            core.count("stale_return")
        elif message.begun:
            job.begun, job.asked_back = True, False
            core.placement.recall_over(job)
        else:
            # Only a worker that drains hands jobs back unasked, whether it has said so yet or not.
            worker.draining = worker.draining or not job.recalled
            job.holder = ""
            worker.let_go(job)
            self._hear(worker, message)
            core.requeue(job, now)
            return
        self._hear(worker, message)
