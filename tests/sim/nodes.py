"""The nodes of a simulated cluster: real cores with the wire format between them, everything around them made up."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field

import msgpack

from minilambda import messages as m
from minilambda import wire
from minilambda.broker import events as be
from minilambda.broker.core import Core as BrokerCore
from minilambda.settings import BrokerSettings, WorkerSettings
from minilambda.worker import actions as a
from minilambda.worker import events as e
from minilambda.worker.core import Core as WorkerCore
from minilambda.worker.core import Identity
from tests.sim.world import Connection, World

BROKER_TAKES = wire.by_name(m.CLIENT_MESSAGES + m.WORKER_MESSAGES)
WORKER_TAKES = wire.by_name(m.BROKER_MESSAGES)
CLIENT_TAKES = wire.by_name(m.REPLIES)
MAX_BODY = 64 * 2**20


class BrokerNode:
    """The broker: its core, its module spool, and the connections."""

    def __init__(self, world: World, settings: BrokerSettings) -> None:
        self.world = world
        self.core = BrokerCore(settings)
        self.connections: dict[bytes, Connection] = {}
        self.spool: dict[str, bytes] = {}
        self._uploads: dict[int, bytearray] = {}
        self._wake: float | None = None

    def receive(self, connection: Connection, frames: list[bytes]) -> None:
        self.connections[connection.routing_id] = connection
        route = (connection.routing_id, b"")
        message = wire.decode(frames, BROKER_TAKES, MAX_BODY)
        self._step(be.Received(route, "local", message))

    def _step(self, event: be.Event) -> None:
        self._carry_out(self.core.handle(event, self.world.now))
        self.core.check()
        self._set_alarm()

    def _tick(self) -> None:
        self._wake = None
        self._carry_out(self.core.tick(self.world.now))
        self.core.check()
        self._set_alarm()

    def _set_alarm(self) -> None:
        deadline = self.core.next_deadline()
        if deadline is not None and (self._wake is None or deadline < self._wake):
            self._wake = max(deadline, self.world.now)
            alarm = self._wake
            self.world.at(alarm, lambda: self._tick() if self._wake == alarm else None)

    def _carry_out(self, actions: list[be.Action]) -> None:
        for action in actions:
            if isinstance(action, be.Send):
                self._send(action)
            elif isinstance(action, be.StoreModule):
                self.spool[action.digest] = action.data
            elif isinstance(action, be.WritePiece):
                self._uploads.setdefault(action.upload, bytearray()).extend(action.data)
            elif isinstance(action, be.KeepUpload):
                self.spool[action.digest] = bytes(self._uploads.pop(action.upload))
            elif isinstance(action, be.DropUpload):
                self._uploads.pop(action.upload, None)
            else:
                del self.spool[action.digest]

    def _send(self, action: be.Send) -> None:
        frames = wire.encode(_with_part(action, self.spool))
        if not self.connections[action.route[0]].send(False, frames):
            message = action.message
            self.world.after(0, lambda: self._step(be.Unreachable(action.route, message)))


def _with_part(action: be.Send, spool: dict[str, bytes]) -> m.Message:
    if action.part is None:
        return action.message
    part = action.part
    return dataclasses.replace(action.message, **{part.body: spool[part.digest][part.offset : part.offset + part.size]})


@dataclass
class Behaviour:
    """What a simulated guest does; it travels as the job's arguments."""

    kind: str  # "run", "sleep" (until killed), "crash" (its runner) or "poison" (its worker)
    seconds: float

    def args(self) -> tuple[str, ...]:
        return (self.kind, repr(self.seconds))


@dataclass
class Ledger:
    """What happened to each job: the oracle of a run."""

    starts: dict[m.JobRef, int] = field(default_factory=dict)  # guests that began, by attempt
    answers: dict[str, list[tuple[object, ...]]] = field(default_factory=dict)  # terminal answers, by job id

    def started(self, ref: m.JobRef) -> None:
        self.starts[ref] = self.starts.get(ref, 0) + 1

    def answered(self, reply: m.JobResult) -> None:
        result = reply.result
        code = result.error.code if result.error else None
        answer = (result.state, code, result.exit_code, result.attempt, reply.stdout)
        self.answers.setdefault(reply.job, []).append(answer)

    def attempts(self, job: str) -> int:
        return sum(1 for ref in self.starts if ref.job == job)


