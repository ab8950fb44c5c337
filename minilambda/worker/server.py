"""The agent's shell: one DEALER, one thread, one poll loop around the core.

It decodes, calls the core and carries its actions out; it owns every descriptor and decides nothing. The only thread
beside the loop's is the one inside ``stores``, which writes artifacts to disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import random
import select
import signal
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import zmq

from minilambda import messages as m
from minilambda import sockets, wire
from minilambda._version import __version__
from minilambda.fields import MAX_FRAME
from minilambda.settings import COMPILERS, WorkerSettings
from minilambda.worker import actions as a
from minilambda.worker import rehearsal, releases, toolchain
from minilambda.worker.awake import Awake
from minilambda.worker.core import Core
from minilambda.worker.dealer import Dealer
from minilambda.worker.entry import Entry
from minilambda.worker.events import CompileFinished
from minilambda.worker.processes import Processes
from minilambda.worker.stores import WasmFiles, open_artifacts
from minilambda.worker.words import Identity

log = logging.getLogger("minilambda.worker")

BATCH = 64
"""Descriptors that are looked at in one turn."""

OUTBOX = 4096
"""Messages that wait for a broker that does not take them, at most; then the connection is made anew."""

RETRY, LONGEST = 0.05, 3600.0  # how long a turn waits at most, seconds: if the broker takes no message, and otherwise

_ACCEPTED = wire.by_name((*m.BROKER_MESSAGES, m.Refused))
_MAX_BODY = 8 * MAX_FRAME


class Worker:
    """A worker's agent. ``run`` is its whole life."""

    def __init__(
        self,
        settings: WorkerSettings,
        endpoint: str,
        name: str,
        cache_dir: Path,
        on_registered: Callable[[], None] | None = None,
        on_unanswered: Callable[[], None] | None = None,
        entry: Entry | None = None,
    ) -> None:
        settings = dataclasses.replace(settings, compiler=toolchain.available(settings.compiler))
        identity = Identity(uuid.uuid4().hex, name, __version__, socket.gethostname()[:128], os.getpid())
        self._core = Core(settings, identity, random.random)
        self._endpoint = endpoint
        self._on_registered = on_registered
        self._entry = entry or Entry(endpoint)
        self._entry.on_unanswered = on_unanswered
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer: Dealer | None = None
        self._outbox: deque[list[bytes]] = deque()  # messages of this turn, or that could not be sent yet
        marks = {compiler: toolchain.fingerprint(compiler) for compiler in COMPILERS[settings.compiler]}
        self._artifacts = open_artifacts(cache_dir, marks, settings.cache_bytes)
        self._processes = Processes.of_worker(settings, self._artifacts.readable, self._core.words.know_walls)
        self._wasm = WasmFiles()
        self._awake = Awake() if settings.low_latency else None
        self._epoll = select.epoll()
        self._polled: set[int] = set()  # descriptors of the processes that are polled
        self._generation = -1  # of the processes' descriptors that are polled
        self._signals, self._signal_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wait = 0.0  # how long the next turn may wait for something to happen, seconds
        self._stopping = False

    # --- life ---

    def run(self) -> int:
        """Serves until it is drained. Returns the exit code."""
        sockets.seed_libzmq()
        self._connect()
        self._processes.start()
        rehearsal.rehearse()
        self._epoll.register(self._signals, select.EPOLLIN)
        gc.collect()
        gc.freeze()  # what is there by now stays: no collection needs to look at it
        try:
            self._carry_out(self._core.start(), time.monotonic())
            while not self._stopping:
                self._turn()
        finally:
            self._close()
        return 0

    def request_drain(self) -> None:
        """Asks for a drain; safe in a signal handler. A second one exits at once."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._signal_writer, b"d")

    def _connect(self) -> Dealer:
        if self._dealer is not None:
            self._epoll.unregister(self._dealer.fd)
            self._dealer.close(0)
        self._dealer = Dealer(self._context, self._endpoint, self._entry)
        self._epoll.register(self._dealer.fd, select.EPOLLIN)
        self._outbox.clear()
        return self._dealer

    def _close(self) -> None:
        self._flush()
        self._processes.close()
        self._artifacts.close()
        self._wasm.close()
        if self._dealer is not None:
            self._dealer.close(1000)
        self._context.term()
        self._epoll.close()
        os.close(self._signals)
        os.close(self._signal_writer)

    # --- the loop ---

    def _turn(self) -> None:
        """Waits for something to happen, and does all that follows from it.

        What the runners say is acted on first, then one message, and at last all that is to be told the broker is sent:
        a free runner waits for its next order, and one wake-up of libzmq's thread serves all that is sent.
        """
        core, dealer = self._core, self._dealer or self._connect()
        if self._generation != self._processes.generation:
            self._watch_processes()
        waiting = dealer.waiting()
        ready = self._epoll.poll(0.0 if waiting else self._wait, BATCH)
        now = time.monotonic()  # for the whole turn: what is due is late by as much as a turn takes, at most
        for fd, _ in ready:
            if fd == dealer.fd:
                waiting = True
            elif fd == self._signals:
                for _ in os.read(self._signals, 64):
                    self._carry_out(core.handle(a.Drain(), now), now)
            else:
                for event in self._processes.readable(fd):
                    if type(event) is CompileFinished and event.code is None:
                        self._adopt(event)
                    self._carry_out(core.handle(event, now), now)
        if waiting:
            self._receive(dealer, now)
        if now >= core.due:
            self._carry_out(core.tick(now), now)
            self._entry.tell(core.link)
        wait = core.due - now  # below zero where an action of the tick was answered at once
        longest = LONGEST if self._awake is None else self._awake.look(now)
        self._wait = 0.0 if wait < 0.0 else wait if wait < longest else longest
        if self._outbox:
            self._flush()

    def _watch_processes(self) -> None:
        self._generation = self._processes.generation
        now = set(self._processes.descriptors())
        for fd in self._polled - now:
            with contextlib.suppress(OSError):  # closed meanwhile, as a rule
                self._epoll.unregister(fd)
        for fd in now:
            with contextlib.suppress(FileExistsError):  # a known number may stand for another process by now
                self._epoll.register(fd, select.EPOLLIN)
        self._polled = now

    def _receive(self, dealer: Dealer, now: float) -> None:
        """Acts on the next message of the broker's."""
        frames = dealer.receive()
        if not frames:
            return
        if frames[0]:
            log.warning("dropped a message without a delimiter")
            return
        try:
            message = wire.decode(frames[1:], _ACCEPTED, _MAX_BODY)
        except wire.Malformed as error:
            log.warning("dropped a message: %s", error.error.message)
            return
        if type(message) is m.Refused:
            self._entry.refuse(message.message)
            return
        before = self._core.link.session
        self._carry_out(self._core.receive(message, now), now)
        if not before and self._core.link.session:
            self._entry.taken()
            if self._on_registered:
                self._on_registered()

    def _adopt(self, event: CompileFinished) -> None:
        fd = self._processes.take_artifact(event.digest, event.compiler)
        self._artifacts.adopt(event.digest, event.compiler, event.component, fd)

    def _carry_out(self, actions: list[a.Action], now: float) -> None:
        """Carries out in the order of the core's decisions, those too that follow from an answer on the way."""
        for action in actions:
            answer = self._ACTIONS[type(action)](self, action)
            if answer is not None:
                actions += self._core.handle(answer, now)  # the loop goes on to these

    # --- actions: what answers one of them at once is returned ---

    def _send(self, action: a.Send) -> None:
        message = action.message
        if type(message) is m.Register:
            if self._entry.broken:
                self._connect()
            self._outbox.clear()  # it tells all that is still true, and one registration is enough
        self._outbox.append(wire.encode(message))

    def _flush(self) -> None:
        dealer = self._dealer or self._connect()
        while self._outbox and dealer.send(self._outbox[0]):
            self._outbox.popleft()
        if self._outbox:
            self._wait = min(self._wait, RETRY)
        if len(self._outbox) > OUTBOX:
            log.warning("the broker takes no messages; connecting again")
            self._connect()

    def _reconnect(self, action: a.Reconnect) -> None:
        log.warning("the broker is silent; connecting again")
        self._connect()

    def _find_artifact(self, action: a.FindArtifact) -> a.Event:
        return self._artifacts.find(action.digest, action.compilers, action.alone)

    def _release_artifact(self, action: a.ReleaseArtifact) -> None:
        self._artifacts.release(action.digest, action.compiler)

    def _drop_artifact(self, action: a.DropArtifact) -> None:
        self._artifacts.drop(action.digest, action.compiler, action.corrupt)

    def _keep_wasm(self, action: a.KeepWasm) -> None:
        self._wasm.keep(action.digest, action.offset, action.data)

    def _drop_wasm(self, action: a.DropWasm) -> None:
        self._wasm.drop(action.digest)

    def _compile(self, action: a.Compile) -> None:
        self._processes.compile(action.order, self._wasm.descriptor(action.order.digest))

    def _kill_compiler(self, action: a.KillCompiler) -> None:
        self._processes.kill_compiler(action.digest)

    def _spawn(self, action: a.Spawn) -> None:
        self._processes.spawn(action.slot)

    def _start_run(self, action: a.StartRun) -> None:
        if self._awake is not None:
            self._awake.stay()
        order = action.order
        artifact = self._artifacts.descriptor(order.digest, order.compiler) if order.load else None
        self._processes.run(action.slot, order, artifact)

    def _kill(self, action: a.Kill) -> None:
        self._processes.kill(action.slot)

    def _look(self, action: a.Look) -> a.Event:
        return self._processes.look(action.slot)

    def _exit(self, action: a.Exit) -> None:
        self._stopping = True

    _ACTIONS: ClassVar[dict[type, Callable[[Any, Any], a.Event | None]]] = {
        a.Send: _send,
        a.Reconnect: _reconnect,
        a.FindArtifact: _find_artifact,
        a.ReleaseArtifact: _release_artifact,
        a.DropArtifact: _drop_artifact,
        a.KeepWasm: _keep_wasm,
        a.DropWasm: _drop_wasm,
        a.Compile: _compile,
        a.KillCompiler: _kill_compiler,
        a.Spawn: _spawn,
        a.StartRun: _start_run,
        a.Kill: _kill,
        a.Look: _look,
        a.Exit: _exit,
    }


def run_worker(
    settings: WorkerSettings,
    endpoint: str,
    name: str,
    cache_dir: Path,
    on_registered: Callable[[str], None] | None = None,
    on_unanswered: Callable[[], None] | None = None,
    entry: Entry | None = None,
) -> int:
    """Runs a worker in this process until SIGTERM or SIGINT drains it; a second signal ends it at once.

    ``on_registered`` is called with the worker's name each time the broker has taken it in, ``on_unanswered`` when
    none has answered for some seconds; ``entry`` has the keys. Returns the exit code. Raises ``MinilambdaError`` when
    the platform or the cache directory can't serve.
    """
    releases.warn()
    tell = (lambda: on_registered(name)) if on_registered else None
    worker = Worker(settings, endpoint, name, cache_dir, tell, on_unanswered, entry)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: worker.request_drain())
    return worker.run()
