"""What a worker tells those who watch over it: metrics, and a line in the log for each job."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minilambda.worker.actions import JobEnded
from minilambda.worker.core import Core
from minilambda.worker.results import Finished

if TYPE_CHECKING:
    from minilambda.exporter import Exporter

log = logging.getLogger("minilambda.jobs")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    metrics: tuple[str, int] | None = None  # host and port to serve them at
    on_metrics: Callable[[str], None] | None = None  # told their URL


class Telemetry:
    """Tells what is wanted. Raises ``MissingExtra``, and ``BadSetting`` where the address can't be used."""

    def __init__(self, wanted: Wanted, core: Core, cache: Path) -> None:
        self._on_metrics = wanted.on_metrics
        self._exporter: Exporter | None = None
        core.telling = log.isEnabledFor(logging.INFO)
        if wanted.metrics is not None:
            from minilambda.exporter import Exporter  # noqa: PLC0415 - few workers need it
            from minilambda.worker.metrics import WorkerMetrics  # noqa: PLC0415

            self._exporter = Exporter(wanted.metrics, WorkerMetrics(core, cache).collect)

    def start(self) -> None:
        """Serve metrics from now on."""
        if self._exporter is not None:
            self._exporter.start()
            if self._on_metrics is not None:
                self._on_metrics(self._exporter.url)

    def tell(self, action: JobEnded) -> None:
        """A job has ended."""
        text, fields = line_of(action.finished)
        log.info("%s", text, extra={"fields": fields})

    def close(self) -> None:
        """Serve nothing any more."""
        if self._exporter is not None:
            self._exporter.close()


def line_of(finished: Finished) -> tuple[str, dict[str, object]]:
    """A job in the log: for people, and field by field."""
    ref, usage = finished.ref, finished.usage
    outcome = "completed" if finished.error is None else finished.error.code
    fields: dict[str, object] = {
        "event": "job_ended",
        "job": ref.job,
        "attempt": ref.attempt,
        "principal": ref.principal,
        "outcome": outcome,
        "exit_code": finished.exit_code,
        "tier": finished.tier,
        "queued_ms": round(usage.queued_ms, 3),
        "fetch_ms": round(usage.fetch_ms, 3),
        "compile_ms": round(usage.compile_ms, 3),
        "load_ms": round(usage.load_ms, 3),
        "run_ms": round(usage.run_ms, 3),
        "cpu_ms": round(usage.cpu_ms, 3),
        "peak_memory_bytes": usage.peak_memory_bytes,
        "output_bytes": finished.size,
    }
    text = f"job {ref.job} attempt {ref.attempt} of {ref.principal}: {outcome}, {finished.tier or 'never ran'}"
    text += f" (queued {usage.queued_ms:.1f}, fetch {usage.fetch_ms:.1f}, compile {usage.compile_ms:.1f},"
    return text + f" load {usage.load_ms:.1f}, run {usage.run_ms:.1f} ms)", fields
