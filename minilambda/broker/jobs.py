"""A job and the states that it can be in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minilambda.broker.events import Route
from minilambda.errors import MinilambdaError
from minilambda.messages import TERMINAL, JobRef, JobSpec, Result

if TYPE_CHECKING:
    from minilambda.broker.queue import Share
    from minilambda.broker.records import Called, JobEnded
    from minilambda.broker.registry import Worker

JobKey = tuple[str, str]
"""Principal and job id: the same id of another principal is another job."""

TRANSITIONS: dict[tuple[str, str], str] = {
    ("queued", "dispatch"): "assigned",
    ("queued", "adopt"): "assigned",  # the worker taken for lost is back with this very attempt
    ("queued", "hold"): "limbo",  # the broker was restarted: a worker may come back with it
    ("limbo", "adopt"): "assigned",
    ("limbo", "requeue"): "queued",
    ("limbo", "fail"): "failed",
    ("limbo", "cancel"): "cancelled",
    ("queued", "fail"): "failed",
    ("queued", "cancel"): "cancelled",
    ("assigned", "start"): "running",
    ("assigned", "requeue"): "queued",
    ("assigned", "complete"): "completed",
    ("assigned", "fail"): "failed",
    ("assigned", "cancel"): "cancelled",
    ("running", "requeue"): "queued",
    ("running", "complete"): "completed",
    ("running", "fail"): "failed",
    ("running", "cancel"): "cancelled",
}
"""(state, event) to the next state. A pair that is not here is a mistake of the broker's."""

ENDING: dict[str, str] = {"completed": "complete", "failed": "fail", "cancelled": "cancel"}
"""Terminal state to the event that leads there."""

KEEP_INPUT = frozenset({"poisoned", "worker_lost"})
"""A job that failed like this can be run again with the input that it had."""

JOB_OVERHEAD = 2048
"""Counted for each job beside its texts and input, bytes."""

DIGEST_BYTES = 76
"""What a digest takes in a header, counted as any text, bytes."""

FILE_OVERHEAD = 192
"""Counted for each file of a job beside its texts, bytes."""

UNSENT = -1
"""The sequence number of a dispatch that waits for the disk."""

MAX_ATTEMPTS = 100_000
"""Workers can hand a job back for ever, or claim an attempt that nobody made: such a job does not run again."""

HANDED_BACK = f"The job was handed back by its workers until its attempts reached {MAX_ATTEMPTS}."

STORY_LENGTH = 32
"""Events of its life that a job remembers, at most."""


class InvariantError(MinilambdaError):
    """The broker found itself in a state that must not be. The text tells the story of the job."""

    sentence = "The broker found itself in a state that must not be."


@dataclass(slots=True)
class Waiter:
    """A request that is answered at the job's end."""

    route: Route
    request: int
    timed: bool  # there is a timer that answers it earlier