class WorkerNode:
    """A worker: its core, and made-up processes that take as long as the job's arguments say."""

    def __init__(self, world: World, broker: BrokerNode, ledger: Ledger, number: int, settings: WorkerSettings) -> None:
        self.world, self.broker, self.ledger, self.number = world, broker, ledger, number
        self.name = f"worker-{number}"
        self.alive = True
        self.stopped_until = 0.0  # SIGSTOP: nothing happens before, seconds
        self.disk: dict[str, bool] = {}  # artifacts
        self.core = WorkerCore(settings, Identity(self.name, self.name), world.random.random)
        self._runs: dict[int, object] = {}  # slot to the token of its present run
        self._wake: float | None = None
        self.connection = self._connect()
        self._carry_out(self.core.start())
        self._tick()

    def _connect(self) -> Connection:
        routing_id = self.world.random.randbytes(5)
        return Connection(self.world, self.broker.receive, self._receive, routing_id)

    def _receive(self, connection: Connection, frames: list[bytes]) -> None:
        if connection is self.connection:
            self._step(a.Received(wire.decode(frames, WORKER_TAKES, MAX_BODY)))

    def cut(self) -> None:
        """The connection breaks; the transport makes another one by itself."""
        self.connection.cut()
        if self.alive:
            self.connection = self._connect()

    def crash(self) -> None:
        self.world.tell(f"{self.name} crashes")
        self.alive = False
        self.connection.cut()

    def drain(self) -> None:
        self.world.tell(f"{self.name} drains")
        self._step(a.Drain())

    def _step(self, event: a.Event) -> None:
        if not self.alive:
            return
        if self.world.now < self.stopped_until:
            self.world.at(self.stopped_until, lambda: self._step(event))
            return
        self._carry_out(self.core.handle(event, self.world.now))
        if self.alive:
            self.core.check()
            self._set_alarm()

    def _tick(self) -> None:
        self._wake = None
        if not self.alive:
            return
        if self.world.now < self.stopped_until:
            self._alarm_at(self.stopped_until + 0.001)  # a shell takes what has come in before it looks at the time
            return
        self._carry_out(self.core.tick(self.world.now))
        if self.alive:
            self.core.check()
            self._set_alarm()

    def _set_alarm(self) -> None:
        deadline = self.core.next_deadline()
        if deadline is not None and (self._wake is None or deadline < self._wake):
            self._alarm_at(max(deadline, self.world.now))

    def _alarm_at(self, when: float) -> None:
        self._wake = when
        self.world.at(when, lambda: self._tick() if self._wake == when else None)

    # --- the made-up shell ---

    def _later(self, delay: float, event: a.Event) -> None:
        self.world.after(delay, lambda: self._step(event))

    def _carry_out(self, actions: list[a.Action]) -> None:
        for action in actions:
            if not self.alive:
                return
            if isinstance(action, a.Send):
                if not self.connection.send(True, wire.encode(action.message)):
                    self.connection = self._connect()
            elif isinstance(action, a.Reconnect):
                self.cut()
            elif isinstance(action, a.Exit):
                self.alive = False
                self.world.after(0.5, self.connection.cut)
            else:
                self._process(action)

    def _process(self, action: a.Action) -> None:
        chance = self.world.random.random
        if isinstance(action, a.Spawn):
            self._later(0.002 + 0.01 * chance(), e.RunnerReady(action.slot))
        elif isinstance(action, a.StartRun):
            self._start(action)
        elif isinstance(action, a.Kill):
            self._runs.pop(action.slot, None)
            self._later(0.001, e.RunnerDied(action.slot, "killed by SIGKILL", b"", b""))
        elif isinstance(action, a.Look):
            self._later(0.0, e.OutputSeen(action.slot, 0))
        elif isinstance(action, a.FindArtifact):
            known = self.disk.get(action.digest)
            found = a.ArtifactAbsent(action.digest) if known is None else a.ArtifactFound(action.digest, known)
            self._later(0.0, found)
        elif isinstance(action, a.Compile):
            digest = action.order.digest
            self.disk[digest] = False
            self._later(0.02 * chance(), e.CompileFinished(digest, None, "", False, 1000, 10.0))

    def _start(self, action: a.StartRun) -> None:
        slot = action.slot
        job = self.core.execution.slots[slot].job
        assert job is not None
        ref, (kind, seconds) = job.ref, action.order.args
        self.ledger.started(ref)
        self.world.tell(f"{self.name} starts {ref.job} attempt {ref.attempt}")
        token = self._runs[slot] = object()

        def end() -> None:
            if self._runs.get(slot) is not token:
                return
            del self._runs[slot]
            if kind == "poison":
                self.crash()
            elif kind == "crash":
                self._step(e.RunnerDied(slot, "killed by SIGSEGV", b"", b""))
            else:
                stdout = ref.job.encode()
                outcome = e.Outcome(None, "", 0, None, stdout, b"", None, None, 0.0, 1.0, 1.0, 65536)
                self._step(e.RunnerFinished(slot, outcome))

        if kind != "sleep":
            self.world.after(float(seconds), end)


