"""Output of jobs to those who follow them, while they run and when they have ended.

The broker keeps nothing of it. While a worker has the job, that sends what each follower may have (``watch``); every
piece is checked, and goes on to the client. Once the job has ended, the broker serves the rest from the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from minilambda.broker.events import Route
from minilambda.broker.input_side import InputSide
from minilambda.broker.jobs import Job
from minilambda.broker.live import MAX_FOLLOWERS, Follower, LiveJobs, pace
from minilambda.broker.registry import Worker
from minilambda.errors import Busy, Expired, RequestError
from minilambda.messages import (
    Allow,
    Credit,
    Feed,
    Follow,
    Followed,
    Input,
    Message,
    Output,
    Refused,
    Reply,
    Unfollow,
    Unwatch,
    Watch,
    Written,
)

if TYPE_CHECKING:
    from minilambda.broker.core import Core

PIECE = 64 * 1024
"""Output in one message, at most, bytes."""

BEHIND = "Too much waits to be read by this connection, or by all; ask again later."

FindJob = Callable[[str, str, str], Job]
FindWorker = Callable[[Route, Any, float], "Worker | None"]
Handlers = dict[type[Message], Callable[[Route, str, Any, float], None]]


class StreamSide:
    """The handlers of these messages, and what the steps of a job's life mean for those who follow or feed it.

    Where ``jobs`` is empty, none of these steps has anything to do.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._live = LiveJobs()
        self._inputs = InputSide(core, self._live)
        self.jobs = self._live.jobs  # those that are followed or fed

    def for_clients(self, find: FindJob) -> Handlers:
        """The handlers of clients' messages. ``find``: the job of a sender, an id and, for an admin, an owner."""
        self._find_job = find
        self._inputs.find_job = find
        return {Follow: self._follow, Credit: self._credit, Unfollow: self._unfollow, Input: self._inputs.input}

    def for_workers(self, find: FindWorker) -> Handlers:
        """The handlers of workers' messages. ``find``: the session of a message, if the broker knows it."""
        self._find_worker = find
        return {Written: self._written, **self._inputs.for_workers(find)}

    def check(self) -> None:
        """Raise ``InvariantError`` where something does not fit together."""
        self._live.check(self._core.jobs)

    # --- clients ---------------------------------------------------------------------------------

    def _follow(self, route: Route, principal: str, message: Follow, now: float) -> None:
        job = self._find_job(principal, message.job, message.principal)
        known = self._live.find(route[0], message.request)
        if known is not None:
            self._leave(known)
        if job.worker is not None:
            pace(job, now)
        credit = min(message.credit, self._core.settings.window_bytes)
        follower = Follower(job, route, message.request, credit, message.attempt, message.stdout, message.stderr)
        followers = self._live.add(follower)
        if len(followers) > MAX_FOLLOWERS:
            self._dismiss(followers[0], Busy("Too many follow this job; follow it again later."))
        if job.ended:
            self._serve(follower)
        elif job.worker is not None and job.key in job.worker.jobs:
            self._watch(follower, job.worker)
        elif job.worker is None:
            self._caught_up(follower, "stdout")

    def _credit(self, route: Route, principal: str, message: Credit, now: float) -> None:
        follower = self._live.find(route[0], message.request)
        if follower is None:
            return  # it has just been answered
        job, more = follower.job, min(message.bytes, self._core.settings.window_bytes - follower.credit)
        follower.credit += more
        if job.ended:
            self._serve(follower)
        else:
            follower.owed += more
            self._allow(follower, 0)

    def _allow(self, follower: Follower, left: int) -> None:
        """Tell the worker of new credit once it is much, or of the old one no more than ``left`` bytes are left.

        So a client can't make the worker hear more words than it says itself.
        """
        job, owed = follower.job, follower.owed
        if owed and follower.number and job.worker and (owed >= PIECE or follower.credit - owed <= left):
            follower.owed = 0
            self._core.tell(job.worker, Allow(job.worker.session, job.ref, follower.number, owed), job)

    def _unfollow(self, route: Route, principal: str, message: Unfollow, now: float) -> None:
        follower = self._live.find(route[0], message.request)
        if follower is not None:
            self._leave(follower)
            self._finish(follower)

    # --- workers ---------------------------------------------------------------------------------

    def _written(self, route: Route, principal: str, message: Written, now: float) -> None:
        core = self._core
        worker = self._find_worker(route, message, now)
        if worker is None:
            return
        follower = self._live.numbered(message.follower)
        job = None if follower is None else follower.job
        if follower is None or job is None or job.worker is not worker or job.ref != message.ref:
            core.count("stale_piece")
            return
        stream, size = message.stream, len(message.data)
        if not size and message.offset == follower.offset(stream):
            self._caught_up(follower, stream)
            return
        if message.offset != follower.offset(stream) or not 0 < size <= min(PIECE, follower.credit):
            core.count("bad_piece")
            return
        follower.sent(stream, size)
        told = Output(follower.request, job.key[1], follower.attempt, stream, message.offset, message.data)
        core.send(follower.route, told)
        self._allow(follower, PIECE)

    def _caught_up(self, follower: Follower, stream: str) -> None:
        """It has all that there was when it came; it is told so once, by a piece without data."""
        if not follower.caught_up:
            follower.caught_up = True
            told = Output(follower.request, follower.job.key[1], follower.attempt, stream, follower.offset(stream))
            self._core.send(follower.route, told)

    def _watch(self, follower: Follower, worker: Worker) -> None:
        """The worker that has the job is to send what the follower may have."""
        job = follower.job
        follower.turn_to(job.attempt)
        self._live.number(follower)
        follower.owed = 0
        watch = Watch(worker.session, job.ref, follower.number, follower.stdout, follower.stderr, follower.credit)
        self._core.tell(worker, watch, job)

    # --- the life of a job -----------------------------------------------------------------------

    def arrived(self, job: Job) -> None:
        """A worker has the job, from now on or in another session."""
        live = self.jobs.get(job.key)
        if live is not None and job.worker is not None:
            self._inputs.interrupted(live)
            for follower in live.followers:
                self._watch(follower, job.worker)

    def left(self, job: Job) -> None:
        """No worker has the job any more, and it has not ended."""
        live = self.jobs.get(job.key)
        if live is not None:
            self._inputs.interrupted(live)
            for follower in live.followers:
                self._live.unnumber(follower)

    def ended(self, job: Job) -> None:
        live = self.jobs.get(job.key)
        if live is not None:
            self._inputs.ended(live)
            for follower in list(live.followers):
                self._live.unnumber(follower)
                self._serve(follower)

    def forgotten(self, job: Job, error: RequestError | None = None) -> None:
        """The job is not here any more: because of ``error``, or because its result was kept for its time."""
        live = self.jobs.get(job.key)
        if live is not None:
            self._inputs.forgotten(live, error or Expired())
            for follower in list(live.followers):
                self._dismiss(follower, error or Expired())
            self.jobs.pop(job.key, None)

    def _serve(self, follower: Follower) -> None:
        """Send of an ended job what the follower may have, and the last word where that was all."""
        job = follower.job
        follower.turn_to(job.attempt)
        # Without copies: what those don't read who ask for it over and over would fill the memory.
        for stream, body in (("stdout", memoryview(job.stdout)), ("stderr", memoryview(job.stderr))):
            while (offset := follower.offset(stream)) < len(body):
                piece = body[offset : offset + min(PIECE, follower.credit)]
                if not piece:
                    return
                follower.sent(stream, len(piece))
                told = Output(follower.request, job.key[1], job.attempt, stream, offset, cast("bytes", piece))
                self._core.send(follower.route, told)
        self._live.remove(follower)
        self._finish(follower)

    # --- the end of following --------------------------------------------------------------------

    def cut(self, connections: frozenset[bytes]) -> None:
        """Nothing is sent to these connections any more."""
        self._inputs.cut(connections)
        for connection in connections:
            for follower in self._live.of_connection(connection):
                self._leave(follower)

    def behind(self, route: Route, message: Message) -> None:
        """A message was dropped, as too much waits for its peer. It is told so in a few bytes, and may ask again."""
        if type(message) is Refused or not isinstance(message, Reply):
            return
        for follower in self._live.of_connection(route[0]):
            self._dismiss(follower, Busy(BEHIND))
        if type(message) is not Output:
            self._core.refuse(route, message, Busy(BEHIND))

    def unreachable(self, route: Route, message: Message) -> None:
        """A message could not be sent. A client that is still there follows again, and sends its input again."""
        if type(message) is Feed:
            self._inputs.lost(message)
        if self.jobs and isinstance(message, Reply):
            for follower in self._live.of_connection(route[0]):
                self._leave(follower)

    def _leave(self, follower: Follower) -> None:
        """Somebody follows no more; its worker is told."""
        job = follower.job
        if follower.number and job.worker is not None:
            self._core.tell(job.worker, Unwatch(job.worker.session, job.ref, follower.number), job)
        self._live.remove(follower)

    def _dismiss(self, follower: Follower, error: RequestError) -> None:
        self._leave(follower)
        self._core.refuse(follower.route, Followed(follower.request, follower.job.key[1], 0, "queued"), error)

    def _finish(self, follower: Follower) -> None:
        job = follower.job
        self._core.reply(follower.route, Followed(follower.request, job.key[1], follower.attempt, job.shown), job)