@dataclass(slots=True, eq=False)
class Job:
    """One job. Times are monotonic seconds, sizes are bytes."""

    key: JobKey
    spec: JobSpec
    stdin: bytes  # emptied at the end, but for KEEP_INPUT
    values: bytes  # emptied at the end, but for KEEP_INPUT
    cost: int  # what spec and input take in memory, bytes
    number: int  # order of acceptance
    accepted_at: float  # seconds
    queued_since: float  # start of the present or last wait in the queue, seconds
    waited: float = 0.0  # earlier waits in the queue, seconds
    state: str = "queued"
    attempt: int = 0  # the latest attempt; 0 before the first
    worker: Worker | None = None  # that has the job now
    holder: str = ""  # id of the worker that may still have the latest attempt
    ran_on: str = ""  # name of the worker of the latest attempt
    recalled: bool = False  # a recall is on its way
    waiters: tuple[Waiter, ...] = ()  # one of a connection, oldest first
    share: Share | None = None  # its group, while it waits and runs; the queue's own
    charged: float | None = None  # slot time charged for it and not settled, seconds; the queue's own
    sequence: int = 0  # of its dispatch in its worker's session; 0: the worker had it before; UNSENT
    dispatched_at: float = 0.0  # when the latest attempt was given to a worker, seconds
    expected: int = 0  # how long it will keep a slot, as was thought then, microseconds
    result: Result | None = None  # once ended
    stdout: bytes = b""  # once ended
    stderr: bytes = b""  # once ended
    value: bytes = b""  # once ended
    ended_at: float = 0.0  # seconds
    collected: bytes = b""  # once ended
    files: frozenset[str] = frozenset()  # digests of its files in the store, each once
    journaled: bool = False  # it outlives the broker
    saved: int = 0  # number of the write that has its latest record
    called: Called | None = None  # the function that it is a call of
    traceparent: str = ""  # of its caller, where traces are kept; "": none
    events: tuple[Any, ...] = ()  # of its story: seconds and name of the first, of the second, and so on
    # A job of the usual kind comes to its end without a look at these: the others share lines of the caches.
    losses: int = 0  # workers lost with the job
    begun: bool = False  # the worker said that the guest has started, so no recall
    asked_back: bool = False  # this attempt was recalled, and nobody has said that it was too late
    cancelling: bool = False  # a cancel was asked for while a worker had the job
    leaving_since: float = 0.0  # when the result was first heard of, seconds
    entry: tuple[Any, ...] | None = None  # the job's place in the queue; the queue's own
    content: bytes = b""  # hash of the input, once ended
    doubtful: bool = False  # sent before, unknown here, may not run twice: it ends if no worker is found to have it
    followed_to: float = 0.0  # it was followed as often as is fair until then, see ``live.pace``; seconds

    @property
    def ref(self) -> JobRef:
        """The latest attempt."""
        return ref_of(self)

    @property
    def story(self) -> list[tuple[float, str]]:
        """What happened to it: seconds and event, the latest ones."""
        return list(zip(self.events[::2], self.events[1::2], strict=True))

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def shown(self) -> str:
        """The state as clients know it."""
        return "queued" if self.state == "limbo" else self.state

    @property
    def function(self) -> str:
        """The function that it is a call of, as NAME@VERSION; "" where it is none."""
        return self.called.function if self.called is not None else ""

    @property
    def code(self) -> str:
        """Why it failed; "" where it has not."""
        return self.result.error.code if self.result is not None and self.result.error is not None else ""

    @property
    def retries(self) -> int:
        """Runs again at most so often after a lost worker: input that came meanwhile is lost with it."""
        return 0 if self.spec.stream else self.spec.retries

    def kept_bytes(self) -> int:
        """What the ended job takes in memory, about."""
        return self.cost + len(self.stdout) + len(self.stderr) + len(self.value) + len(self.collected)

    def move(self, event: str, now: float) -> None:
        """Go to the next state. Raises ``InvariantError`` where there is none."""
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise InvariantError(self.tell(f"{event} is not possible when {self.state}")) from None
        # One flat tuple: a job that ends is in none of the processor's caches, so each object that it has costs.
        events = self.events = (*self.events, now, event)
        if len(events) > 2 * STORY_LENGTH:
            self.events = events[STORY_LENGTH:]

    def take_waiter(self, connection: bytes) -> Waiter | None:
        """The request of a connection that waits for the job; it waits no more."""
        for waiter in self.waiters:
            if waiter.route[0] == connection:
                self.waiters = tuple(other for other in self.waiters if other is not waiter)
                return waiter
        return None

    def end(self, result: Result, bodies: dict[str, bytes], now: float) -> None:
        """Take the terminal state of ``result``. Raises ``InvariantError`` when the job has ended before."""
        self.move(ENDING[result.state], now)
        self.result, self.ended_at = result, now
        if bodies:
            self.stdout, self.stderr = bodies.get("stdout", b""), bodies.get("stderr", b"")
            self.value = bodies.get("value", b"")
            if "collected" in bodies:
                self.collected = bodies["collected"]
        if self.stdin or self.values:
            self.content = _content(self.stdin, self.values)
            if self.code not in KEEP_INPUT:
                self.cost -= len(self.stdin) + len(self.values)
                self.stdin = self.values = b""
        self.worker, self.holder = None, ""

    def restore(self, end: JobEnded, ended_at: float) -> None:
        """It ended in the time of an earlier broker."""
        self.state, self.result, self.ended_at = end.result.state, end.result, ended_at
        self.stdout, self.stderr, self.value, self.collected = end.stdout, end.stderr, end.value, end.collected
        self.content, self.losses, self.holder = end.content, end.losses, ""

    def same(self, spec: JobSpec, stdin: bytes, values: bytes) -> bool:
        """Whether a request asks for this very job."""
        if spec != self.spec:
            return False
        if self.result is None:
            return stdin == self.stdin and values == self.values
        return _content(stdin, values) == self.content

    def tell(self, problem: str) -> str:
        """One text with the problem and what happened to the job before."""
        story = ", ".join(f"{what} at {when:.6f}" for when, what in self.story)
        return f"job {self.key[1]!r} of {self.key[0]!r}: {problem}; attempt {self.attempt}; story: {story or 'none'}"


_new = tuple.__new__


def ref_of(job: Job) -> JobRef:
    """Its latest attempt. Each job needs two: to read a property or to call a class of ours takes twice as long."""
    return _new(JobRef, (*job.key, job.attempt))


def spec_bytes(spec: JobSpec) -> int:
    """What the texts of a spec take in a header, bytes."""
    total = 0
    for text in spec.args:
        total += len(text.encode()) + 5
    for name, text in spec.env.items():
        total += len(name.encode()) + len(text.encode()) + 10
    for path in spec.files:
        total += len(path.encode()) + 5 + DIGEST_BYTES
    for path in spec.collect:
        total += len(path.encode()) + 5
    return total


def cost_of(texts: int, stdin: bytes, values: bytes, files: int = 0) -> int:
    """What a job takes in memory, about, bytes; ``texts``: the ``spec_bytes`` of its spec; ``files``: their number."""
    return JOB_OVERHEAD + texts + len(stdin) + len(values) + files * FILE_OVERHEAD


def _content(stdin: bytes, values: bytes) -> bytes:
    if not stdin and not values:
        return b""
    hasher = hashlib.blake2b(len(stdin).to_bytes(8, "big"), digest_size=16)
    hasher.update(stdin)
    hasher.update(values)
    return hasher.digest()
