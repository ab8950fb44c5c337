"""A worker's core with made-up surroundings: a virtual clock, a disk, processes that do as the test says.

The surroundings hold the core to its bargain: they refuse an order that a real shell or a real runner could not carry
out, and after each step the core's invariants are checked and it must not want to be called again at once.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import TypeVar

from minilambda import messages as m
from minilambda.fields import MAX_FRAME
from minilambda.settings import COMPILERS, WorkerSettings
from minilambda.worker import actions as a
from minilambda.worker import events as e
from minilambda.worker.core import Core
from minilambda.worker.words import Identity
from tests.unit.worker_files import FileDisk

T = TypeVar("T")

HEARTBEAT_MS, LIVENESS_MS, KEEP_MS = 1_000, 5_000, 60_000


def wasm_of(name: str, size: int = 0) -> bytes:
    """Bytes that stand for a module."""
    return name.encode().ljust(size, b".")


def digest_of(wasm: bytes) -> str:
    return "sha256:" + hashlib.sha256(wasm).hexdigest()


def ref(job: str = "job", attempt: int = 1, principal: str = "local") -> m.JobRef:
    return m.JobRef(principal, job, attempt)


def outcome(stdout: bytes = b"", stderr: bytes = b"", value: bytes | None = None, code: str | None = None) -> e.Outcome:
    """How a guest ended: well, or with the wire code of a failure."""
    exit_code = 0 if code is None else None
    text = f"It failed with {code}." if code else ""
    return e.Outcome(code, text, exit_code, value, stdout, stderr, None, None, 1.0, 2.0, 3.0, 4096)


@dataclass
class Runner:
    """A made-up runner process."""

    ready: bool = False
    busy: e.RunOrder | None = None  # what it runs
    dying: bool = False  # it was killed
    principal: str | None = None  # whom it has served
    loaded: dict[str, str] = field(default_factory=dict)  # digest to whose artifact
    stdout: bytes = b""  # what its guest has written
    stderr: bytes = b""
    home: e.HomeOrder | None = None  # what it has of files; None: it is not for a job with files
    pipe: bytearray | None = None  # what came through its guest's pipe; None: it has none
    room: int = 65_536  # so much more goes into the pipe
    closed: bool = False  # nothing comes through the pipe any more


class Driver:
    """One worker, with a single compiler unless a test says otherwise.

    ``auto`` lists the actions that are answered by themselves, as a healthy machine would.
    """

    def __init__(self, jitter: float = 0.5, compiler: str = "cranelift", **settings: object) -> None:
        self.settings = WorkerSettings(compiler=compiler, **settings)  # type: ignore[arg-type]
        self.compilers = COMPILERS[self.settings.compiler]
        self.core = Core(self.settings, Identity("worker-id", "worker"), lambda: jitter)
        self.now = 1000.0
        self.auto: set[type] = {a.Spawn, a.FindArtifact, a.FindFiles, a.Kill, a.KillCompiler}
        self.session = 0
        self.sequence = 0
        self.sent: list[m.Message] = []  # words to the broker that no test has taken
        self.done_actions: list[a.Action] = []  # other actions that no test has taken
        self.runners: dict[int, Runner] = {}
        self.disk: dict[str, bool] = {}  # first artifacts: digest to whether it is a component
        self.better: dict[str, bool] = {}  # Cranelift's artifacts, where the first ones are Winch's
        self.foreign_locks: set[str] = set()  # another worker compiles these
        self.locks: set[tuple[str, str]] = set()  # digest and compiler
        self.held: set[tuple[str, str]] = set()  # artifacts at hand, likewise
        self.wasm: dict[str, bytes] = {}  # on its way to the compiler
        self.compiling: dict[str, e.CompileOrder] = {}  # by digest
        self.finds: deque[a.FindArtifact] = deque()  # looks at the disk without an answer
        self.files = FileDisk()
        self.exited = False
        self._carry_out(self.core.start())
        self._settle()

    # --- steps ---

    def event(self, event: a.Event) -> None:
        self._carry_out(self.core.handle(event, self.now))
        self._settle()

    def hear(self, message: m.Message) -> None:
        """A message from the broker arrives."""
        self.event(a.Received(message))

    def advance(self, seconds: float, beats: bool = True) -> None:
        """Time passes; the core is called whenever it asked for it. ``beats``: the broker answers reports."""
        end = self.now + seconds
        while (wake := self.core.next_deadline()) is not None and wake <= end:
            self.now = max(self.now, wake)
            before = len(self.sent)
            self._settle()
            if beats and self.session and any(isinstance(message, m.Report) for message in self.sent[before:]):
                self.hear(m.Beat(self.session))
        self.now = end
        self._settle()

    def _settle(self) -> None:
        self.core.check()
        self._carry_out(self.core.tick(self.now))
        self.core.check()
        wake = self.core.next_deadline()
        assert wake is None or wake > self.now, f"wants to be called at {wake}, now is {self.now}"

    # --- what a test takes ---

    def take(self, kind: type[T]) -> list[T]:
        """The messages or actions of a kind since they were last taken; other ones stay."""
        pool = self.sent if issubclass(kind, m.Message) else self.done_actions
        found = [item for item in pool if isinstance(item, kind)]
        pool[:] = [item for item in pool if not isinstance(item, kind)]  # type: ignore[assignment]
        return found

    def one(self, kind: type[T]) -> T:
        found = self.take(kind)
        assert len(found) == 1, f"{len(found)} of {kind.__name__}: {found}"
        return found[0]

    def none(self, kind: type[T]) -> None:
        assert self.take(kind) == []

    # --- the broker ---

    def register(
        self,
        session: int | None = None,
        heartbeat: int = HEARTBEAT_MS,
        liveness: int = LIVENESS_MS,
        keep: int = KEEP_MS,
    ) -> None:
        """The broker takes the worker in."""
        self.session = self.session + 1 if session is None else session
        self.sequence = 0
        self.hear(m.Registered("worker-id", self.session, heartbeat, liveness, keep))

    def dispatch(
        self,
        job: m.JobRef,
        wasm: bytes = b"hello",
        inline: bool = True,
        withheld: dict[str, int] | None = None,
        stdin: bytes = b"",
        **spec: object,
    ) -> None:
        self.sequence += 1
        about = m.JobSpec(digest_of(wasm), **spec)  # type: ignore[arg-type]
        body = wasm if inline else b""
        self.hear(
            m.Dispatch(self.session, self.sequence, job, about, len(wasm), withheld or {}, wasm=body, stdin=stdin)
        )

    def answer_fetches(self, body: bytes) -> int:
        """Sends every piece that was asked for, all of one body. Returns how many."""
        fetches = self.take(m.Fetch)
        for fetch in fetches:
            data = body[fetch.offset : fetch.offset + fetch.size]
            self.hear(m.Chunk(self.session, fetch.handle, fetch.offset, len(body), data))
        return len(fetches)

    def acknowledge(self, job: m.JobRef) -> None:
        self.hear(m.Acknowledge(self.session, job))

    # --- processes ---

    def compiled(self, wasm: bytes, code: str | None = None, message: str = "", ms: float = 10.0) -> None:
        """The compiler of a module ends."""
        self.compiler_ended(digest_of(wasm), code, message, ms)

    def compiler_ended(self, digest: str, code: str | None = None, message: str = "", ms: float = 10.0) -> None:
        """The same by the digest. The compiler has looked at the hash of what the worker gave it."""
        order = self.compiling.pop(digest)
        if digest in self.wasm and digest_of(self.wasm[digest]) != digest:
            code, message = e.CORRUPT, "The bytes do not have the hash."
        if code is None:
            self.held.add((order.digest, order.compiler))
            self.artifacts(order.compiler)[order.digest] = False
            self.locks.discard((order.digest, order.compiler))
        self.event(e.CompileFinished(order.digest, order.compiler, code, message, False, 1000, ms))

    def artifacts(self, compiler: str) -> dict[str, bool]:
        """Those on disk by one compiler."""
        return self.disk if compiler == self.compilers[-1] else self.better

    def finish(self, slot: int = 0, how: e.Outcome | None = None, bad_artifact: bool = False) -> None:
        """The runner of a slot ends its run."""
        runner = self.runners[slot]
        assert runner.busy is not None
        if bad_artifact:
            runner.loaded.pop(runner.busy.digest)
        runner.busy = None
        self.event(e.RunnerFinished(slot, how or outcome(), bad_artifact))

    def die(
        self,
        slot: int,
        how: str = "killed by SIGSEGV",
        stdout: bytes = b"",
        stderr: bytes = b"",
        starved: bool = False,
    ) -> None:
        """The runner of a slot is gone."""
        del self.runners[slot]
        self.event(e.RunnerDied(slot, how, stdout, stderr, starved))

    def ready(self, slot: int = 0) -> None:
        self.runners[slot].ready = True
        self.event(e.RunnerReady(slot))

    def answer_find(self) -> None:
        """The disk answers the oldest look."""
        look = self.finds.popleft()
        digest, last = look.digest, look.compilers[-1]
        there = [compiler for compiler in look.compilers if digest in self.artifacts(compiler)]
        answer: a.Event
        if there:
            self.held.add((digest, there[0]))
            answer = a.ArtifactFound(digest, there[0], self.artifacts(there[0])[digest])
        elif (digest in self.foreign_locks or (digest, last) in self.locks) and not look.alone:
            answer = a.ArtifactLocked(digest)
        else:
            self.locks.add((digest, last))
            answer = a.ArtifactAbsent(digest, last)
        self.event(answer)

    # --- what the core asks for ---

    def _carry_out(self, actions: list[a.Action]) -> None:
        for action in actions:
            if isinstance(action, a.Send):
                self._said(action.message)
                continue
            self.done_actions.append(action)
            self._do(action)
            if type(action) in (a.Measure, a.ReadOutput, a.Pour):
                self.event(self._at_once(action))
            answer = self.files.do(action)
            if answer is not None:
                self.event(answer)
        for action in actions:
            if type(action) in self.auto:
                self._answer(action)

    def _said(self, message: m.Message) -> None:
        assert isinstance(message, m.Register) or getattr(message, "session", 0) != 0, message
        if isinstance(message, m.Fetch):
            assert 0 < message.size <= MAX_FRAME
        self.sent.append(message)

    def _do(self, action: a.Action) -> None:
        if isinstance(action, a.Spawn):
            assert action.slot not in self.runners, f"slot {action.slot} has a runner"
            self.runners[action.slot] = Runner(home=action.home)
        elif isinstance(action, a.Kill):
            self.runners[action.slot].dying = True
        elif isinstance(action, a.StartRun):
            self._start_run(action.slot, action.order)
            runner = self.runners[action.slot]
            runner.pipe, runner.closed = bytearray() if action.stream else None, False
            runner.stdout = runner.stderr = b""
        elif isinstance(action, a.FindArtifact):
            assert action.compilers
            self.finds.append(action)
        elif isinstance(action, a.ReleaseArtifact):
            self.locks.discard((action.digest, action.compiler))
        elif isinstance(action, a.DropArtifact):
            self.held.discard((action.digest, action.compiler))
            if action.corrupt:
                self.artifacts(action.compiler).pop(action.digest, None)
        elif isinstance(action, a.KeepWasm):
            kept = self.wasm.get(action.digest, b"")
            assert action.offset == len(kept), "a piece out of order"
            self.wasm[action.digest] = kept + action.data
        elif isinstance(action, a.DropWasm):
            self.wasm.pop(action.digest, None)
        elif isinstance(action, a.Compile):
            digest, compiler = action.order.digest, action.order.compiler
            assert digest not in self.compiling and digest in self.wasm
            assert (digest, compiler) in self.locks and (digest, compiler) not in self.held
            self.compiling[digest] = action.order
            awaited = [order for order in self.compiling.values() if not order.background]
            assert len(awaited) <= self.settings.compilers and len(self.compiling) <= len(awaited) + 1
        elif isinstance(action, a.Exit):
            self.exited = True

    def _at_once(self, action: a.Action) -> a.Event:
        """What the shell answers before it does anything else."""
        if isinstance(action, a.Measure):
            runner = self.runners[action.slot]
            return e.Measured(action.slot, len(runner.stdout), len(runner.stderr))
        if isinstance(action, a.ReadOutput):
            runner = self.runners[action.slot]
            written = runner.stdout if action.stream == "stdout" else runner.stderr
            data = written[action.offset : action.offset + action.size]
            return e.OutputRead(action.slot, action.follower, action.stream, action.offset, data)
        assert isinstance(action, a.Pour)
        runner = self.runners[action.slot]
        assert runner.pipe is not None and not runner.closed, "the guest has no pipe"
        size = min(runner.room, len(action.data))
        runner.pipe += action.data[:size]
        runner.room -= size
        runner.closed = action.last and size == len(action.data)
        return e.Poured(action.slot, size)

    def _start_run(self, slot: int, order: e.RunOrder) -> None:
        runner, job = self.runners[slot], self.core.execution.slots[slot].job
        assert job is not None
        assert (runner.ready or runner.home) and not runner.dying and runner.busy is None, (
            f"the runner of slot {slot} is not idle"
        )
        assert bool(job.tree) == (runner.home is not None), "a job's runner is for its kind"
        assert runner.home is None or (runner.home.tree in self.files.trees and runner.principal is None)
        assert runner.principal in (None, job.ref.principal), "a runner serves one principal"
        runner.principal = job.ref.principal
        assert set(order.evict) <= runner.loaded.keys()
        for digest in order.evict:
            del runner.loaded[digest]
        assert order.load == (runner.loaded.get(order.digest) != order.compiler)
        assert not order.load or (order.digest, order.compiler) in self.held, "the artifact is not at hand"
        runner.loaded[order.digest] = order.compiler
        assert len(runner.loaded) <= self.settings.modules_per_runner
        runner.busy = order

    def _answer(self, action: a.Action) -> None:
        if isinstance(action, a.Spawn):
            self.ready(action.slot)
        elif isinstance(action, a.FindArtifact):
            self.answer_find()
        elif isinstance(action, a.FindFiles):
            self.event(self.files.look())
        elif isinstance(action, a.Kill):
            self.die(action.slot, "killed by SIGKILL")
        elif isinstance(action, a.KillCompiler) and action.digest in self.compiling:
            compiler = self.compiling.pop(action.digest).compiler
            stopped = "Compiling the module was stopped by the worker."
            self.event(e.CompileFinished(action.digest, compiler, "compile_limit", stopped, False, 0, 5.0))

    # --- common beginnings ---

    @property
    def queue(self) -> int:
        return len(self.core.execution.jobs)


def registered(**settings: object) -> Driver:
    """A worker that the broker has taken in, nothing to do."""
    driver = Driver(**settings)  # type: ignore[arg-type]
    driver.register()
    driver.sent.clear()
    driver.done_actions.clear()
    return driver


def running(job: m.JobRef, wasm: bytes = b"hello", **settings: object) -> Driver:
    """A worker that runs a job on slot 0; its module was on disk."""
    driver = registered(**settings)
    driver.disk[digest_of(wasm)] = False
    driver.dispatch(job, wasm)
    assert driver.runners[0].busy is not None
    driver.done_actions.clear()
    return driver
