"""Bodies that travel in pieces between the broker and its workers: modules and inputs out, results in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minilambda.broker.arrivals import MAX_RESULT_BYTES, arrival
from minilambda.broker.events import ModuleSlice, Route
from minilambda.broker.jobs import Job
from minilambda.broker.registry import Worker
from minilambda.broker.views import failed
from minilambda.fields import MAX_FRAME
from minilambda.messages import Acknowledge, Chunk, Fetch, Message, Result

if TYPE_CHECKING:
    from minilambda.broker.core import Core


class BodySide:
    """The handlers of pieces. ``find`` gives the session of a message, if the broker knows it."""

    def __init__(self, core: Core, find: Callable[[Route, Any, float], Worker | None]) -> None:
        self._core = core
        self._find = find
        self.handlers: dict[type[Message], Callable[[Route, str, Any, float], None]] = {
            Fetch: self._fetch,
            Chunk: self._chunk,
        }

    def collect(
        self, worker: Worker, job: Job, result: Result, bodies: dict[str, bytes], withheld: dict[str, int], now: float
    ) -> None:
        """The worker has finished a job and waits to be asked for the bodies in ``withheld`` (name to size)."""
        coming = arrival(job, result, bodies, withheld)
        if not coming.missing:
            self._core.end_at(worker, job, result, bodies, now)
            return
        if sum(size for _, size in coming.missing.values()) > MAX_RESULT_BYTES:
            text = f"The output is larger than the {MAX_RESULT_BYTES} bytes that the broker takes."
            self._core.end_at(worker, job, failed("output_limit", text), {}, now)
            return
        if not worker.arrivals:
            worker.moved_at = now
        for handle, (_, size) in coming.missing.items():
            worker.arrivals[handle] = coming
            worker.puller.start(handle, size)
        self._pull(worker)

    def _fetch(self, route: Route, principal: str, message: Fetch, now: float) -> None:
        """A worker asks for a piece of a module, of a file or of an input, of jobs that it has."""
        core = self._core
        worker = self._find(route, message, now)
        if worker is None:
            return
        handle, offset = message.handle, message.offset
        if handle.startswith("sha256:") and worker.needs(handle):
            total = core.modules.size(handle)
            size = max(0, min(message.size, MAX_FRAME, total - offset))
            part = ModuleSlice("data", handle, offset, size) if size else None
            core.send(route, Chunk(worker.session, handle, offset, total), part)
            return
        body = self._input(worker, handle)
        if not body:
            core.count("unknown_handle")
        data = body[offset : offset + min(message.size, MAX_FRAME)]
        core.send(route, Chunk(worker.session, handle, offset, len(body), data))

    def _input(self, worker: Worker, handle: str) -> bytes:
        """The body of a handle; empty where the worker has no such job."""
        name, _, rest = handle.partition("/")
        attempt, _, rest = rest.partition("/")
        body, _, principal = rest.partition("/")
        job = worker.jobs.get((principal, name))
        if job is None or attempt != str(job.attempt):
            return b""
        return job.stdin if body == "stdin" else job.values if body == "values" else b""

    def _chunk(self, route: Route, principal: str, message: Chunk, now: float) -> None:
        worker = self._find(route, message, now)
        if worker is None:
            return
        piece = worker.puller.arrived(message.handle, message.offset, message.total, message.data)
        if piece is None:
            self._core.count("unknown_handle")
            return
        coming = worker.arrivals[message.handle]
        if piece.total < 0:
            self._core.count("bad_chunk")
            self.give_up(worker, coming.job, now)
            return
        worker.moved_at = now
        if piece.complete:
            del worker.arrivals[message.handle]
            name, _ = coming.missing.pop(message.handle)
            coming.bodies[name] = b"".join(piece.pieces)
            if not coming.missing:
                self._core.end_at(worker, coming.job, coming.result, coming.bodies, now)
        self._pull(worker)

    def _pull(self, worker: Worker) -> None:
        """Ask for the next pieces of results."""
        for handle, offset, size in worker.puller.requests():
            self._core.send(worker.route, Fetch(worker.session, handle, offset, size))

    def give_up(self, worker: Worker, job: Job, now: float) -> None:
        """The result of a job can't be had: as good as if the worker had been lost with it."""
        for handle in [handle for handle, item in worker.arrivals.items() if item.job is job]:
            del worker.arrivals[handle]
            worker.puller.stop(handle)
        ref = job.ref
        job.holder = ""
        self._core.lose(job, now)
        self._core.tell(worker, Acknowledge(worker.session, ref, stale=True), job)
        self._pull(worker)
