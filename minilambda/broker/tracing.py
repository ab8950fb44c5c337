"""Spans of jobs whose callers are part of a trace, sent over OTLP.

The loop only puts accounts of ended jobs into a bounded queue. A thread makes spans of them, and OpenTelemetry's own
thread sends these in batches. What comes faster than that is dropped, and counted.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from minilambda._version import __version__
from minilambda.broker.accounts import Account
from minilambda.extras import MissingExtra
from minilambda.notation import BadSetting

MAX_WAITING = 4096
"""Accounts that wait to be made spans of, at most."""

SEND_EVERY = 1.0
"""Spans wait for others to be sent with for so long at most, seconds."""

PATIENCE = 3.0
"""The last spans have so long to be sent when the broker ends, seconds."""

_SHAPE = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

log = logging.getLogger("minilambda.traces")


@dataclass(frozen=True, slots=True)
class Parent:
    """The span that a job belongs to."""

    trace: int
    span: int
    sampled: bool  # whether its caller records it


def parse_traceparent(text: str) -> Parent | None:
    """W3C trace context; None for what is none."""
    match = _SHAPE.fullmatch(text)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    trace, span = int(match[2], 16), int(match[3], 16)
    return Parent(trace, span, bool(int(match[4], 16) & 1)) if trace and span else None


@dataclass(frozen=True, slots=True)
class Step:
    """A span of a job. Times are monotonic seconds."""

    name: str
    begin: float
    end: float


def steps_of(account: Account) -> list[Step]:
    """What a job went through, in order, within its own time.

    The waits in the broker's queue are what happened. A worker tells how long each phase of the latest attempt took,
    not when: fetching and compiling are put at its beginning, loading and running at its end.
    """
    usage, steps = account.result.usage, []
    waiting: float | None = account.accepted_at
    for when, event in account.story:
        if event in ("dispatch", "adopt") and waiting is not None:
            steps.append(Step("queue", waiting, when))
            waiting = None
        elif event == "requeue":
            waiting = when
    if waiting is not None:
        steps.append(Step("queue", waiting, account.ended_at))
    at, until = account.dispatched_at or account.accepted_at, account.ended_at
    for name, milliseconds in (("fetch", usage.fetch_ms), ("compile", usage.compile_ms)):
        if milliseconds:
            end = min(at + milliseconds / 1000, until)
            steps.append(Step(name, at, end))
            at = end
    late: list[Step] = []
    for name, milliseconds in (("run", usage.run_ms), ("load", usage.load_ms)):
        if milliseconds:
            begin = max(until - milliseconds / 1000, at)
            late.append(Step(name, begin, until))
            until = begin
    return [*steps, *reversed(late)]


class Tracer:
    """Takes accounts and sends spans. Raises ``MissingExtra``, and ``BadSetting`` for a URL that can't be used."""

    def __init__(self, url: str) -> None:
        endpoint = _endpoint(url)
        try:
            from opentelemetry import trace  # noqa: PLC0415 - an extra
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError:
            raise MissingExtra("--otlp", "opentelemetry", "traces") from None
        self.dropped = 0  # jobs whose spans were not made, being too many
        self._trace: Any = trace
        about = Resource.create({"service.name": "minilambda-broker", "service.version": __version__})
        self._provider: Any = TracerProvider(resource=about, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=PATIENCE)
        batches = BatchSpanProcessor(exporter, schedule_delay_millis=int(SEND_EVERY * 1000))
        self._provider.add_span_processor(batches)
        self._spans: Any = self._provider.get_tracer("minilambda", __version__)
        self._waiting: queue.SimpleQueue[Account | None] = queue.SimpleQueue()
        self._ahead = time.time() - time.monotonic()  # wall time less monotonic time, seconds
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    def take(self, account: Account) -> None:
        """A job with a traceparent has ended. Never waits."""
        if self._waiting.qsize() < MAX_WAITING:
            self._waiting.put(account)
        else:
            self.dropped += 1

    def close(self) -> None:
        """Send what there is, for at most ``PATIENCE`` seconds or so."""
        self._waiting.put(None)
        self._thread.join(PATIENCE)
        self._provider.force_flush(int(PATIENCE * 1000))
        self._provider.shutdown()

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        while (account := self._waiting.get()) is not None:
            try:
                self._record(account)
            except Exception:
                log.exception("no spans for job %s attempt %d", account.job, account.result.attempt)

    def _record(self, account: Account) -> None:
        parent = parse_traceparent(account.traceparent)
        if parent is None or not parent.sampled:
            return
        trace = self._trace
        of = trace.SpanContext(parent.trace, parent.span, True, trace.TraceFlags(1))
        outer = trace.set_span_in_context(trace.NonRecordingSpan(of))
        job = self._spans.start_span(
            "job", outer, trace.SpanKind.SERVER, _attributes(account), start_time=self._nanos(account.accepted_at)
        )
        for when, event in account.story:
            job.add_event(event, timestamp=self._nanos(when))
        inner = trace.set_span_in_context(job)
        for step in steps_of(account):
            span = self._spans.start_span(step.name, inner, start_time=self._nanos(step.begin))
            span.end(self._nanos(step.end))
        error = account.result.error
        if error is not None:
            job.set_status(trace.Status(trace.StatusCode.ERROR, error.code))
        job.end(self._nanos(account.ended_at))

    def _nanos(self, when: float) -> int:
        """Wall time of a monotonic time, nanoseconds."""
        return int((when + self._ahead) * 1e9)


def _attributes(account: Account) -> dict[str, Any]:
    result = account.result
    found: dict[str, Any] = {
        "minilambda.job.id": account.job,
        "minilambda.principal": account.principal,
        "minilambda.attempt": result.attempt,
        "minilambda.outcome": "completed" if result.error is None else result.error.code,
        "minilambda.module": account.module,
        "minilambda.tier": result.tier,
        "minilambda.worker": result.worker,
        "minilambda.group": account.group,
        "minilambda.function": account.function,
    }
    if result.exit_code is not None:
        found["minilambda.exit_code"] = result.exit_code
    return {name: value for name, value in found.items() if value != ""}


def _endpoint(url: str) -> str:
    """Where spans are posted to: a URL without a path gets the usual one. Raises ``BadSetting``."""
    try:
        found = urlsplit(url)
        usable = found.scheme in ("http", "https") and found.hostname and (found.port or True)
    except ValueError:
        usable = False
    if not usable:
        raise BadSetting(f"{url!r} is no address for spans; write http://HOST:PORT, as of an OTLP receiver over HTTP.")
    return url if found.path not in ("", "/") else url.rstrip("/") + "/v1/traces"
