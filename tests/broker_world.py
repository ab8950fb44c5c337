"""A broker's core on a virtual clock, with clients and workers that a test plays.

Every step is followed by the core's own check. A ledger has every request and every ended job: a reply to nobody,
a second reply to one request, or a job that ends twice fails the test.
"""

from __future__ import annotations

import hashlib
import sqlite3
import weakref
from collections import Counter
from typing import Any, TypeVar

from minilambda.broker import tables
from minilambda.broker.core import Core
from minilambda.broker.events import Action, Durable, Event, Persist, Received, Rejected, Send
from minilambda.broker.jobs import Job
from minilambda.messages import (
    Acknowledge,
    Beat,
    Dispatch,
    Done,
    Follow,
    Goodbye,
    JobRef,
    JobSpec,
    Message,
    Output,
    Recall,
    Register,
    RegisterAgain,
    Registered,
    Reply,
    Report,
    Request,
    Result,
    Returned,
    Run,
    Stop,
)
from minilambda.settings import BrokerSettings

M = TypeVar("M", bound=Message)

WASM = b"\0asm hello"
COMPLETED = Result("completed", 0)
DIGEST = "sha256:" + hashlib.sha256(WASM).hexdigest()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class World:
    """One broker. Connections are named by texts."""

    def __init__(self, *, audited: bool = True, durable: bool = False, **settings: Any) -> None:
        self.audited = audited  # False for large worlds: the audit looks at everything
        self.settings = BrokerSettings(**settings)
        self.core = Core(self.settings, session_start=1000, durable=durable)
        self.now = 100.0  # seconds
        self.wall = 1_700_000_000.0  # wall time at 0.0, seconds
        self.core.promises.wall = self.wall
        self.starts = 1  # of brokers
        self.writes: list[Persist] = []  # that are not on the disk yet
        self.disk = sqlite3.connect(":memory:", isolation_level=None)
        weakref.finalize(self, self.disk.close)
        tables.prepare(self.disk, 0)
        self.store: list[Action] = []  # what the shell was told to do with modules
        self.slices: dict[int, Any] = {}  # id of a message to the part that the shell would fill in
        self.open: Counter[tuple[str, int]] = Counter()  # requests without an answer, by peer and number
        self.ended: dict[Job, Result] = {}
        self.streams: dict[tuple[str, int], list[int]] = {}  # by follow: attempt, next byte of each stream, caught up
        self._inbox: dict[str, list[Message]] = {}

    def step(self, event: Event) -> None:
        if isinstance(event, Received) and isinstance(event.message, Request):
            self.open[event.route[0].decode(), event.message.request] += 1
            if isinstance(about := event.message, Follow):
                self.streams[event.route[0].decode(), about.request] = [about.attempt, about.stdout, about.stderr, 0]
        elif isinstance(event, Rejected):
            self.open[event.route[0].decode(), event.error.request] += 1
        self._carry_out(self.core.handle(event, self.now))

    def give(self, peer: str, message: Message, principal: str = "local") -> list[Message]:
        """A message from a peer; returns what the peer gets in the same step."""
        self._inbox[peer] = []
        self.step(Received((peer.encode(), b""), principal, message))
        return self.take(peer)

    def take(self, peer: str) -> list[Message]:
        """What has been sent to a peer since it looked last."""
        return self._inbox.pop(peer, [])

    def only(self, peer: str, kind: type[M]) -> M:
        """The one message that a peer has got, which must be of this kind."""
        (message,) = self.take(peer)
        assert type(message) is kind, message
        return message

    def ask(self, peer: str, message: Message, kind: type[M], principal: str = "local") -> M:
        """The one immediate answer to a request."""
        (answer,) = self.give(peer, message, principal)
        assert type(answer) is kind, answer
        return answer

    def wait(self, seconds: float) -> None:
        """Let time pass, with every deadline kept on the way."""
        end = self.now + seconds
        for _ in range(10_000):
            due = self.core.next_deadline()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self._carry_out(self.core.tick(self.now))
        else:
            raise AssertionError("the core asks to be woken again and again")
        self.now = end
        self._carry_out(self.core.tick(self.now))

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Persist):
                self.writes.append(action)
                continue
            if not isinstance(action, Send):
                self.store.append(action)
                continue
            self._inbox.setdefault(action.route[0].decode(), []).append(action.message)
            if action.part is not None:
                self.slices[id(action.message)] = action.part
            if isinstance(action.message, Output):
                self._told(action.route[0].decode(), action.message)
            elif isinstance(action.message, Reply):
                key = (action.route[0].decode(), action.message.request)
                self.open[key] -= 1
                assert self.open[key] >= 0, f"{action.message} answers nobody"
        if self.audited:
            self.audit()

    def _told(self, peer: str, output: Output) -> None:
        """Each stream comes without gaps and repetitions, a later attempt's from the beginning, and one empty piece."""
        place = self.streams[peer, output.request]
        if place[0] not in (0, output.attempt) or (not place[0] and not output.offset):  # or another one before it
            place[1:3] = 0, 0
        which = 1 if output.stream == "stdout" else 2
        assert place[which] == output.offset and (output.data or not place[3]), f"{output} where {place} was"
        place[3] += not output.data
        place[0], place[which] = output.attempt, output.offset + len(output.data)

    def sync(self, count: int | None = None) -> None:
        """The disk has taken so many of the writes that wait for it, or all."""
        for write in self.writes[:count]:
            tables.apply(self.disk, write.records)
            self.writes.remove(write)
            self.step(Durable(write.number))

    def crash(self, seconds: float = 1.0, wall: float = 0.0) -> None:
        """The broker dies and another one starts after ``seconds``; the wall clock jumps by ``wall`` seconds."""
        self.disk.commit()
        self.writes.clear()
        self.open.clear()
        self._inbox.clear()
        self.ended.clear()
        self.now += seconds
        self.wall += wall
        self.starts += 1
        self.core = Core(self.settings, session_start=1000 * self.starts, durable=self.core.promises.durable)
        self._carry_out(self.core.recover(tables.read(self.disk), self.now + self.wall, self.now))

    def audit(self) -> None:
        for job in self.core.jobs.values():
            if job.result is not None:
                assert self.ended.setdefault(job, job.result) is job.result, job.tell("it has ended twice")
        self.core.check()

    # --- shortcuts -------------------------------------------------------------------------------

    def run(self, job: str, peer: str = "c", *, request: int = 1, stdin: bytes = b"", detach: bool = False,
            wasm: bytes = WASM, principal: str = "local", **spec: Any) -> list[Message]:  # fmt: skip
        """Submit a job; returns the immediate answers."""
        message = Run(request, job, JobSpec(digest_of(wasm), **spec), detach=detach, wasm=wasm, stdin=stdin)
        return self.give(peer, message, principal)

    def worker(self, name: str, slots: int = 1, artifacts: tuple[str, ...] = ()) -> Agent:
        agent = Agent(self, name, slots, artifacts)
        agent.register()
        return agent

    def state(self, job: str) -> str:
        return self.core.jobs["local", job].state


