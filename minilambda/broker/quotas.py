"""What one principal may have at a time, so that none can take it all. Pure.

Who is over a quota is refused with ``quota_exceeded``, and nobody else notices. It is otherwise with jobs that run: the
queue lets those that are too many wait (``FairQueue``), which is no failure.

Compile time is a bucket that fills as results tell of compiling and drains at the quota an hour; while it is full, only
modules that some worker has already are taken. Several jobs that wait for one compilation are charged for it once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from minilambda.broker.modules import ModuleStore
from minilambda.errors import QuotaExceeded
from minilambda.settings import QuotaSettings

WINDOW = 3600.0
"""The quota of compile time is for so long, seconds."""

SOON = 1.0
"""What a client is told to wait where a job of its own has to end first, seconds."""

REMEMBERED = 4096
"""Compilations, and principals, that are remembered, at most."""


@dataclass(slots=True)
class _Bucket:
    filled: float  # compile time, seconds
    at: float  # when that was right, seconds


def quotas_of(settings: QuotaSettings) -> Quotas | None:
    """The quotas that the settings ask for; None where there are none."""
    return None if settings == QuotaSettings() else Quotas(settings)


class Quotas:
    """The quotas and what was used of those that are counted here."""

    def __init__(self, settings: QuotaSettings) -> None:
        self._settings = settings
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()  # by principal, the last one changed at the end
        self._compiled: OrderedDict[tuple[str, str], float] = OrderedDict()  # (module, worker) to the end, seconds

    def check_job(self, principal: str, waiting: int, known: bool, now: float) -> None:
        """Raise ``QuotaExceeded`` where a principal with so many waiting jobs may not have one more.

        ``known``: some worker has had the job's module, so that it is likely compiled.
        """
        most = self._settings.queued
        if most and waiting >= most:
            raise QuotaExceeded(f"{waiting} jobs of this client wait already, the most that it may have.", SOON)
        allowed = self._settings.compile_seconds
        if not allowed or known:
            return
        over = self._filled(principal, now) - allowed
        if over >= 0:
            text = f"This client has used up the {allowed:g} s of compiling that it has in an hour"
            raise QuotaExceeded(f"{text}; modules that are compiled still run.", max(SOON, over * WINDOW / allowed))

    def check_module(self, store: ModuleStore, principal: str, size: int, now: float) -> None:
        """Make room for a new module among those of the principal, least recently used first.

        Raises ``QuotaExceeded`` where that is not possible.
        """
        most = self._settings.stored_bytes
        if not most:
            return
        if size > most:
            raise QuotaExceeded(f"The module has {size} bytes, and this client may store {most}.")
        if not store.make_room_of(principal, most - size, now):
            text = f"This client may store {most} bytes of modules"
            text += ", and its unfinished jobs and functions need those that are here."
            raise QuotaExceeded(text, SOON)

    def compiled(self, principal: str, module: str, worker: str, since: float, seconds: float) -> None:
        """A job at a worker since then (seconds) has waited for its module to be compiled, for so long."""
        key, end = (module, worker), since + seconds
        fresh = max(0.0, end - max(since, self._compiled.get(key, since)))
        self._compiled[key] = max(end, self._compiled.get(key, end))
        self._compiled.move_to_end(key)
        if len(self._compiled) > REMEMBERED:
            self._compiled.popitem(last=False)
        if fresh and self._settings.compile_seconds:
            self._buckets[principal] = _Bucket(self._filled(principal, end) + fresh, end)
            self._buckets.move_to_end(principal)
            if len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)

    def _filled(self, principal: str, now: float) -> float:
        bucket = self._buckets.get(principal)
        if bucket is None:
            return 0.0
        return max(0.0, bucket.filled - max(0.0, now - bucket.at) * self._settings.compile_seconds / WINDOW)
