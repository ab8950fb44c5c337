"""A client's core in a conversation, on a virtual clock."""

from __future__ import annotations

from dataclasses import dataclass

from minilambda.client.calls import PIECE, Action, Patience, Send
from minilambda.client.core import Core
from minilambda.client.live import Heard
from minilambda.messages import (
    Credit,
    GetStatus,
    JobResult,
    JobSpec,
    JobStatus,
    Reply,
    Request,
    Result,
    Run,
    Unfollow,
    Welcome,
)

DIGEST = "sha256:" + "0" * 64
MIB = 1024 * 1024


@dataclass(frozen=True)
class Bytes:
    """A module, as far as the core looks at it."""

    size: int | None
    digest: str = DIGEST


SMALL, LARGE, UNKNOWN = Bytes(1000), Bytes(5 * PIECE // 2), Bytes(None)


class Talk:
    """One core, its clock, and what has come out of it."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.core = Core("tcp://broker:1", patience)
        self.now = 100.0
        self.sent: list[Send] = []
        self.heard: list[Heard] = []
        self.ended: dict[int, Reply | Exception] = {}

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.sent.append(action)
            elif isinstance(action, Heard):
                self.heard.append(action)
            else:
                assert action.call not in self.ended, "a call ends once"
                self.ended[action.call] = action.outcome

    def start(
        self, message: Request, source: Bytes | None = None, patience: float | None = None, beside: int = 0
    ) -> int:
        number, actions = self.core.start(message, self.now, source, patience, beside)
        self.take(actions)
        return number

    def answer(self, reply: Reply) -> None:
        self.take(self.core.received(reply, self.now))

    def wait(self, seconds: float) -> None:
        """Let the time pass as a shell does, from one deadline to the next."""
        end = self.now + seconds
        while self.core.next_deadline() <= end:
            self.now = max(self.now, self.core.next_deadline())
            self.take(self.core.tick(self.now))
        self.now = end

    def last(self) -> Request | Credit | Unfollow:
        return self.sent[-1].message

    def greet(self, **limits: int) -> None:
        self.answer(welcome(self.last().request, **limits))


def welcome(request: int, **limits: int) -> Welcome:
    values = {
        "max_module_bytes": 256 * MIB,
        "max_stdin_bytes": 16 * MIB,
        "max_request_bytes": 32 * MIB,
        "resend_ms": 10_000,
        "max_wait_ms": 30_000,
        **limits,
    }
    return Welcome(request, "test", "local", (1,), (), **values)


def run(job: str = "job", *, detach: bool = False, stdin: bytes = b"") -> Run:
    return Run(0, job, JobSpec(DIGEST), detach, stdin=stdin)


def result(request: int, job: str = "job") -> JobResult:
    return JobResult(request, job, Result("completed", 0))


def greeted() -> Talk:
    """A core that knows its broker."""
    talk = Talk()
    number = talk.start(GetStatus(0, "warm-up"))
    talk.greet()
    talk.answer(JobStatus(number, "warm-up", "queued"))
    talk.sent.clear()
    talk.ended.clear()
    return talk