class Agent:
    """A worker that does what the protocol says, one step at a time."""

    def __init__(self, world: World, name: str, slots: int, artifacts: tuple[str, ...] = ()) -> None:
        self.world, self.name, self.slots = world, name, slots
        self.artifacts = artifacts  # modules that it says it has
        self.peer = name  # its connection
        self.session = 0
        self.seen = 0
        self.jobs: dict[JobRef, Dispatch] = {}
        self.draining = False

    def register(
        self, held: tuple[JobRef, ...] = (), finished: tuple[JobRef, ...] = (), peer: str = ""
    ) -> list[Message]:
        self.peer = peer or self.peer
        past = {"ended": self.session, "seen": self.seen}
        has = {"held": held, "finished": finished, "artifacts": self.artifacts}
        message = Register(self.name, self.name, self.slots, draining=self.draining, **has, **past)
        answers = self.world.give(self.peer, message)
        if not answers:  # the disk must know the worker first
            self.world.sync()
            answers = self.world.take(self.peer)
        registered, *rest = answers
        assert type(registered) is Registered
        self.session, self.seen = registered.session, 0
        self.jobs = {ref: dispatch for ref, dispatch in self.jobs.items() if ref in held}
        return self._hear(rest)

    def look(self) -> list[Message]:
        """What the broker has sent since."""
        return self._hear(self.world.take(self.peer))

    def _hear(self, messages: list[Message]) -> list[Message]:
        for message in messages:
            if type(message) is Registered and message.session != self.session:  # somebody has asked in its name
                self.session, self.seen = message.session, 0
            elif type(message) is Dispatch and message.session == self.session:
                assert message.sequence == self.seen + 1
                self.seen = message.sequence
                self.jobs[message.ref] = message
        return messages

    def ref(self, job: str) -> JobRef:
        """The job as this worker has it."""
        self.look()
        (ref,) = [ref for ref in self.jobs if ref.job == job]
        return ref

    @property
    def names(self) -> list[str]:
        """Ids of the jobs that it has, in order of arrival."""
        self.look()
        return [ref.job for ref in self.jobs]

    def give(self, message: Message) -> list[Message]:
        self.look()
        return self._hear(self.world.give(self.peer, message))

    def report(self, *running: JobRef) -> list[Message]:
        self.look()
        return self.give(Report(self.session, len(self.jobs), self.seen, self.draining, running))

    def done(self, job: str, result: Result = COMPLETED, **rest: Any) -> list[Message]:
        ref = self.ref(job)
        del self.jobs[ref]
        return self.give(Done(self.session, ref, len(self.jobs), self.seen, result, **rest))

    def hand_back(self, ref: JobRef, *, begun: bool = False) -> list[Message]:
        self.look()
        if not begun:
            del self.jobs[ref]
        return self.give(Returned(self.session, ref, len(self.jobs), self.seen, begun))

    def goodbye(self) -> None:
        self.give(Goodbye(self.session))

    def recalls(self) -> list[JobRef]:
        return [message.ref for message in self.look() if type(message) is Recall]


def kinds(messages: list[Message]) -> list[str]:
    """Wire names, to compare with."""
    return [message.TYPE for message in messages]


__all__ = ["DIGEST", "WASM", "Acknowledge", "Agent", "Beat", "RegisterAgain", "Stop", "World", "digest_of", "kinds"]
