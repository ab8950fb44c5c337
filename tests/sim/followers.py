"""Clients that follow jobs, in a simulated cluster: each gets every job's output to its end, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field

from minilambda import messages as m
from minilambda import wire
from tests.sim.nodes import CLIENT_TAKES, MAX_BODY, BrokerNode, Ledger
from tests.sim.world import Connection, World

CREDIT = 3
"""So much may be on its way, bytes: less than a job writes."""


@dataclass
class Followed:
    """What one job has told."""

    request: int
    attempt: int = 0
    streams: dict[str, bytes] = field(default_factory=lambda: {"stdout": b"", "stderr": b""})
    heard: float = 0.0  # when something came last, seconds
    ended: str = ""  # the state at the end; "": it goes on; "gone" where nobody knows any more


class FollowerNode:
    """One client with one connection."""

    RESEND = 3.0  # silence after which it follows again, seconds

    def __init__(self, world: World, broker: BrokerNode, ledger: Ledger) -> None:
        self.world, self.broker, self.ledger = world, broker, ledger
        self.jobs: dict[str, Followed] = {}
        self.connection = self._connect()

    def _connect(self) -> Connection:
        return Connection(self.world, self.broker.receive, self._receive, self.world.random.randbytes(5))

    def cut(self) -> None:
        self.connection.cut()
        self.connection = self._connect()

    @property
    def at_rest(self) -> bool:
        return all(job.ended for job in self.jobs.values())

    def follow(self, job: str) -> None:
        self.jobs[job] = Followed(len(self.jobs) + 1)
        self._ask(job)

    def _ask(self, name: str) -> None:
        job = self.jobs[name]
        if job.ended:
            return
        job.heard = self.world.now
        known = {stream: len(data) for stream, data in job.streams.items()}
        self._send(m.Follow(job.request, name, CREDIT, job.attempt, **known))
        self.world.after(self.RESEND, lambda: self._look(name))

    def _look(self, name: str) -> None:
        if self.jobs[name].heard + self.RESEND <= self.world.now:
            self._ask(name)
        elif not self.jobs[name].ended:
            self.world.after(self.RESEND, lambda: self._look(name))

    def _send(self, message: m.Message) -> None:
        if not (self.broker.alive and self.connection.send(True, wire.encode(message))):
            self.connection = self._connect()

    def _receive(self, connection: Connection, frames: list[bytes]) -> None:
        reply = wire.decode(frames, CLIENT_TAKES, MAX_BODY)
        if connection is not self.connection or not isinstance(reply, (m.Output, m.Followed, m.Refused)):
            return
        name = str(reply.job)
        job = self.jobs[name]
        job.heard = self.world.now
        if isinstance(reply, m.Output):
            self._take(job, reply)
        elif isinstance(reply, m.Followed):
            job.ended, job.attempt = reply.state, reply.attempt
        elif reply.code == "expired" or (reply.code == "not_found" and name in self.ledger.answers):
            job.ended = "gone"
        else:
            self.world.after(0.5, lambda: self._ask(name))

    def _take(self, job: Followed, piece: m.Output) -> None:
        why = f"seed {self.world.seed}: {piece} where {job} was\n{self.world.story_of(piece.job + ' ')}"
        if piece.attempt < job.attempt:
            return  # a restarted broker counts anew
        if piece.attempt > job.attempt:
            job.attempt, job.streams = piece.attempt, {"stdout": b"", "stderr": b""}
        if piece.offset < len(job.streams[piece.stream]):
            return  # of a follow before this one
        assert piece.offset == len(job.streams[piece.stream]), why
        job.streams[piece.stream] += piece.data
        self._send(m.Credit(job.request, len(piece.data)))

    def check(self) -> None:
        """Raises ``AssertionError`` where a job has told something else than its result."""
        for name, job in self.jobs.items():
            told = self.ledger.answers[name][0]
            state, attempt, stdout = told[0], told[3], told[4]
            why = f"seed {self.world.seed}, {name}: {job}, {told}\n{self.world.story_of(name + ' ')}"
            assert job.ended in (state, "gone"), why
            if state == "completed" and job.ended == state and job.attempt == attempt:
                assert job.streams == {"stdout": stdout, "stderr": b""}, why
