"""What a broker tells those who watch over it: metrics, a line in the log for each job, spans of jobs with a trace."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minilambda.broker.accounts import ALL, NOBODY, TRACED, Account
from minilambda.broker.core import Core
from minilambda.messages import Result

if TYPE_CHECKING:
    from minilambda.broker.tracing import Tracer
    from minilambda.exporter import Exporter

log = logging.getLogger("minilambda.jobs")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    metrics: tuple[str, int] | None = None  # host and port to serve them at
    on_metrics: Callable[[str], None] | None = None  # told their URL
    otlp: str = ""  # URL that spans go to, up to /v1/traces; "": no spans


@dataclass(slots=True)
class Traffic:
    """What has gone through the broker's socket so far."""

    received_messages: int
    received_bytes: int  # without the names of connections
    sent_messages: int  # those that could not be sent, too
    sent_bytes: int  # without envelopes


class Telemetry:
    """Tells what is wanted. Raises ``MissingExtra``, and ``BadSetting`` where an address can't be used."""

    def __init__(self, wanted: Wanted, core: Core, traffic: Callable[[], Traffic]) -> None:
        self._on_metrics = wanted.on_metrics
        self._lines = log.isEnabledFor(logging.INFO)
        self._tracer: Tracer | None = None
        self._exporter: Exporter | None = None
        if wanted.otlp:
            from minilambda.broker.tracing import Tracer  # noqa: PLC0415 - few brokers need it

            self._tracer = Tracer(wanted.otlp)
        if wanted.metrics is not None:
            from minilambda.broker.metrics import BrokerMetrics  # noqa: PLC0415
            from minilambda.exporter import Exporter  # noqa: PLC0415

            traffic()  # it is counted from now on
            self._exporter = Exporter(wanted.metrics, BrokerMetrics(core, traffic, self._untraced).collect)
        core.telling = ALL if self._lines else TRACED if self._tracer is not None else NOBODY

    def start(self) -> None:
        """Serve metrics from now on."""
        if self._exporter is not None:
            self._exporter.start()
            if self._on_metrics is not None:
                self._on_metrics(self._exporter.url)

    def tell(self, account: Account) -> None:
        """A job has ended."""
        if self._lines:
            text, fields = line_of(account)
            log.info("%s", text, extra={"fields": fields})
        if self._tracer is not None and account.traceparent:
            self._tracer.take(account)

    def close(self) -> None:
        """Send the last spans, for a moment, and tell nothing any more."""
        if self._exporter is not None:
            self._exporter.close()
        if self._tracer is not None:
            self._tracer.close()

    def _untraced(self) -> int:
        return 0 if self._tracer is None else self._tracer.dropped


def line_of(account: Account) -> tuple[str, dict[str, object]]:
    """A job in the log: for people, and field by field."""
    result = account.result
    usage = result.usage
    outcome = outcome_of(result)
    fields: dict[str, object] = {
        "event": "job_ended",
        "job": account.job,
        "attempt": result.attempt,
        "principal": account.principal,
        "outcome": outcome,
        "exit_code": result.exit_code,
        "tier": result.tier,
        "worker": result.worker,
        "losses": account.losses,
        "group": account.group,
        "function": account.function,
        "module": account.module,
        "queued_ms": round(usage.queued_ms, 3),
        "fetch_ms": round(usage.fetch_ms, 3),
        "compile_ms": round(usage.compile_ms, 3),
        "load_ms": round(usage.load_ms, 3),
        "run_ms": round(usage.run_ms, 3),
        "total_ms": round(usage.total_ms, 3),
    }
    text = f"job {account.job} attempt {result.attempt} of {account.principal}: {outcome}"
    text += f" after {usage.total_ms:.1f} ms (queued {usage.queued_ms:.1f}, compile {usage.compile_ms:.1f},"
    text += f" run {usage.run_ms:.1f}), {result.tier or 'never ran'}"
    return text + (f", at {result.worker}" if result.worker else ""), fields


def outcome_of(result: Result) -> str:
    """``completed``, or the code of the failure."""
    return "completed" if result.error is None else result.error.code
