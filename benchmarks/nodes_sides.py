"""Two ways to bring jobs to the same workers: through minilambda's broker, or pushed to a worker at once.

``Ours`` is a client of the real broker. ``Push`` is a broker of its own that speaks the workers' protocol and places
each job when it comes, at random or in turn, in the queue of a worker, as simple systems do.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import wasmtime
import zmq
from local_cluster import ClusterFailed

from minilambda import sockets
from minilambda.messages import (
    REPLIES,
    WORKER_MESSAGES,
    Acknowledge,
    Beat,
    Dispatch,
    Done,
    Goodbye,
    JobRef,
    JobResult,
    JobSpec,
    ListWorkers,
    Message,
    Register,
    RegisterAgain,
    Registered,
    Report,
    Result,
    Run,
    WorkerList,
)
from minilambda.wire import by_name, decode, encode, split_envelope

NAP = """(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64)) ;; read 8 bytes to 64: how long to sleep, nanoseconds
    (i32.store (i32.const 4) (i32.const 8))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 144) (i32.const 1)) ;; a subscription at 128: the monotonic clock, after that time
    (i64.store (i32.const 152) (i64.load (i32.const 64)))
    (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 512)))))"""
WASM = bytes(wasmtime.wat2wasm(NAP))
DIGEST = "sha256:" + hashlib.sha256(WASM).hexdigest()
SPEC = JobSpec(DIGEST)
ANSWERS = by_name(REPLIES)
WORDS = by_name(WORKER_MESSAGES)
READY_S = 300.0  # all workers must be there after so long, seconds
LOOK_S = 0.05  # the list of workers is asked for so often
MOST = 1 << 22  # bytes of bodies in one message


@dataclass(frozen=True)
class Ended:
    """A job that has ended."""

    job: str
    at: float  # when the result came, monotonic seconds
    run_s: float  # of that the guest's own time, start to end, seconds


class Side(ABC):
    """What the load sees of either: a socket, ``submit``, and what has ended."""

    name = ""

    def __init__(self, kind: int) -> None:
        sockets.seed_libzmq()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self._context.term()

    @abstractmethod
    def submit(self, sleep_s: float) -> str:
        """Begin a job that sleeps so long; its id."""

    def ended(self, wait_s: float) -> list[Ended]:
        """What has ended, after at most ``wait_s`` seconds."""
        found: list[Ended] = []
        if self.socket.poll(max(0, int(wait_s * 1000))):
            while True:
                try:
                    frames = self.socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                found += self._hear(frames)
        return found

    @abstractmethod
    def _hear(self, frames: list[bytes]) -> list[Ended]:
        """What a message says has ended."""

    def _until(self, condition: Callable[[], bool], check: Callable[[], None], what: str) -> None:
        end = time.monotonic() + READY_S
        while not condition():
            check()
            if time.monotonic() > end:
                raise ClusterFailed(f"Not within {READY_S:g} s: {what}.")


class Ours(Side):
    """A client of the real broker."""

    name = "minilambda"

    def __init__(self, address: str) -> None:
        super().__init__(zmq.DEALER)
        self.socket.connect(f"tcp://{address}")
        self._requests = 0
        self._idle = 0  # workers, at the last look
        self._module = WASM  # to send along; once is enough

    def wait_ready(self, count: int, check: Callable[[], None]) -> None:
        """Wait until so many workers are idle."""

        def there() -> bool:
            self._requests += 1
            self._say(ListWorkers(self._requests))
            self.ended(1.0)
            threading.Event().wait(LOOK_S)
            return self._idle == count

        self._until(there, check, f"{count} workers are idle")

    def submit(self, sleep_s: float) -> str:
        self._requests += 1
        job = uuid.uuid4().hex
        self._say(Run(self._requests, job, SPEC, wasm=self._module, stdin=_nanoseconds(sleep_s)))
        self._module = b""
        return job

    def _say(self, message: Message) -> None:
        self.socket.send_multipart([b"", *encode(message)])

    def _hear(self, frames: list[bytes]) -> list[Ended]:
        reply = decode(frames[1:], ANSWERS, MOST)
        if isinstance(reply, WorkerList):
            self._idle = sum(row["state"] == "idle" for row in reply.workers)
            return []
        if not isinstance(reply, JobResult):
            raise ClusterFailed(f"a job was answered with {reply}.")
        return [_ended(reply.job, reply.result)]


class Push(Side):
    """A broker that gives each job to a worker when it comes: at random, or to each in turn."""

    def __init__(self, address: str, name: str, seed: int) -> None:
        super().__init__(zmq.ROUTER)
        self.name = name
        sockets.common_options(self.socket, f"tcp://{address}")
        self.socket.bind(f"tcp://{address}")
        self._random = random.Random(seed)
        self._sessions: dict[int, list[bytes]] = {}  # session to route
        self._session_of: dict[str, int] = {}  # worker id to session
        self._sent: dict[int, int] = {}  # session to its last dispatch
        self._order: list[int] = []  # sessions
        self._open: set[str] = set()  # jobs that have not ended
        self._next = time.time_ns() // 1000  # session
        self._turn = 0

    def wait_ready(self, count: int, check: Callable[[], None]) -> None:
        """Wait until so many workers are registered."""

        def there() -> bool:
            self.ended(1.0)
            return len(self._session_of) == count

        self._until(there, check, f"{count} workers are registered")
        self._order = list(self._session_of.values())

    def submit(self, sleep_s: float) -> str:
        self._turn += 1
        session = self._order[self._turn % len(self._order)]
        if self.name == "random":
            session = self._random.choice(self._order)
        job = uuid.uuid4().hex
        first = WASM if not self._sent[session] else b""
        self._sent[session] += 1
        ref, stdin = JobRef("local", job, 1), _nanoseconds(sleep_s)
        self._open.add(job)
        self._say(
            self._sessions[session],
            Dispatch(session, self._sent[session], ref, SPEC, len(WASM), wasm=first, stdin=stdin),
        )
        return job

    def _say(self, route: list[bytes], message: Message) -> None:
        self.socket.send_multipart([*route, *encode(message)])

    def _hear(self, frames: list[bytes]) -> list[Ended]:
        parts = split_envelope(frames)
        if parts is None:
            return []
        route, message = list(parts[0]), decode(parts[1], WORDS, MOST)
        if isinstance(message, Register):
            self._register(route, message)
            return []
        session = getattr(message, "session", 0)
        if session not in self._sessions:
            self._say(route, RegisterAgain())
        elif isinstance(message, Report):
            self._say(route, Beat(session))
        elif isinstance(message, Goodbye):
            raise ClusterFailed("a worker has left.")
        elif isinstance(message, Done):
            self._say(route, Acknowledge(session, message.ref, stale=message.ref.job not in self._open))
            if message.ref.job in self._open:
                self._open.remove(message.ref.job)
                return [_ended(message.ref.job, message.result)]
        return []

    def _register(self, route: list[bytes], message: Register) -> None:
        if self._order:
            raise ClusterFailed(f"{message.name} has registered anew while jobs ran.")
        self._next += 1
        self._sessions.pop(self._session_of.get(message.worker, 0), None)
        self._session_of[message.worker] = self._next
        self._sessions[self._next], self._sent[self._next] = route, 0
        self._say(route, Registered(message.worker, self._next, 1000, 5000, 60_000))


def _nanoseconds(seconds: float) -> bytes:
    return int(seconds * 1e9).to_bytes(8, "little")


def _ended(job: str, result: Result) -> Ended:
    if result.state != "completed":
        raise ClusterFailed(f"a job ended as {result.state}: {result.error}")
    return Ended(job, time.monotonic(), result.usage.run_ms / 1000)
