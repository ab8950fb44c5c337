"""The broker's shell: one ROUTER socket, one thread, one poll loop around the core."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import signal
import socket as sockets
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import zmq

from minilambda._version import __version__
from minilambda.broker.core import Core
from minilambda.broker.events import Action, Event, ModuleSlice, Paused, Received, Rejected, Send
from minilambda.broker.outbox import Flight, Outbox, Outcome
from minilambda.broker.storage import Storage
from minilambda.errors import BadRequest, MinilambdaError
from minilambda.messages import CLIENT_MESSAGES, WORKER_MESSAGES, Chunk, Message, Refused, Request
from minilambda.settings import BadSetting, BrokerSettings
from minilambda.sockets import common_options, seed_libzmq
from minilambda.wire import Malformed, by_name, decode, encode, split_envelope

BATCH = 256
"""Messages taken from the socket before the loop looks at its clocks."""

MAX_SLEEP = 1.0
"""The loop looks around at least so often, and at least twice in a heartbeat, seconds."""

FLUSH_EVERY = 0.02
"""... and so often while something could not be sent, seconds."""

NOW, MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
"""Flags as plain numbers, which cost less to combine for every frame than enums."""

ACCEPTED = by_name(CLIENT_MESSAGES + WORKER_MESSAGES)

log = logging.getLogger(__name__)


def run_broker(
    settings: BrokerSettings,
    endpoint: str,
    on_bound: Callable[[str], None] | None = None,
    insecure: bool = False,
    state_dir: Path | None = None,
) -> int:
    """Run a broker until SIGTERM or SIGINT; returns the exit status.

    ``endpoint`` is as ``settings.endpoint`` gives it; ``on_bound`` gets the one that is really bound. Without keys
    anyone who reaches the socket can run code, so an address beyond this machine needs ``insecure=True``.
    ``state_dir`` has what outlives the broker; without it nothing does. Raises ``BadSetting`` when the address may not
    or can't be bound, ``JournalRefused`` when the directory can't be used.
    """
    if not insecure and not is_local(endpoint):
        text = f"{endpoint} can be reached from other machines, and anyone who reaches it can run code: "
        raise BadSetting(text + "bind to 127.0.0.1, or say --insecure if the network keeps strangers out.")
    server = Server(settings, endpoint, state_dir)
    # Jobs are many, long-lived and free of cycles: looking through them all would only make somebody wait.
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)
    try:
        if on_bound is not None:
            on_bound(server.endpoint)
        server.serve()
    finally:
        server.close()
    return 0


def is_local(endpoint: str) -> bool:
    """Whether only this machine can reach the endpoint."""
    if endpoint.startswith("ipc://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Server:
    """A bound broker. ``serve`` runs it in the calling thread until ``stop``."""

    def __init__(self, settings: BrokerSettings, endpoint: str, state_dir: Path | None = None) -> None:
        seed_libzmq()
        # Numbers of an earlier broker must not come again: a random start, with room to count.
        name, session_start = f"minilambda-broker/{__version__}", int.from_bytes(os.urandom(5), "big") << 20
        self.core = Core(settings, name, session_start, durable=state_dir is not None)
        self._settings = settings
        self._max_sleep = min(MAX_SLEEP, settings.heartbeat / 2)
        self._wake_in, self._wake_out = sockets.socketpair()
        self._wake_in.setblocking(False)
        try:
            self._storage = Storage(state_dir, self._wake)
        except BaseException:
            self._wake_in.close()
            self._wake_out.close()
            raise
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._outbox = Outbox(self._put)
        self._path: Path | None = None  # of the socket that is bound, with ipc://
        self._stopping = False
        try:
            self._carry_out(self.core.recover(self._storage.recover(), time.time(), time.monotonic()))
            self._bind(endpoint)
            self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        except BaseException:
            self.close()
            raise

    def _bind(self, endpoint: str) -> None:
        common_options(self._socket, endpoint)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
        self._socket.setsockopt(zmq.BACKLOG, 1024)
        if endpoint.startswith("ipc://"):
            _remove_stale(endpoint.removeprefix("ipc://"))
        try:
            # libzmq takes interfaces here, not names.
            self._socket.bind(endpoint.replace("tcp://localhost:", "tcp://127.0.0.1:"))
        except zmq.ZMQError as error:
            raise BadSetting(f"{endpoint} can't be bound: {zmq.strerror(error.errno or 0)}.") from None
        if endpoint.startswith("ipc://"):
            self._path = Path(endpoint.removeprefix("ipc://"))

    def close(self) -> None:
        """Write what is to be written, let the last answers go out for a moment, and give everything back."""
        self._storage.close()
        self._hear_disk()
        self._socket.close()
        self._context.term()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._wake_in.close()
        self._wake_out.close()

    def stop(self) -> None:
        """End ``serve`` soon. May be called from another thread or a signal handler."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of earlier calls: the loop wakes anyway
            self._wake_in.send(b"\0")

    def serve(self) -> None:
        """Handle messages until ``stop``; in the main thread SIGTERM and SIGINT stop it too."""
        if threading.current_thread() is not threading.main_thread():
            self._loop()
            return
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._loop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- the loop --------------------------------------------------------------------------------

    def _loop(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_out, zmq.POLLIN)
        # A worker's silence may be a heartbeat old when a pause begins: both together must stay within its liveness.
        allowed = 2 * self._max_sleep
        looked = time.monotonic()
        while not self._stopping:
            ready = poller.poll(self._sleep())
            if time.monotonic() - looked > allowed:
                # The process stood still (or the machine slept): the workers' messages are still on their way in.
                self._handle(Paused())
            looked = time.monotonic()
            empty = self._receive()
            if len(ready) > 1 or (ready and ready[0][0] is not self._socket):
                self._wake_out.recv(4096)
                self._hear_disk()
            self._outbox.flush()
            for event in self._outbox.dropped():
                self._handle(event)
            now = time.monotonic()
            if empty or now - looked > self._settings.heartbeat:
                self._carry_out(self.core.tick(now))

    def _sleep(self) -> int:
        """How long the poll may take, milliseconds, rounded up so that it does not end just before its time."""
        deadline = self.core.next_deadline()
        longest = FLUSH_EVERY if self._outbox.waiting else self._max_sleep
        if deadline is None:
            return int(longest * 1000)
        return max(0, min(int(longest * 1000), math.ceil((deadline - time.monotonic()) * 1000)))

    def _receive(self) -> bool:
        """Handle what has arrived, up to a bound; returns whether that was all."""
        for _ in range(BATCH):
            try:
                frames = self._socket.recv_multipart(NOW)
            except zmq.Again:
                return True
            parts = split_envelope(frames)
            if parts is None:
                self.core.count("no_envelope")
                continue
            route, rest = parts
            try:
                message = decode(rest, ACCEPTED, self._settings.max_request_bytes)
            except Malformed as error:
                self._handle(Rejected(route, error))
            except Exception:  # a peer's bytes must not stop the broker, whatever decoding makes of them
                log.exception("a message could not be decoded")
                self._handle(Rejected(route, Malformed(BadRequest())))
            else:
                self._handle(Received(route, "local", message))
        return False

    def _hear_disk(self) -> None:
        """Handle what became of the writes."""
        for event in self._storage.events():
            self._handle(event)

    def _handle(self, event: Event) -> None:
        try:
            actions = self.core.handle(event, time.monotonic())
        except Exception:
            log.exception("an event could not be handled: %s", type(getattr(event, "message", event)).__name__)
            self.core.count("internal")
            if isinstance(event, Received) and isinstance(event.message, Request):
                code, text = MinilambdaError.code, MinilambdaError.sentence
                self._carry_out([Send(event.route, Refused(event.message.request, code, text))])
            return
        self._carry_out(actions)

    # --- carrying out ----------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                message = action.message if action.part is None else self._fill(action.message, action.part)
                self._outbox.send(action.route, message, [*action.route, *encode(message)])
            else:
                self._storage.do(action)

    def _fill(self, message: Message, part: ModuleSlice) -> Message:
        """The message with the piece of a module that it is to carry; without, when the piece can't be read."""
        try:
            changes: dict[str, Any] = {part.body: self._storage.read(part.digest, part.offset, part.size)}
        except (KeyError, OSError) as error:
            log.error("a piece of the module %s can't be read: %r", part.digest, error)
            changes = {"total": 0} if isinstance(message, Chunk) else {}
        return replace(message, **changes)

    def _put(self, frames: list[bytes], track: bool) -> tuple[Outcome, Flight | None]:
        try:
            if track:
                return Outcome.SENT, self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False, track=True)
            send = self._socket.send
            for frame in frames[:-1]:
                send(frame, MORE)
            send(frames[-1], NOW)
        except zmq.Again:
            return Outcome.FULL, None
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                log.warning("a message could not be sent: %s", error)
            return Outcome.GONE, None
        return Outcome.SENT, None


def _remove_stale(path: str) -> None:
    """Remove the socket that an earlier broker has left behind, unless somebody listens there."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise BadSetting(f"ipc://{path} can't be bound: there is a file that is no socket.")
    except FileNotFoundError:
        return
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            Path(path).unlink(missing_ok=True)
            return
    raise BadSetting(f"ipc://{path} can't be bound: another process listens there.")
