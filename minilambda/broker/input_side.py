"""Input for running jobs, on its way from clients through the broker to the worker.

The broker keeps none of it: a client sends a piece again until it is told that the guest's pipe has it. One piece of a
job is on its way at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minilambda.broker.events import Route
from minilambda.broker.jobs import Job
from minilambda.broker.live import Live, LiveJobs, Pending
from minilambda.broker.registry import Worker
from minilambda.errors import BadRequest, Busy, Conflict, InputTooLarge, RequestError
from minilambda.fields import MAX_FRAME
from minilambda.messages import Fed, Feed, Input, Message, Taken

if TYPE_CHECKING:
    from minilambda.broker.core import Core

SOON = 0.05
"""A client whose input comes too early sends it again after so long, seconds."""


class InputSide:
    """The handlers of input. ``find_job`` is as ``StreamSide.for_clients`` gets it."""

    def __init__(self, core: Core, live: LiveJobs) -> None:
        self._core = core
        self._live = live
        self.find_job: Callable[[str, str, str], Job]

    def for_workers(
        self, find: Callable[[Route, Any, float], Worker | None]
    ) -> dict[type[Message], Callable[[Route, str, Any, float], None]]:
        self._find_worker = find
        return {Fed: self._fed}

    def input(self, route: Route, principal: str, message: Input, now: float) -> None:
        job = self.find_job(principal, message.job, "")
        if not job.spec.stream:
            raise BadRequest("The job takes no input while it runs: its spec does not say stream.")
        if len(message.data) > MAX_FRAME:
            raise InputTooLarge(f"The piece has {len(message.data)} bytes, {MAX_FRAME} are taken at a time.")
        live = self._live.of(job)
        try:
            self._take(live, route, message)
        finally:
            self._live.tidy(live)

    def _take(self, live: Live, route: Route, message: Input) -> None:
        job, end = live.job, message.offset + len(message.data)
        if live.ends is not None and end > live.ends:
            raise Conflict(f"The job's input ended at {live.ends} bytes.")
        if job.ended:
            if end > live.received:
                raise Conflict(f"The job has ended; it got {live.received} bytes of input.")
            self._core.reply(route, Taken(message.request, job.key[1], live.received), job)
            return
        worker, pending = job.worker, live.pending
        if worker is None or job.key not in worker.jobs:
            raise Busy("No worker has the job now.", SOON)
        if pending is not None:
            if (pending.offset, pending.end, pending.eof) != (message.offset, end, message.eof):
                raise Busy("Other input of the job is on its way; send this when that is taken.", SOON)
            if (pending.route[0], pending.request) != (route[0], message.request):
                self._again(live, pending)
            pending.route, pending.request = route, message.request  # it is the same piece, so it is on its way
            return
        number = self._live.next_number()
        live.pending = Pending(route, message.request, number, message.offset, end, message.eof)
        feed = Feed(worker.session, job.ref, number, message.offset, message.eof, message.data)
        self._core.tell(worker, feed, job)

    def _fed(self, route: Route, principal: str, message: Fed, now: float) -> None:
        core = self._core
        worker = self._find_worker(route, message, now)
        if worker is None:
            return
        ref = message.ref
        live = self._live.jobs.get((ref.principal, ref.job))
        pending = None if live is None else live.pending
        if live is None or pending is None or pending.number != message.number or live.job.worker is not worker:
            core.count("stale_piece")
            return
        received = live.received = message.received
        live.pending, problem = None, ""
        if pending.offset <= received < pending.end:  # the guest's pipe is closed, since before this broker began
            live.ends, problem = received, f"The job's input ended at {received} bytes."
        elif pending.eof and pending.end < received:
            problem = f"The job has {received} bytes of input; it can't end at {pending.end}."
        elif pending.eof and pending.end == received:
            live.ends = received
        self._answer(live, pending, problem)
        self._live.tidy(live)

    def _answer(self, live: Live, pending: Pending, problem: str = "") -> None:
        job, taken = live.job, Taken(pending.request, live.job.key[1], live.received)
        if live.received < pending.offset:
            problem = f"The job has {live.received} bytes of input; the next piece must begin there."
        if problem:
            self._core.refuse(pending.route, taken, Conflict(problem))
        else:
            self._core.reply(pending.route, taken, job)

    def _again(self, live: Live, pending: Pending) -> None:
        text = "The input has not been taken; send it again."
        self._core.refuse(pending.route, Taken(pending.request, live.job.key[1], 0), Busy(text, SOON))

    def lost(self, message: Feed) -> None:
        """This could not be sent to the worker."""
        live = self._live.jobs.get((message.ref.principal, message.ref.job))
        if live is not None and live.pending is not None and live.pending.number == message.number:
            self.interrupted(live)

    # --- the life of a job -----------------------------------------------------------------------

    def interrupted(self, live: Live) -> None:
        """What is on its way may not arrive."""
        pending, live.pending = live.pending, None
        if pending is not None:
            self._again(live, pending)
        self._live.tidy(live)

    def ended(self, live: Live) -> None:
        """The job takes no more."""
        pending, live.pending = live.pending, None
        if pending is not None:
            self._answer(live, pending)
        self._live.tidy(live)

    def forgotten(self, live: Live, error: RequestError) -> None:
        pending, live.pending = live.pending, None
        if pending is not None:
            self._core.refuse(pending.route, Taken(pending.request, live.job.key[1], 0), error)

    def cut(self, connections: frozenset[bytes]) -> None:
        """Nobody is answered there any more."""
        for live in list(self._live.jobs.values()):
            if live.pending is not None and live.pending.route[0] in connections:
                live.pending = None
                self._live.tidy(live)
