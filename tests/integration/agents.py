"""A stand-in for the agent's shell: it polls the processes' layer and collects the events."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import select
import time
from collections.abc import Iterator
from typing import Any, TypeVar

from minilambda.worker.events import (
    CompileFinished,
    CompileOrder,
    ProcessEvent,
    RunnerDied,
    RunnerFinished,
    RunnerReady,
    RunOrder,
)
from minilambda.worker.processes import Processes
from tests import wat

MAX_WAIT_S = 40
MIB = 1 << 20

BIG_VALUE = """(component
  (core module $m
    (memory (export "memory") 8)
    (data (i32.const 0) "\\10\\00\\00\\00\\40\\0d\\03\\00")
    (func (export "big") (result i32) (i32.const 0)))
  (core instance $i (instantiate $m))
  (func (export "big") (result (list u8)) (canon lift (core func $i "big") (memory (core memory $i "memory")))))"""
"""A component whose function ``big`` answers 200,000 bytes."""

E = TypeVar("E", bound=ProcessEvent)

ORDER = RunOrder(
    digest="",
    component=False,
    load=True,
    evict=(),
    args=(),
    env=(),
    invoke=None,
    values=None,
    stdin=b"",
    timeout_ms=60_000,
    memory_bytes=64 * MIB,
    output_bytes=16 * MIB,
    unknown_imports="error",
)


def memfd(content: bytes) -> int:
    fd = os.memfd_create("test")
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    return fd


@functools.cache
def slow_module() -> bytes:
    """A module that takes seconds to compile."""
    body = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 7)) (i32.xor (local.get 0) (i32.const 3))))" * 400
    branches = f"(if (local.get 0) (then {body}) (else {body}))"
    functions = f"(func (param i32) (result i32) {branches * 4} (local.get 0))" * 250
    return wat.wasm(f"(module {functions})")


def named(name: str, module: bytes) -> bytes:
    """The module under another hash, with its name in a section that no compiler looks at."""
    section = bytes([len(name)]) + name.encode()
    return module + bytes([0, len(section)]) + section


class Agent:
    """The processes under test, and the events that have come and were not asked for yet."""

    def __init__(self, slots: int = 2, compilers: int = 2) -> None:
        self.processes = Processes(slots, compilers=compilers)
        self.events: list[ProcessEvent] = []
        self.artifacts: dict[str, int] = {}

    def start(self, *slots: int) -> None:
        self.processes.start()
        for slot in slots:
            self.spawn(slot)

    def poll(self, timeout_s: float) -> None:
        """Collect what happens next."""
        poller = select.poll()
        for fd in self.processes.descriptors():
            poller.register(fd, select.POLLIN)
        for fd, _ in poller.poll(timeout_s * 1e3):
            self.events += self.processes.readable(fd)

    def next(self, kind: type[E]) -> E:
        """The next event, which must be of this kind."""
        deadline = time.monotonic() + MAX_WAIT_S
        while not self.events:
            assert time.monotonic() < deadline, f"no {kind.__name__} came"
            self.poll(1)
        event = self.events.pop(0)
        assert isinstance(event, kind), event
        return event

    def spawn(self, slot: int) -> None:
        self.processes.spawn(slot)
        assert self.next(RunnerReady).slot == slot

    def compile(self, module: str | bytes, **limits: int) -> CompileFinished:
        order = compile_order(module, **limits)
        self.order_compile(order, module)
        return self.next(CompileFinished)

    def order_compile(self, order: CompileOrder, module: str | bytes) -> None:
        fd = memfd(module if isinstance(module, bytes) else wat.wasm(module))
        self.processes.compile(order, fd)
        os.close(fd)

    def begin(self, slot: int, module: str, **fields: Any) -> None:
        """Have a guest run; its artifact is made first, if need be."""
        if module not in self.artifacts:
            done = self.compile(module)
            assert done.code is None, done
            self.artifacts[module] = self.processes.take_artifact(done.digest, done.compiler)
        order = ORDER._replace(digest=name_of(module), **fields)
        self.processes.run(slot, order, self.artifacts[module] if order.load else None)

    def run(self, slot: int, module: str, **fields: Any) -> RunnerFinished:
        self.begin(slot, module, **fields)
        return self.next(RunnerFinished)

    def kill(self, slot: int) -> RunnerDied:
        self.processes.kill(slot)
        return self.next(RunnerDied)

    def wait_for_output(self, slot: int, size: int) -> None:
        deadline = time.monotonic() + MAX_WAIT_S
        while self.processes.look(slot).size < size:
            assert time.monotonic() < deadline, "the guest wrote too little"

    def settle(self, children: int) -> None:
        """Wait until there are so many processes, all forked and known, the template not counted."""
        deadline = time.monotonic() + MAX_WAIT_S
        known = self.processes._children
        while not (
            len(self.pids()) == len(known) + 1 == children + 1
            and all(child.pid is not None for child in known.values())
        ):
            assert time.monotonic() < deadline, "too many processes, or too few"
            self.poll(1)

    def pid(self, slot: int) -> int:
        runner = self.processes._runners[slot]
        deadline = time.monotonic() + MAX_WAIT_S
        while runner.pid is None:  # it may be ready before the template has told of it
            assert time.monotonic() < deadline, "the template told nothing"
            self.poll(1)
        return runner.pid

    def pids(self) -> list[int]:
        """The template and all that it has forked for us."""
        template = self.processes._template
        assert template is not None
        return [template.pid, *(child.pid for child in self.processes._children.values() if child.pid is not None)]

    def close(self) -> None:
        self.processes.close()
        for fd in self.artifacts.values():
            os.close(fd)
        self.artifacts.clear()


@contextlib.contextmanager
def running_agent(slots: int = 2, compilers: int = 2) -> Iterator[Agent]:
    """An agent that must leave no process behind."""
    agent = Agent(slots, compilers)
    try:
        yield agent
        pids = agent.pids() if agent.processes._template else []
    finally:
        agent.close()
    assert [pid for pid in pids if lives(pid)] == []


def name_of(module: str | bytes) -> str:
    return "sha256:" + hashlib.sha256(module if isinstance(module, bytes) else wat.wasm(module)).hexdigest()


def compile_order(module: str | bytes, timeout_ms: int = 60_000, memory_bytes: int = 1024 * MIB) -> CompileOrder:
    return CompileOrder(name_of(module), timeout_ms, memory_bytes)


def lives(pid: int) -> bool:
    """The process is there and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_dead(pids: list[int]) -> None:
    deadline = time.monotonic() + MAX_WAIT_S
    while alive := [pid for pid in pids if lives(pid)]:
        assert time.monotonic() < deadline, f"still alive: {alive}"
        os.sched_yield()
