"""The nodes of a simulated cluster: real cores with the wire format between them, everything around them made up."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
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
from tests.sim.disk import Disk
from tests.sim.world import Connection, World

BROKER_TAKES = wire.by_name(m.CLIENT_MESSAGES + m.WORKER_MESSAGES)
WORKER_TAKES = wire.by_name(m.BROKER_MESSAGES)
CLIENT_TAKES = wire.by_name(m.REPLIES)
MAX_BODY = 64 * 2**20


class BrokerNode:
    """The broker: its core, its disk, and the connections. It may crash and begin again."""

    def __init__(self, world: World, settings: BrokerSettings, sync: float) -> None:
        self.world, self.settings = world, settings
        self.disk = Disk(world, sync)
        self.alive = False
        self.begin()

    def begin(self) -> None:
        self.world.tell("the broker begins")
        self.alive = True
        self.core = BrokerCore(self.settings, session_start=self.world.random.randrange(1, 2**40), durable=True)
        self.connections: dict[bytes, Connection] = {}
        self._uploads: dict[int, bytearray] = {}
        self._wake: float | None = None
        wall = self.world.now + self.world.skew
        self._carry_out(self.core.recover(self.disk.recover(), wall, self.world.now))
        self.core.check()
        self._set_alarm()

    def crash(self, pause: float) -> None:
        """Dies, and another one begins on the same disk after so many seconds."""
        if not self.alive:
            return
        self.world.tell("the broker crashes")
        self.alive = False
        self._wake = None
        for connection in self.connections.values():
            connection.cut()
        self.disk.crash()
        self.world.after(pause, self.begin)

    def receive(self, connection: Connection, frames: list[bytes]) -> None:
        if not self.alive:
            connection.cut()
            return
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

    def _durable(self, number: int) -> None:
        self._step(be.Durable(number))

    def _carry_out(self, actions: list[be.Action]) -> None:
        for action in actions:
            if isinstance(action, be.Send):
                self._send(action)
            elif isinstance(action, be.Persist):
                self.disk.write(action, self._durable)
            elif isinstance(action, be.StoreModule):
                self.disk.modules[action.digest] = action.data
            elif isinstance(action, be.WritePiece):
                self._uploads.setdefault(action.upload, bytearray()).extend(action.data)
            elif isinstance(action, be.KeepUpload):
                self.disk.modules[action.digest] = bytes(self._uploads.pop(action.upload))
            elif isinstance(action, be.DropUpload):
                self._uploads.pop(action.upload, None)
            else:
                del self.disk.modules[action.digest]

    def _send(self, action: be.Send) -> None:
        frames = wire.encode(_with_part(action, self.disk.modules))
        core = self.core
        if not self.connections[action.route[0]].send(False, frames):
            event = be.Unreachable(action.route, action.message)
            self.world.after(0, lambda: self._step(event) if self.alive and self.core is core else None)


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

    def begun(self, job: str) -> int:
        """How often a guest of the job began."""
        return sum(count for ref, count in self.starts.items() if ref.job == job)


class WorkerNode:
    """A worker: its core, and made-up processes that take as long as the job's arguments say."""

    def __init__(self, world: World, broker: BrokerNode, ledger: Ledger, number: int, settings: WorkerSettings) -> None:
        self.world, self.broker, self.ledger, self.number = world, broker, ledger, number
        self.name = f"worker-{number}"
        self.alive = True
        self._stopped = False  # SIGSTOP: what happens waits for SIGCONT
        self._missed: deque[a.Event] = deque()  # what happened meanwhile, in order
        self.disk: set[tuple[str, str]] = set()  # artifacts: digest and compiler
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

    def stop(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT so much later."""
        if not self._stopped:
            self.world.tell(f"{self.name} is stopped")
            self._stopped = True
            self.world.after(seconds, self._go_on)

    def _go_on(self) -> None:
        """SIGCONT: a shell takes what has come in before it looks at the time."""
        self._stopped = False
        while self._missed:
            self._step(self._missed.popleft())
        self._tick()

    def drain(self) -> None:
        self.world.tell(f"{self.name} drains")
        self._step(a.Drain())

    def _step(self, event: a.Event) -> None:
        if not self.alive:
            return
        if self._stopped:
            self._missed.append(event)
            return
        self._carry_out(self.core.handle(event, self.world.now))
        if self.alive:
            self.core.check()
            self._set_alarm()

    def _tick(self) -> None:
        self._wake = None
        if not self.alive:
            return
        if self._stopped:
            return  # ``_go_on`` looks at the time
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
        elif isinstance(action, (a.Measure, a.ReadOutput)):
            self._carry_out(self.core.handle(self._written(action), self.world.now))
        elif isinstance(action, a.Look):
            self._later(0.0, e.OutputSeen(action.slot, 0))
        elif isinstance(action, a.FindArtifact):
            digest, last = action.digest, action.compilers[-1]
            there = [compiler for compiler in action.compilers if (digest, compiler) in self.disk]
            found = a.ArtifactFound(digest, there[0], False) if there else a.ArtifactAbsent(digest, last)
            self._later(0.0, found)
        elif isinstance(action, a.Compile):
            order = action.order
            self.disk.add((order.digest, order.compiler))
            compiled = e.CompileFinished(order.digest, order.compiler, None, "", False, 1000, 10.0)
            self._later((0.2 if order.background else 0.02) * chance(), compiled)

    def _written(self, action: a.Measure | a.ReadOutput) -> a.Event:
        """Each guest has written all that it will, its job's id, as soon as it runs."""
        job = self.core.execution.slots[action.slot].job
        stdout = job.ref.job.encode() if job is not None and action.slot in self._runs else b""
        if isinstance(action, a.Measure):
            return e.Measured(action.slot, len(stdout), 0)
        data = stdout[action.offset : action.offset + action.size]
        return e.OutputRead(action.slot, action.follower, action.stream, action.offset, data)

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
        self.acknowledged: set[str] = set()  # detached jobs that the broker has promised to keep
        self.connection = self._connect()
        self._number = 0  # of the last request
        self._latest: dict[str, int] = {}  # job to the number of its last request
        self._silent: dict[str, bool] = {}  # jobs with a request that was never answered

    def _connect(self) -> Connection:
        return Connection(self.world, self.broker.receive, self._receive, self.world.random.randbytes(5))

    def cut(self) -> None:
        self.connection.cut()
        self.connection = self._connect()

    def submit(self, job: str, behaviour: Behaviour, detach: bool = False, **spec: object) -> None:
        what = m.JobSpec(self.digest, args=behaviour.args(), **spec)  # type: ignore[arg-type]
        run = m.Run(0, job, what, detach, stdin=msgpack.packb(job))
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
        message: m.Message
        if job in self.acknowledged:
            message = m.GetResult(number, job, wait_ms=2000)
        else:
            body = self.wasm if wasm else b""
            message = dataclasses.replace(run, request=number, wasm=body, again=self._silent.get(job, False))
        sent = self.broker.alive and self.connection.send(True, wire.encode(message))
        if sent and self.world.random.random() < 0.05:
            self.connection.send(True, wire.encode(message))  # a duplicate
        if not sent:
            self.connection = self._connect()
        self._expect(job, number, sent)

    def _expect(self, job: str, number: int, sent: bool) -> None:
        self._latest[job] = number
        self.world.after(self.RESEND, lambda: self._ask_again(job, number, sent))

    def _ask_again(self, job: str, number: int, sent: bool) -> None:
        if self._latest.get(job) == number:
            self._silent[job] = self._silent.get(job, False) or sent
            self._ask(job, wasm=False)

    def _receive(self, connection: Connection, frames: list[bytes]) -> None:
        reply = wire.decode(frames, CLIENT_TAKES, MAX_BODY)
        if isinstance(reply, m.JobResult):
            self.ledger.answered(reply)
            self.pending.pop(reply.job, None)
        elif isinstance(reply, m.Accepted):
            self.acknowledged.add(reply.job)
            self._ask(reply.job, wasm=False)
        elif isinstance(reply, m.JobStatus):
            self._ask(reply.job, wasm=False)
        elif isinstance(reply, m.Refused) and reply.job in self.acknowledged:
            raise AssertionError(f"seed {self.world.seed}: acknowledged, and then {reply}")
        elif isinstance(reply, m.Refused) and reply.job is not None and reply.code == "not_found":
            self._ask(reply.job, wasm=True)
        elif isinstance(reply, m.Refused) and reply.job is not None and reply.code == "busy":
            job, wait = reply.job, (reply.retry_after_ms or 100) / 1000
            self.world.after(wait, lambda: self._ask(job, False))
