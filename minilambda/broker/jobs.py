"""A job and the states that it can be in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minilambda.broker.events import Route
from minilambda.errors import MinilambdaError
from minilambda.messages import TERMINAL, JobRef, JobSpec, Result

if TYPE_CHECKING:
    from minilambda.broker.registry import Worker

JobKey = tuple[str, str]
"""Principal and job id: the same id of another principal is another job."""

TRANSITIONS: dict[tuple[str, str], str] = {
    ("queued", "dispatch"): "assigned",
    ("queued", "adopt"): "assigned",  # the worker taken for lost is back with this very attempt
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

STORY_LENGTH = 32
"""Events of its life that a job remembers, at most."""


class InvariantError(MinilambdaError):
    """The broker found itself in a state that must not be. The text tells the story of the job."""

    sentence = "The broker found itself in a state that must not be."


@dataclass(frozen=True, slots=True)
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
    stdin: bytes  # emptied at the end
    values: bytes  # emptied at the end
    cost: int  # what spec and input take in memory, bytes
    number: int  # order of acceptance
    accepted_at: float  # seconds
    queued_since: float  # start of the present or last wait in the queue, seconds
    waited: float = 0.0  # earlier waits in the queue, seconds
    state: str = "queued"
    attempt: int = 0  # the latest attempt; 0 before the first
    losses: int = 0  # workers lost with the job
    worker: Worker | None = None  # that has the job now
    holder: str = ""  # id of the worker that may still have the latest attempt
    ran_on: str = ""  # name of the worker of the latest attempt
    begun: bool = False  # the worker said that the guest has started, so no recall
    recalled: bool = False  # a recall is on its way
    cancelling: bool = False  # a cancel was asked for while a worker had the job
    leaving_since: float = 0.0  # when the result was first heard of, seconds
    waiters: dict[bytes, Waiter] = field(default_factory=dict)  # by connection, oldest first
    entry: tuple[Any, ...] | None = None  # the job's place in the queue; the queue's own
    result: Result | None = None  # once ended
    stdout: bytes = b""  # once ended
    stderr: bytes = b""  # once ended
    value: bytes = b""  # once ended
    ended_at: float = 0.0  # seconds
    content: bytes = b""  # hash of the emptied input, once ended
    story: list[tuple[float, str]] = field(default_factory=list)  # (seconds, event), the latest ones

    @property
    def ref(self) -> JobRef:
        """The latest attempt."""
        return JobRef(self.key[0], self.key[1], self.attempt)

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def kept_bytes(self) -> int:
        """What the ended job takes in memory, about."""
        return self.cost + len(self.stdout) + len(self.stderr) + len(self.value)

    def move(self, event: str, now: float) -> None:
        """Go to the next state. Raises ``InvariantError`` where there is none."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise InvariantError(self.tell(f"{event} is not possible when {self.state}"))
        story = self.story
        if len(story) >= STORY_LENGTH:
            del story[: STORY_LENGTH // 2]
        story.append((now, event))
        self.state = after

    def end(self, result: Result, bodies: dict[str, bytes], now: float) -> None:
        """Take the terminal state of ``result``. Raises ``InvariantError`` when the job has ended before."""
        self.move(ENDING[result.state], now)
        self.result, self.ended_at = result, now
        self.stdout, self.stderr = bodies.get("stdout", b""), bodies.get("stderr", b"")
        self.value = bodies.get("value", b"")
        self.content = _content(self.stdin, self.values)
        self.cost -= len(self.stdin) + len(self.values)
        self.stdin = self.values = b""
        self.worker, self.holder = None, ""

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


def _content(stdin: bytes, values: bytes) -> bytes:
    if not stdin and not values:
        return b""
    hasher = hashlib.blake2b(len(stdin).to_bytes(8, "big"), digest_size=16)
    hasher.update(stdin)
    hasher.update(values)
    return hasher.digest()
