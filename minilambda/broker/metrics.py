"""The broker's numbers as Prometheus wants them. It runs in a thread of the exporter's: it copies, changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from minilambda._version import __version__
from minilambda.broker.meters import CODES
from minilambda.exporter import Families

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from minilambda.broker.core import Core
    from minilambda.broker.telemetry import Traffic

MAX_NAMED = 256
"""Workers whose names become values of a label; the others are one, ``other``."""

OTHER = "other"

_NONE = dict.fromkeys(sorted(CODES), 0)  # so that the first failure of a kind is seen to be one more


class BrokerMetrics:
    """Makes the families of one broker. Raises ``MissingExtra``."""

    def __init__(self, core: Core, traffic: Callable[[], Traffic], untraced: Callable[[], int]) -> None:
        core.meters.timing = True
        self._core = core
        self._traffic = traffic
        self._untraced = untraced  # jobs of which the spans had to be dropped, so far
        self._make = Families("minilambda_broker")

    def collect(self) -> Iterator[Metric]:
        """All families, as things are."""
        make = self._make
        yield make.gauges("build_info", "The version that runs.", "version", {__version__: 1})
        yield from self._jobs()
        yield from self._times()
        yield from self._workers()
        yield from self._stores()
        yield from self._words()

    def _jobs(self) -> Iterator[Metric]:
        core, make, meters = self._core, self._make, self._core.meters
        queued, unfinished = core.queue.size + len(core.settling), core.unfinished
        yield make.counter("accepted_jobs", "Jobs accepted, those in the journal included.", core.accepted)
        yield make.counters("jobs", "Jobs ended, by how.", "outcome", {**_NONE, **meters.outcomes})
        yield make.counter("lost_attempts", "Attempts lost with their workers.", meters.losses)
        yield make.gauge("queued_jobs", "Jobs that wait for a worker.", queued)
        yield make.gauge("running_jobs", "Jobs at workers.", max(0, unfinished - queued))
        yield make.gauge("max_queued_jobs", "Jobs that may wait; more are refused as busy.", core.settings.max_queued)
        yield make.gauge("input_bytes", "What the unfinished jobs and their input take.", core.input_bytes)
        yield make.gauge(
            "max_input_bytes", "What unfinished jobs and their input may take.", core.settings.max_queued_bytes
        )
        yield make.gauge("clients", "Principals that have jobs or had some lately.", len(meters.clients))

    def _times(self) -> Iterator[Metric]:
        make, meters = self._make, self._core.meters
        about = "How long jobs waited, in the broker's queue and the worker's."
        yield make.histograms("queue_wait_seconds", about, (), [((), meters.queue_wait)])
        totals = [((tier or "none",), histogram) for tier, histogram in meters.totals.items()]
        yield make.histograms("job_seconds", "Accepted to result, by how cold the job was.", ("tier",), totals)
        phases = [((phase,), histogram) for phase, histogram in meters.phases.items()]
        yield make.histograms(
            "phase_seconds",
            "What jobs took before their guests' start, by phase, where it was needed.",
            ("phase",),
            phases,
        )

    def _workers(self) -> Iterator[Metric]:
        core, make = self._core, self._make
        workers = list(core.workers.sessions.values())
        states = dict.fromkeys(("idle", "busy", "draining", "lost"), 0)
        slots: dict[str, float] = {}
        load: dict[str, float] = {}
        done: dict[str, float] = {}
        for number, worker in enumerate(workers):
            states[worker.state] += 1
            name = worker.name if number < MAX_NAMED else OTHER
            slots[name] = slots.get(name, 0) + worker.slots
            load[name] = load.get(name, 0) + worker.load
            done[name] = done.get(name, 0) + worker.done
        yield make.gauges("workers", "Workers that are registered, by state.", "state", states)
        yield make.gauge("slots", "Guests that may run at a time, on all workers.", sum(slots.values()))
        yield make.gauge(
            "free_slots", "Slots of workers that take jobs and have none for them.", core.scheduler.free_slots
        )
        yield make.gauges("worker_slots", "Guests that a worker runs at a time.", "worker", slots)
        yield make.gauges("worker_jobs", "Jobs that a worker has.", "worker", load)
        yield make.counters("worker_ended_jobs", "Jobs that have ended at a worker.", "worker", done)

    def _stores(self) -> Iterator[Metric]:
        core, make = self._core, self._make
        promises = core.promises
        yield make.gauge("kept_results", "Ended jobs whose results are kept.", len(core.results))
        yield make.gauge("kept_results_bytes", "What they take.", core.results.bytes)
        yield make.gauge("modules", "Modules and files in the store.", core.modules.count)
        yield make.gauge("store_bytes", "What they take.", core.modules.bytes)
        yield make.gauge("max_store_bytes", "What they may take.", core.settings.store_bytes)
        yield make.gauge("disk_waiting_messages", "Messages that wait until the disk has what they say.", promises.held)
        failing = "1 where the disk takes no more jobs."
        yield make.gauge("disk_failing", failing, 0 if promises.accepting else 1)

    def _words(self) -> Iterator[Metric]:
        make, traffic = self._make, self._traffic()
        yield make.counters("rejected", "What peers got wrong, by kind.", "kind", self._core.rejected.copy())
        yield make.counter("received_messages", "Messages of clients and workers.", traffic.received_messages)
        yield make.counter("received_bytes", "What they had, without envelopes.", traffic.received_bytes)
        yield make.counter("sent_messages", "Messages to clients and workers.", traffic.sent_messages)
        yield make.counter("sent_bytes", "What they had, without envelopes.", traffic.sent_bytes)
        yield make.counter("untraced_jobs", "Jobs whose spans were dropped, being too many.", self._untraced())
