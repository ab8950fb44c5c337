"""The broker's shell: one ROUTER socket, one thread, one loop around the core."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from minilambda._version import __version__
from minilambda.awake import Awake
from minilambda.broker.access import BrokerKeys
from minilambda.broker.accounts import Account
from minilambda.broker.core import Core
from minilambda.broker.events import (
    Action,
    Event,
    ModuleSlice,
    Paused,
    Persist,
    Rejected,
    Route,
    Send,
    StoreAction,
)
from minilambda.broker.outbox import Outbox
from minilambda.broker.storage import Storage
from minilambda.broker.telemetry import Telemetry, Traffic
from minilambda.broker.transport import WAKING, Transport
from minilambda.errors import BadRequest, Busy, MinilambdaError
from minilambda.messages import (
    BROKER_MESSAGES,
    CLIENT_MESSAGES,
    REPLIES,
    WORKER_MESSAGES,
    Call,
    Chunk,
    Done,
    Fed,
    Fetch,
    Input,
    Message,
    Refused,
    Request,
    Returned,
    Run,
    RunAgain,
    Written,
)
from minilambda.settings import BrokerSettings
from minilambda.wire import Malformed, by_name, decode, encode, prepare, split_envelope

BATCH = 256
"""Messages that go before what has become due, at most: they may tell why it need not be done."""

MANY = 8
"""With so many unfinished jobs, messages are handled several at a time."""

AT_ONCE = 16
"""So many of them at most."""

MAX_SLEEP = 1.0
"""The loop looks around at least so often, and at least twice in a heartbeat, seconds."""

FLUSH_EVERY = 0.02
"""... and so often while something could not be sent, seconds."""

STEPS = frozenset({Run, RunAgain, Call, Done, Returned, Fetch, Chunk, Input, Fed, Written})
"""Messages that bring a job further, so that more is soon to be done; not those of people who look on."""

ACCEPTED = by_name(CLIENT_MESSAGES + WORKER_MESSAGES)
prepare(REPLIES + BROKER_MESSAGES)

log = logging.getLogger(__name__)


class Server:
    """A bound broker. ``serve`` runs it in the calling thread until ``stop``."""

    def __init__(
        self,
        settings: BrokerSettings,
        endpoint: str,
        state_dir: Path | None = None,
        keys: BrokerKeys | None = None,
    ) -> None:
        self._awake = Awake.wanted(settings.awake)  # None: processors may sleep whenever they like
        # Numbers of an earlier broker must not come again: a random start, with room to count.
        name, session_start = f"minilambda-broker/{__version__}", int.from_bytes(os.urandom(5), "big") << 20
        self.core = Core(settings, name, session_start, durable=state_dir is not None)
        self._settings = settings
        self._max_sleep = min(MAX_SLEEP, settings.heartbeat / 2)
        self._transport = Transport()
        self._outbox = Outbox(self._transport.put, self._transport.hang_up)
        self._stopping = False
        self._held: list[tuple[Route, Message, list[bytes]]] | None = None  # to be sent soon; None: send at once
        self._late = 0  # messages that went before what is due
        self.telemetry: Telemetry | None = None  # hears of jobs that have ended
        try:
            self._storage = Storage(state_dir, self._transport.wake)
        except BaseException:
            self._transport.close()
            raise
        try:
            self._carry_out(self.core.recover(self._storage.recover(), time.time(), time.monotonic()))
            self._access = self._transport.guard(keys)
            self.core.access.authority = self._access.authority
            self.endpoint = self._transport.bind(endpoint)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Write what is to be written, let the last answers go out for a moment, and give everything back."""
        self._storage.close()
        self._hear_disk(time.monotonic())
        self._transport.close()
        if self._awake is not None:
            self._awake.close()
        if self.telemetry is not None:
            self.telemetry.close()

    def traffic(self) -> Traffic:
        """What has gone through the socket since this was asked first. Any thread may ask."""
        transport, outbox = self._transport, self._outbox
        transport.counting = outbox.counting = True
        return Traffic(transport.messages, transport.bytes, outbox.messages, outbox.bytes)

    def stop(self) -> None:
        """End ``serve`` soon. May be called from another thread or a signal handler."""
        self._stopping = True
        self._transport.wake()

    def serve(self) -> None:
        """Handle messages until ``stop``; in the main thread SIGTERM and SIGINT stop it too."""
        if threading.current_thread() is not threading.main_thread():
            self._loop()
            return
        before = {number: signal.signal(number, lambda *_: self.stop()) for number in (signal.SIGTERM, signal.SIGINT)}
        if self._access.authority is not None:
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: self._access.look_soon())
        try:
            self._loop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # --- the loop --------------------------------------------------------------------------------

    def _loop(self) -> None:
        """Take one message at a time, and what has become due, until ``stop``."""
        core, outbox, transport, access, awake = self.core, self._outbox, self._transport, self._access, self._awake
        # A worker's silence may be a heartbeat old when a pause begins: both together must stay within its liveness.
        allowed = 2 * self._max_sleep
        flushed = now = time.monotonic()
        while not self._stopping:
            longest = FLUSH_EVERY if outbox.waiting else self._max_sleep
            if awake is not None:
                longest = awake.look(now, longest)
            deadline = core.next_deadline()
            received = transport.receive(longest if deadline is None else min(longest, deadline - now))
            before, now = now, time.monotonic()
            if now - before > allowed:
                # The process stood still (or the machine slept): the workers' messages are still on their way in.
                self._handle(Paused(), now)
            if received is not None:
                if core.unfinished >= MANY:
                    self._take_several(received, now)
                else:
                    self._take(*received, now)
            if outbox.waiting and now - flushed >= FLUSH_EVERY / 4:
                outbox.flush()
                flushed = now
            if outbox.lost:
                for event in outbox.dropped():
                    self._handle(event, now)
            if access.look_at <= now:
                self._look_at_access(now)
            if deadline is not None and deadline <= now and self._may_tick(received is None):
                self._carry_out(core.tick(now))

    def _may_tick(self, idle: bool) -> bool:
        """Whether to look at what is due now: messages that have come go first, but not for ever."""
        self._late = 0 if idle else self._late + 1
        if self._late < BATCH and not idle and self._transport.ready():
            return False
        self._late = 0
        return True

    def _take_several(self, received: tuple[bytes, list[bytes]] | None, now: float) -> None:
        """Handle a message and those behind it that are there, and only then send what follows from them all.

        To send one wakes a thread of libzmq, which takes the processor: better once for all.
        """
        held = self._held = []
        left = AT_ONCE
        while received is not None:
            self._take(*received, now)
            left -= 1
            received, now = self._transport.receive_now() if left else None, time.monotonic()
        self._late += AT_ONCE - left
        self._held = None
        for each in held:
            self._outbox.send(*each)

    def _take(self, connection: bytes, frames: list[bytes], now: float) -> None:
        """Handle a message."""
        route: Route
        if not frames[0]:
            route, rest = (connection, b""), frames[1:]
        elif (parts := split_envelope([connection, *frames])) is not None:
            route, rest = parts
        else:
            self.core.count("no_envelope")
            return
        if connection == WAKING:
            self._transport.awake()
            self._hear_disk(now)
            return
        try:
            message = decode(rest, ACCEPTED, self._settings.max_request_bytes)
        except Malformed as error:
            self._handle(Rejected(route, error), now)
        except MemoryError:
            self._handle(Rejected(route, Malformed(Busy("The broker has no memory left for this message."))), now)
        except Exception:  # a peer's bytes must not stop the broker, whatever decoding makes of them
            log.exception("a message could not be decoded")
            self._handle(Rejected(route, Malformed(BadRequest())), now)
        else:
            if self._awake is not None and type(message) in STEPS:
                self._awake.step(now)
            try:
                actions = self.core.receive(route, self._transport.sender, message, now)
            except MemoryError:  # in the middle of a step: what is on the disk is sound, what is here may not be
                raise
            except Exception:
                actions = self._apology(route, message)
            self._carry_out(actions)

    def _apology(self, route: Route, message: Message) -> list[Action]:
        """Answers a message that the core could not handle; called where that was caught."""
        self._failed(message)
        if not isinstance(message, Request):
            return []
        return [Send(route, Refused(message.request, MinilambdaError.code, MinilambdaError.sentence))]

    def _look_at_access(self, now: float) -> None:
        """Somebody may have been given or have lost the right to talk to this broker."""
        change = self._access.look(now)
        self.core.rejected.update(self._access.refused)
        if change is not None:
            self._handle(change, now)

    def _hear_disk(self, now: float) -> None:
        """Handle what became of the writes."""
        for event in self._storage.events():
            self._handle(event, now)

    def _handle(self, event: Event, now: float) -> None:
        try:
            actions = self.core.handle(event, now)
        except MemoryError:
            raise
        except Exception:
            self._failed(event)
            return
        self._carry_out(actions)

    def _failed(self, what: Event | Message) -> None:
        log.exception("an event could not be handled: %s", type(what).__name__)
        self.core.count("internal")

    # --- carrying out ----------------------------------------------------------------------------

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if type(action) is Send:
                message = action.message if action.part is None else self._fill(action.message, action.part)
                if self._held is None:
                    self._outbox.send(action.route, message, encode(message))
                else:
                    self._held.append((action.route, message, encode(message)))
            elif type(action) is not Account:
                self._storage.do(cast("StoreAction | Persist", action))
            elif self.telemetry is not None:
                self.telemetry.tell(action)

    def _fill(self, message: Message, part: ModuleSlice) -> Message:
        """The message with the piece of a module that it is to carry; without, when the piece can't be read."""
        try:
            changes: dict[str, Any] = {part.body: self._storage.read(part.digest, part.offset, part.size)}
        except (KeyError, OSError) as error:
            log.error("a piece of the module %s can't be read: %r", part.digest, error)
            changes = {"total": 0} if isinstance(message, Chunk) else {}
        return replace(message, **changes)
