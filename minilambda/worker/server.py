"""The agent's shell: one DEALER, one thread, one poll loop around the core.

It decodes, calls the core and carries its actions out; it owns every descriptor and decides nothing. The only thread
beside the loop's is the one inside ``stores``, which writes artifacts to disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import socket
import sys
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
from minilambda.settings import WorkerSettings
from minilambda.worker import actions as a
from minilambda.worker.core import Core
from minilambda.worker.events import CompileFinished, ProcessEvent
from minilambda.worker.processes import Processes
from minilambda.worker.stores import WasmFiles, open_artifacts
from minilambda.worker.toolchain import fingerprint
from minilambda.worker.words import Identity

log = logging.getLogger("minilambda.worker")

COMPILER = "cranelift"
"""The compiler whose artifacts this worker makes and runs."""

BATCH = 64
"""Messages taken from the socket before the time is looked at again."""

UNANSWERED = 3
"""Registrations in a row without an answer after which people are told."""

OUTBOX = 4096
"""Messages that wait for a broker that does not take them, at most; then the connection is made anew."""

_ACCEPTED = wire.by_name(m.BROKER_MESSAGES)
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
    ) -> None:
        identity = Identity(uuid.uuid4().hex, name, __version__, socket.gethostname()[:128], os.getpid())
        self._core = Core(settings, identity, random.random)
        self._endpoint = endpoint
        self._on_registered = on_registered
        self._on_unanswered = on_unanswered
        self._told = False  # that no broker answers, since the last registration
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._outbox: list[list[bytes]] = []  # could not be sent yet
        self._processes = Processes(settings.slots, COMPILER, settings.compilers)
        self._artifacts = open_artifacts(cache_dir, fingerprint(COMPILER), settings.cache_bytes)
        self._wasm = WasmFiles()
        self._poller = zmq.Poller()
        self._polled: set[int] = set()  # descriptors of the processes in the poller
        self._generation = -1  # of the processes' descriptors in the poller
        self._signals, self._signal_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._actions: deque[a.Action] = deque()  # decided and not carried out, the present one first
        self._stopping = False

    # --- life ---

    def run(self) -> int:
        """Serves until it is drained. Returns the exit code."""
        sockets.seed_libzmq()
        self._connect()
        self._processes.start()
        self._poller.register(self._signals, zmq.POLLIN)
        try:
            self._carry_out(self._core.start())
            while not self._stopping:
                self._turn()
        finally:
            self._close()
        return 0

    def request_drain(self) -> None:
        """Asks for a drain; safe in a signal handler. A second one exits at once."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._signal_writer, b"d")

    def _connect(self) -> None:
        if self._socket is not None:
            self._poller.unregister(self._socket)
            self._socket.close(linger=0)
        self._socket = self._context.socket(zmq.DEALER)
        sockets.common_options(self._socket, self._endpoint)
        sockets.connecting_options(self._socket)
        self._socket.connect(self._endpoint)
        self._poller.register(self._socket, zmq.POLLIN)
        self._outbox.clear()

    def _close(self) -> None:
        self._flush()
        self._processes.close()
        self._artifacts.close()
        self._wasm.close()
        if self._socket is not None:
            self._socket.close(linger=1000)
        self._context.term()
        os.close(self._signals)
        os.close(self._signal_writer)

    # --- the loop ---

    def _turn(self) -> None:
        if self._generation != self._processes.generation:
            self._watch_processes()
        for source, _ in self._poller.poll(self._patience()):
            if source is self._socket:
                self._receive()
            elif source == self._signals:
                for _ in os.read(self._signals, 64):
                    self._handle(a.Drain())
            else:
                for event in self._processes.readable(source):
                    self._process_event(event)
        self._carry_out(self._core.tick(time.monotonic()))
        self._flush()
        self._tell()

    def _tell(self) -> None:
        """Say once for each time without a broker that none answers."""
        unanswered = not self._core.link.session and self._core.link.tries >= UNANSWERED
        if unanswered and not self._told and self._on_unanswered:
            self._on_unanswered()
        self._told = unanswered

    def _patience(self) -> int | None:
        """How long to poll, milliseconds."""
        deadline = self._core.next_deadline()
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._outbox:
            wait = min(0.05, wait if wait is not None else 0.05)
        return None if wait is None else int(wait * 1000) + 1 if wait > 0 else 0

    def _watch_processes(self) -> None:
        self._generation = self._processes.generation
        now = set(self._processes.descriptors())
        for fd in self._polled - now:
            self._poller.unregister(fd)
        for fd in now - self._polled:
            self._poller.register(fd, zmq.POLLIN)
        self._polled = now

    def _receive(self) -> None:
        assert self._socket is not None
        for _ in range(BATCH):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            parts = wire.split_envelope(frames)
            if parts is None:
                log.warning("dropped a message without a delimiter")
                continue
            try:
                message = wire.decode(parts[1], _ACCEPTED, _MAX_BODY)
            except wire.Malformed as error:
                log.warning("dropped a message: %s", error.error.message)
                continue
            before = self._core.link.session
            self._handle(a.Received(message))
            if self._core.link.session and not before and self._on_registered:
                self._on_registered()

    def _process_event(self, event: ProcessEvent) -> None:
        if isinstance(event, CompileFinished) and event.code is None:
            fd = self._processes.take_artifact(event.digest)
            self._artifacts.adopt(event.digest, event.component, fd)
        self._handle(event)

    def _handle(self, event: a.Event) -> None:
        self._carry_out(self._core.handle(event, time.monotonic()))

    def _carry_out(self, actions: list[a.Action]) -> None:
        """Carries out in the order of the core's decisions, those too that follow from an answer on the way."""
        self._actions.extend(actions)
        if len(self._actions) > len(actions):
            return  # the call that began them goes on to these
        while self._actions:
            action = self._actions[0]
            self._ACTIONS[type(action)](self, action)
            self._actions.popleft()

    # --- actions ---

    def _send(self, action: a.Send) -> None:
        frames = [b"", *wire.encode(action.message)]
        if isinstance(action.message, m.Register):
            self._outbox.clear()  # it tells all that is still true, and one registration is enough
        if self._outbox or not self._try_send(frames):
            self._outbox.append(frames)
            if len(self._outbox) > OUTBOX:
                log.warning("the broker takes no messages; connecting again")
                self._connect()

    def _try_send(self, frames: list[bytes]) -> bool:
        assert self._socket is not None
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _flush(self) -> None:
        while self._outbox and self._try_send(self._outbox[0]):
            del self._outbox[0]

    def _reconnect(self, action: a.Reconnect) -> None:
        log.warning("the broker is silent; connecting again")
        self._connect()

    def _find_artifact(self, action: a.FindArtifact) -> None:
        self._handle(self._artifacts.find(action.digest))

    def _release_artifact(self, action: a.ReleaseArtifact) -> None:
        self._artifacts.release(action.digest)

    def _drop_artifact(self, action: a.DropArtifact) -> None:
        self._artifacts.drop(action.digest, action.corrupt)

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
        order = action.order
        artifact = self._artifacts.descriptor(order.digest) if order.load else None
        self._processes.run(action.slot, order, artifact)

    def _kill(self, action: a.Kill) -> None:
        self._processes.kill(action.slot)

    def _look(self, action: a.Look) -> None:
        self._handle(self._processes.look(action.slot))

    def _exit(self, action: a.Exit) -> None:
        self._stopping = True

    _ACTIONS: ClassVar[dict[type, Callable[[Any, Any], None]]] = {
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
) -> int:
    """Runs a worker in this process until SIGTERM or SIGINT drains it; a second signal ends it at once.

    ``on_registered`` is called with the worker's name each time the broker has taken it in, ``on_unanswered`` when
    none has answered for some seconds. Returns the exit code. Raises ``MinilambdaError`` when the platform or the cache
    directory can't serve.
    """
    tell = (lambda: on_registered(name)) if on_registered else None
    worker = Worker(settings, endpoint, name, cache_dir, tell, on_unanswered)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.request_drain())
    if sys.platform == "linux":
        signal.signal(signal.SIGHUP, lambda *_: worker.request_drain())
    return worker.run()
