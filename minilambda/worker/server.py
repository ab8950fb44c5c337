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
from typing import Any

import zmq

from minilambda import messages as m
from minilambda import sockets, wire
from minilambda._version import __version__
from minilambda.awake import Awake
from minilambda.fields import MAX_FRAME
from minilambda.settings import COMPILERS, WorkerSettings
from minilambda.worker import actions as a
from minilambda.worker import rehearsal, releases, toolchain
from minilambda.worker.core import Core
from minilambda.worker.dealer import Dealer
from minilambda.worker.entry import Entry
from minilambda.worker.events import CompileFinished
from minilambda.worker.file_trees import Files
from minilambda.worker.hands import Hands
from minilambda.worker.processes import Processes
from minilambda.worker.stores import open_artifacts
from minilambda.worker.telemetry import Telemetry, Wanted
from minilambda.worker.words import Identity

log = logging.getLogger("minilambda.worker")

BATCH = 64
"""Descriptors that are looked at in one turn."""

OUTBOX = 4096
"""Messages that wait for a broker that does not take them, at most; then the connection is made anew."""

RETRY, LONGEST = 0.05, 3600.0  # how long a turn waits at most, seconds: if the broker takes no message, and otherwise

_ACCEPTED = wire.by_name((*m.BROKER_MESSAGES, m.Refused))
_STEPS = frozenset({m.Dispatch, m.Chunk, m.Feed})  # what brings a job further, so that more is soon to be done
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
        wanted: Wanted | None = None,
    ) -> None:
        self._awake = Awake.wanted(settings.awake)  # None: processors may sleep whenever they like
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
        artifacts = open_artifacts(cache_dir, marks, settings.cache_bytes)
        self._processes = Processes.of_worker(settings, artifacts.readable, self._core.words.know_walls)
        self._files = Files(cache_dir, settings.cache_bytes)
        self._meters = self._core.meters
        self._hands = Hands(artifacts, self._files, self._processes, self._meters)
        self._telemetry = Telemetry(wanted or Wanted(), self._core, cache_dir)
        self._acts: dict[type, Callable[[Any], a.Event | None]] = {
            a.Send: self._send,
            a.Reconnect: self._reconnect,
            a.Exit: self._exit,
            a.JobEnded: self._telemetry.tell,
            **self._hands.acts,
        }
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
        self._core.execution.have(self._hands.look_ahead())
        self._epoll.register(self._signals, select.EPOLLIN)
        self._epoll.register(self._files.doorbell, select.EPOLLIN)
        gc.collect()
        gc.freeze()  # what is there by now stays: no collection needs to look at it
        self._telemetry.start()
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
        self._telemetry.close()
        self._hands.close()
        if self._awake is not None:
            self._awake.close()
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
            elif fd in self._polled:
                if self._awake is not None:
                    self._awake.step(now)
                for event in self._processes.readable(fd):
                    if type(event) is CompileFinished:
                        self._hands.compiled(event)
                    self._carry_out(core.handle(event, now), now)
            elif fd == self._signals:
                for _ in os.read(self._signals, 64):
                    self._carry_out(core.handle(a.Drain(), now), now)
            elif fd == self._files.doorbell.fileno():
                for answer in self._files.doorbell.answer():
                    self._carry_out(core.handle(answer, now), now)
        if waiting:
            self._receive(dealer, now)
        if now >= core.due:
            self._carry_out(core.tick(now), now)
            self._entry.tell(core.link, ending=core.draining)
        wait = core.due - now  # below zero where an action of the tick was answered at once
        longest = LONGEST if self._awake is None else self._awake.look(now, LONGEST)
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
        meters = self._meters
        if meters.counting:
            meters.received_messages += 1
            meters.received_bytes += sum(map(len, frames))
        if frames[0]:
            meters.rejected["no_envelope"] += 1
            log.warning("dropped a message without a delimiter")
            return
        try:
            message = wire.decode(frames[1:], _ACCEPTED, _MAX_BODY)
        except wire.Malformed as error:
            meters.rejected["malformed"] += 1
            log.warning("dropped a message: %s", error.error.message)
            return
        if self._awake is not None and type(message) in _STEPS:
            self._awake.step(now)
        elif type(message) is m.Refused:
            self._entry.refuse(message.message)
            return
        before = self._core.link.session
        self._carry_out(self._core.receive(message, now), now)
        if not before and self._core.link.session:
            self._entry.taken()
            if self._on_registered:
                self._on_registered()

    def _carry_out(self, actions: list[a.Action], now: float) -> None:
        """Carries out in the order of the core's decisions, those too that follow from an answer on the way."""
        for action in actions:
            answer = self._acts[type(action)](action)
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
        meters = self._meters
        while self._outbox and dealer.send(self._outbox[0]):
            frames = self._outbox.popleft()
            if meters.counting:
                meters.sent_messages += 1
                meters.sent_bytes += sum(map(len, frames))
        if self._outbox:
            self._wait = min(self._wait, RETRY)
        if len(self._outbox) > OUTBOX:
            log.warning("the broker takes no messages; connecting again")
            self._connect()

    def _reconnect(self, action: a.Reconnect) -> None:
        if not self._core.draining:  # one that ends has nothing to say about a broker that may have ended with it
            log.warning("the broker is silent; connecting again")
        self._connect()

    def _exit(self, action: a.Exit) -> None:
        self._stopping = True


def run_worker(
    settings: WorkerSettings,
    endpoint: str,
    name: str,
    cache_dir: Path,
    on_registered: Callable[[str], None] | None = None,
    on_unanswered: Callable[[], None] | None = None,
    entry: Entry | None = None,
    wanted: Wanted | None = None,
) -> int:
    """Runs a worker in this process until SIGTERM or SIGINT drains it; a second signal ends it at once.

    ``on_registered`` is called with the worker's name each time the broker has taken it in, ``on_unanswered`` when
    none has answered for some seconds; ``entry`` has the keys, ``wanted`` what those get who watch over the worker.
    Returns the exit code. Raises ``MinilambdaError`` when the platform or the cache directory can't serve.
    """
    releases.warn()
    tell = (lambda: on_registered(name)) if on_registered else None
    worker = Worker(settings, endpoint, name, cache_dir, tell, on_unanswered, entry, wanted)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: worker.request_drain())
    return worker.run()