class ClientNode:
    """A client that wants one answer for each of its jobs, whatever happens to its requests."""

    RESEND = 3.0  # silence after which a request is sent again, seconds

    def __init__(self, world: World, broker: BrokerNode, ledger: Ledger, wasm: bytes) -> None:
        self.world, self.broker, self.ledger, self.wasm = world, broker, ledger, wasm
        self.digest = "sha256:" + hashlib.sha256(wasm).hexdigest()
        self.pending: dict[str, m.Run] = {}
        self.connection = self._connect()
        self._number = 0  # of the last request
        self._latest: dict[str, int] = {}  # job to the number of its last request

    def _connect(self) -> Connection:
        return Connection(self.world, self.broker.receive, self._receive, self.world.random.randbytes(5))

    def cut(self) -> None:
        self.connection.cut()
        self.connection = self._connect()

    def submit(self, job: str, behaviour: Behaviour, **spec: object) -> None:
        what = m.JobSpec(self.digest, args=behaviour.args(), **spec)  # type: ignore[arg-type]
        run = m.Run(0, job, what, stdin=msgpack.packb(job))
        self.pending[job] = run
        self._ask(job, wasm=self.world.random.random() < 0.5)

    def cancel(self, job: str) -> None:
        self._number += 1
        self.connection.send(True, wire.encode(m.Cancel(self._number, job)))

    def _ask(self, job: str, wasm: bool) -> None:
        run = self.pending.get(job)
        if run is None:
            return
        self._number += 1
        number = self._number
        body = self.wasm if wasm else b""
        self.connection.send(True, wire.encode(m.Run(number, job, run.spec, stdin=run.stdin, wasm=body)))
        self._expect(job, number)

    def _expect(self, job: str, number: int) -> None:
        self._latest[job] = number
        self.world.after(self.RESEND, lambda: self._ask(job, False) if self._latest.get(job) == number else None)

    def _receive(self, connection: Connection, frames: list[bytes]) -> None:
        reply = wire.decode(frames, CLIENT_TAKES, MAX_BODY)
        if isinstance(reply, m.JobResult):
            self.ledger.answered(reply)
            self.pending.pop(reply.job, None)
        elif isinstance(reply, m.Refused) and reply.job is not None and reply.code == "not_found":
            self._ask(reply.job, wasm=True)
        elif isinstance(reply, m.Refused) and reply.job is not None and reply.code == "busy":
            job, wait = reply.job, (reply.retry_after_ms or 100) / 1000
            self.world.after(wait, lambda: self._ask(job, False))
