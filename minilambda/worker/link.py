"""The worker's side of its tie to the broker: registration, signs of life, patience. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from minilambda.messages import JobRef

FIRST_RETRY = 0.5
"""Pause before a registration is sent again, seconds; it doubles up to ``LAST_RETRY``.

A registration that is merely slow to be answered must not be sent twice: each one opens a session and ends the last.
"""

LAST_RETRY = 5.0

SHORTEST = 0.01
"""No interval that a broker asks for is taken to be shorter, seconds: it must not make a worker spin."""


@dataclass(slots=True)
class Link:
    """State of the tie. ``session`` 0 means that the broker does not know this worker (any more)."""

    jitter: Callable[[], float]  # a number in [0, 1), so that a thousand workers do not come back at once
    session: int = 0  # number that the broker gave at the registration
    seen: int = 0  # sequence number of the last dispatch of this session
    heartbeat: float = 1.0  # longest time between two reports, seconds
    liveness: float = 5.0  # a broker that is silent for so long is lost, seconds
    result_keep: float = 60.0  # how long an unacknowledged result is kept, seconds
    heard: float = 0.0  # when the broker was last heard, seconds
    report_at: float | None = None  # when the next report is due, seconds
    register_at: float | None = None  # when the next registration is to be sent, seconds; None before ``begin``
    begun: bool = False  # there is something to offer
    tries: int = 0  # registrations sent without an answer
    ended: tuple[int, int] = (0, 0)  # the last session that is over, and ``seen`` at its end
    held: tuple[JobRef, ...] = ()  # the unfinished jobs that the last registration named
    open_at: float | None = None  # when the jobs that outlived the last session may start, seconds

    def begin(self, now: float) -> None:
        """The worker can run a job from now on, so the broker should know of it."""
        if not self.begun:
            self.begun, self.register_at = True, now

    def registered(self, session: int, heartbeat: float, liveness: float, result_keep: float, now: float) -> None:
        self.session, self.seen, self.tries = session, 0, 0
        self.heartbeat, self.result_keep = max(heartbeat, SHORTEST), result_keep
        self.liveness = max(liveness, 2 * self.heartbeat)
        self.heard, self.register_at = now, None
        self.report_at = now + self.heartbeat

    def lost(self, now: float, soon: bool) -> None:
        """The broker is silent, or asks to register again (``soon``: then only a jitter is waited)."""
        if self.session:
            self.ended = (self.session, self.seen)
        self.session, self.report_at, self.open_at = 0, None, None
        self.register_at = now + (0.05 * self.jitter() if soon else self._pause())

    def registering(self, held: tuple[JobRef, ...], now: float) -> None:
        """A registration was sent that names the jobs ``held``."""
        self.tries, self.held = self.tries + 1, held
        self.register_at = now + self._pause()

    def _pause(self) -> float:
        longest: float = min(LAST_RETRY, FIRST_RETRY * 2 ** min(self.tries, 10))
        return longest * (0.5 + 0.5 * self.jitter())

    def reported(self, now: float) -> None:
        self.report_at = now + self.heartbeat

    def silent(self, now: float) -> bool:
        return self.session != 0 and now >= self.heard + self.liveness

    def next_deadline(self) -> float:
        """When the core must look at the tie at the latest, seconds; ``inf``: not before something happens."""
        if self.session == 0:
            return math.inf if self.register_at is None else self.register_at
        return min(t for t in (self.heard + self.liveness, self.report_at, self.open_at) if t is not None)
