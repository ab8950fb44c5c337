"""What goes on between running guests and those who follow or feed them. Pure: a shell reads and writes.

A guest writes to memory files that the agent can read at any time. While somebody follows a job, they are measured
again and again, and what is new goes out in pieces, to each follower as far as its credit reaches. A guest whose
input goes on after its start has a pipe: what does not fit is tried again. Of other jobs nothing is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from minilambda.messages import Allow, Fed, Feed, JobRef, Unwatch, Watch, Written
from minilambda.worker import actions as a
from minilambda.worker import events as e
from minilambda.worker.inlet import Inlet
from minilambda.worker.jobs import InvariantError, Job
from minilambda.worker.slots import Slots

LOOK_EVERY, LOOK_SOON = 0.02, 0.002
"""How often the output of a job is measured that somebody follows: while its guest is quiet, and just after it wrote or
got input; seconds."""

LOOK_AGAIN = 0.001
"""It is measured so soon again where there was more than one piece for somebody, seconds."""

PIECE = 64 * 1024
"""Output in one message, at most, bytes."""

MAX_WATCHERS = 64
"""Followers of one job, at most: the broker has no more."""


@dataclass(slots=True)
class Watcher:
    """One follower."""

    credit: int  # so much more may be sent, bytes
    stdout: int  # all before this offset was sent, bytes
    stderr: int  # likewise
    there: tuple[int, int] | None = None  # what there was of both streams when it came, bytes; None: not measured yet
    caught_up: bool = False  # it was told that it has all of that


@dataclass(slots=True, eq=False)
class LiveJob:
    """A job that somebody follows, or that can be fed."""

    job: Job
    watchers: dict[int, Watcher] = field(default_factory=dict)  # by number
    inlet: Inlet | None = None  # None: all its input is there at its start
    look_at: float = math.inf  # when to measure its output, seconds; ``inf``: nobody may be sent any
    pause: float = LOOK_EVERY  # until the next look but one, seconds

    def begin(self, now: float) -> None:
        """Its guest starts, or starts once more."""
        if self.inlet is not None:
            self.inlet.refill(self.job.stdin, now)
        self.want(now)

    def stir(self, now: float) -> None:
        """Its guest is not quiet: look soon, where there is a reason to look at all."""
        self.pause = LOOK_SOON
        if self.look_at < math.inf:
            self.look_at = min(self.look_at, now + LOOK_SOON)

    def want(self, now: float) -> None:
        """Measure at the next occasion, where somebody may be sent something."""
        self.look_at = now if any(each.credit for each in self.watchers.values()) else math.inf


class Live:
    """All of that. ``say`` takes the words to the broker: the kind and its fields, but the session."""

    def __init__(
        self,
        slots: Slots,
        emit: Callable[[a.Action], None],
        say: Callable[..., None],
    ) -> None:
        self._slots = slots
        self._emit = emit
        self._say = say
        self.jobs = slots.live  # the slots see to it that what begins is looked at

    # --- jobs ---

    def open(self, job: Job) -> None:
        """A new job can be fed."""
        self.jobs[job.ref] = LiveJob(job, inlet=Inlet())

    def spent(self, job: Job) -> bool:
        """Whether the job can't begin once more: its guest's pipe had input that nobody has any more."""
        live = self.jobs.get(job.ref)
        return live is not None and live.inlet is not None and live.inlet.received > 0

    def forget(self, ref: JobRef) -> None:
        """The job has ended, or left."""
        self.jobs.pop(ref, None)

    def leave_session(self) -> None:
        """The broker says anew who follows, and input that has not been taken comes again."""
        for live in list(self.jobs.values()):
            live.watchers.clear()
            live.look_at = math.inf
            if live.inlet is not None:
                live.inlet.drop()
            else:
                del self.jobs[live.job.ref]

    # --- the broker's words ---

    def hear(self, job: Job, message: Watch | Allow | Unwatch | Feed, now: float) -> None:
        """A word about a job that the worker holds."""
        if isinstance(message, Watch):
            self._watch(job, message, now)
            return
        live = self.jobs.get(job.ref)
        if live is None:
            return
        if isinstance(message, Feed):
            self._feed(live, message, now)
        elif isinstance(message, Allow):
            self._allow(live, message, now)
        else:
            self._unwatch(live, message)

    def _watch(self, job: Job, message: Watch, now: float) -> None:
        live = self.jobs.get(job.ref)
        if live is None:
            live = self.jobs[job.ref] = LiveJob(job)
        if len(live.watchers) < MAX_WATCHERS:
            watcher = Watcher(message.credit, message.stdout, message.stderr)
            live.watchers[message.follower] = watcher
            live.want(now)
            if not any(each is live for _, each in self._running()):
                watcher.there = (0, 0)  # its guest has not begun
                self._tell_caught_up(live, message.follower, watcher)

    def _allow(self, live: LiveJob, message: Allow, now: float) -> None:
        watcher = live.watchers.get(message.follower)
        if watcher is not None:
            watcher.credit += message.bytes
            live.want(now)

    def _unwatch(self, live: LiveJob, message: Unwatch) -> None:
        if live.watchers.pop(message.follower, None) is None or live.watchers:
            return
        live.look_at = math.inf
        if live.inlet is None:
            del self.jobs[live.job.ref]

    def _feed(self, live: LiveJob, message: Feed, now: float) -> None:
        if live.inlet is not None:
            live.inlet.offer(message.number, message.offset, message.data, message.eof, now)
            self._tell_fed(live, live.inlet)

    def _tell_fed(self, live: LiveJob, inlet: Inlet) -> None:
        number = inlet.answer()
        if number is not None:
            self._say(Fed, live.job.ref, number, inlet.received)

    # --- time ---

    def tick(self, now: float) -> None:
        """Looks at the running guests that it is time for."""
        for index, live in self._running():
            if now >= live.look_at:
                live.look_at = now + live.pause
                live.pause = min(LOOK_EVERY, 2 * live.pause)
                self._emit(a.Measure(index))
            if live.inlet is not None and now >= live.inlet.pour_at:
                self._pour(index, live.inlet, now)

    def next_deadline(self) -> float:
        """When ``tick`` must be called at the latest, seconds; ``inf``: not before something happens."""
        times = (
            min(live.look_at, math.inf if live.inlet is None else live.inlet.pour_at) for _, live in self._running()
        )
        return min(times, default=math.inf)

    def _running(self) -> Iterator[tuple[int, LiveJob]]:
        for slot in self._slots.all if self.jobs else ():
            if slot.job is not None and slot.state == "busy":
                live = self.jobs.get(slot.job.ref)
                if live is not None:
                    yield slot.index, live

    def _pour(self, index: int, inlet: Inlet, now: float) -> None:
        data, last = inlet.next()
        inlet.tried(now)
        self._emit(a.Pour(index, data, last))

    # --- the shell's answers ---

    def _at(self, slot: int) -> LiveJob | None:
        job = self._slots[slot].job
        return None if job is None else self.jobs.get(job.ref)

    def measured(self, event: e.Measured, now: float) -> bool:
        """Asks for one piece of each stream for each follower that has not got all of it; False where there is none."""
        live = self._at(event.slot)
        if live is None:
            return False
        found = False
        for number, watcher in live.watchers.items():
            if watcher.there is None:
                watcher.there = (event.stdout, event.stderr)
                self._tell_caught_up(live, number, watcher)
            room = watcher.credit
            for stream, begin, end in (
                ("stdout", watcher.stdout, event.stdout),
                ("stderr", watcher.stderr, event.stderr),
            ):
                size = min(PIECE, room, end - begin)
                if size > 0:
                    room -= size
                    found = True
                    self._emit(a.ReadOutput(event.slot, number, stream, begin, size))
                    if begin + size < end:
                        live.look_at = now + LOOK_AGAIN
        return found

    def read(self, event: e.OutputRead, now: float) -> None:
        live = self._at(event.slot)
        watcher = None if live is None else live.watchers.get(event.follower)
        if live is None or watcher is None or not event.data:
            return
        watcher.credit -= len(event.data)
        if event.stream == "stdout":
            watcher.stdout += len(event.data)
        else:
            watcher.stderr += len(event.data)
        self._say(Written, live.job.ref, event.follower, event.stream, event.offset, event.data)
        self._tell_caught_up(live, event.follower, watcher)
        live.stir(now)
        if not any(each.credit for each in live.watchers.values()):
            live.look_at = math.inf

    def _tell_caught_up(self, live: LiveJob, number: int, watcher: Watcher) -> None:
        """A follower that has all that there was when it came is told so, once, by a piece without data."""
        stdout, stderr = watcher.there or (math.inf, math.inf)
        if not watcher.caught_up and watcher.stdout >= stdout and watcher.stderr >= stderr:
            watcher.caught_up = True
            self._say(Written, live.job.ref, number, "stdout", watcher.stdout, b"")

    def poured(self, event: e.Poured, now: float) -> None:
        live = self._at(event.slot)
        if live is None or live.inlet is None:
            return
        inlet = live.inlet
        inlet.poured(event.size, now)
        if event.size:
            live.stir(now)
        self._tell_fed(live, inlet)
        if now >= inlet.pour_at:
            self._pour(event.slot, inlet, now)

    def check(self, jobs: dict[JobRef, Job]) -> None:
        """Raises ``InvariantError`` when the state contradicts itself."""
        for ref, live in self.jobs.items():
            if jobs.get(ref) is not live.job or (not live.watchers and live.inlet is None):
                raise InvariantError(f"{ref} is followed or fed, and should not be.")
            if any(each.credit < 0 for each in live.watchers.values()) or len(live.watchers) > MAX_WATCHERS:
                raise InvariantError(f"{ref} has followers that have got too much, or too many.")
            if live.inlet is not None and live.job.spec.stream is False:
                raise InvariantError(f"{ref} can be fed, and its guest has no pipe.")
