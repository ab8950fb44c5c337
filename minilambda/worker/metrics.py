"""The worker's numbers as Prometheus wants them. It runs in a thread of the exporter's: it copies, changes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minilambda._version import __version__
from minilambda.exporter import Families
from minilambda.worker.core import Core
from minilambda.worker.meters import CODES

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOOK_EVERY = 15.0
"""The cache's directory is measured at most so often, seconds: it may have thousands of files."""

_NONE = dict.fromkeys(sorted(CODES), 0)  # so that the first failure of a kind is seen to be one more

MAX_ENTRIES = 100_000
"""Files of the cache that are looked at, at most."""


class WorkerMetrics:
    """Makes the families of one worker. Raises ``MissingExtra``."""

    def __init__(self, core: Core, cache: Path) -> None:
        core.meters.counting = True
        self._core = core
        self._make = Families("minilambda_worker")
        self._cache = cache
        self._measured = (0, 0)  # artifacts and bytes in the cache
        self._look_at = 0.0  # when they are measured again, monotonic seconds

    def collect(self) -> Iterator[Metric]:
        """All families, as things are."""
        make = self._make
        yield make.gauges("build_info", "The version that runs.", "version", {__version__: 1})
        yield from self._jobs()
        yield from self._runners()
        yield from self._artifacts()
        yield from self._words()

    def _jobs(self) -> Iterator[Metric]:
        core, make, meters = self._core, self._make, self._core.meters
        yield make.gauge("registered", "1 while a broker knows the worker.", 1 if core.link.session else 0)
        yield make.gauge("draining", "1 while the worker takes no new jobs.", 1 if core.draining else 0)
        yield make.gauge("held_jobs", "Jobs that the worker has: its queue length.", len(core.execution.jobs))
        yield make.gauge("unacknowledged_results", "Results that the broker may ask for again.", len(core.finished))
        yield make.counters("jobs", "Jobs ended, by how.", "outcome", {**_NONE, **meters.outcomes})
        about = "From a job's arrival to its guest's start, by how cold the job was, and by phase."
        yield make.histograms("cold_start_seconds", about, ("tier", "phase"), list(meters.starts.items()))
        yield make.histograms("run_seconds", "Guest's start to its end.", (), [((), meters.runs)])

    def _runners(self) -> Iterator[Metric]:
        core, make = self._core, self._make
        slots = core.execution.slots
        yield make.gauge("slots", "Guests that may run at a time.", core.settings.slots)
        yield make.gauge("busy_slots", "Guests that run.", len(slots.busy))
        yield make.counter("runner_starts", "Processes started to run guests.", slots.spawned)
        yield make.counters("runner_ends", "Ends of such processes, by reason.", "reason", slots.ends.copy())

    def _artifacts(self) -> Iterator[Metric]:
        make, meters = self._make, self._core.meters
        lookups = "Searches for compiled modules on disk, by what was found."
        yield make.counters("cache_lookups", lookups, "result", meters.lookups.copy())
        yield make.counters("compilations", "Modules compiled, by outcome.", "outcome", meters.compilations.copy())
        number, size = self._measure()
        yield make.gauge("cache_artifacts", "Compiled modules on disk, of all workers that share them.", number)
        yield make.gauge("cache_bytes", "What they take.", size)
        yield make.gauge("max_cache_bytes", "What they may take.", self._core.settings.cache_bytes)

    def _words(self) -> Iterator[Metric]:
        make, meters = self._make, self._core.meters
        yield make.counters("rejected", "Messages of the broker's that were none.", "kind", meters.rejected.copy())
        yield make.counter("received_messages", "Messages of the broker.", meters.received_messages)
        yield make.counter("received_bytes", "What they had.", meters.received_bytes)
        yield make.counter("sent_messages", "Messages to the broker.", meters.sent_messages)
        yield make.counter("sent_bytes", "What they had.", meters.sent_bytes)

    def _measure(self) -> tuple[int, int]:
        now = time.monotonic()
        if now >= self._look_at:
            self._measured = _measure(self._cache)
            self._look_at = now + LOOK_EVERY
        return self._measured


def _measure(root: Path) -> tuple[int, int]:
    """Artifacts below a directory, and their bytes. What can't be read is not there."""
    number = size = 0
    try:
        folders = [entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
        for folder in folders:
            for entry in os.scandir(folder):
                if number >= MAX_ENTRIES:
                    return number, size
                if entry.name.endswith(".artifact"):
                    number += 1
                    size += entry.stat(follow_symlinks=False).st_size
    except OSError:
        pass  # evicted meanwhile, or there is no directory
    return number, size
