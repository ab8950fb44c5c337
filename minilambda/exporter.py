"""Numbers for Prometheus, over HTTP, from threads of their own.

The loop that is measured never waits for a scrape. A scrape copies plain numbers, which needs no lock, and turns them
into text; while many ask, a text is told again, so that making texts takes at most a twentieth of one processor.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from minilambda._version import __version__
from minilambda.extras import MissingExtra
from minilambda.histogram import BOUNDS, Histogram
from minilambda.notation import BadSetting

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MAX_CONNECTIONS = 8
"""Requests that are answered at a time; further ones are turned away."""

PATIENCE = 5.0
"""A connection has so long for its request and the answer, seconds."""

SHARE = 20
"""A text is told again for so many times as long as it took to make."""

SWITCH_S = 0.0005
"""Where a scrape computes and the loop has something to do, the loop goes on after so long, seconds."""

TYPE = "text/plain; version=0.0.4; charset=utf-8"

log = logging.getLogger("minilambda.metrics")


class Families:
    """Makes what Prometheus calls families of numbers, all under one prefix. Raises ``MissingExtra``."""

    def __init__(self, prefix: str) -> None:
        try:
            from prometheus_client import core  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtra("--metrics", "prometheus-client", "metrics") from None
        self._core: Any = core
        self._prefix = prefix

    def gauge(self, name: str, about: str, value: float) -> Metric:
        """One number that goes up and down."""
        return self._metric(self._core.GaugeMetricFamily(f"{self._prefix}_{name}", about, value=value))

    def counter(self, name: str, about: str, value: float) -> Metric:
        """One number that only grows; Prometheus knows it as ``NAME_total``."""
        return self._metric(self._core.CounterMetricFamily(f"{self._prefix}_{name}", about, value=value))

    def gauges(self, name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
        """A number for each value of a label."""
        return self._labelled(self._core.GaugeMetricFamily, name, about, label, values)

    def counters(self, name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
        """A counter for each value of a label."""
        return self._labelled(self._core.CounterMetricFamily, name, about, label, values)

    def histograms(
        self, name: str, about: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], Histogram]]
    ) -> Metric:
        """Times, in seconds, for each combination of the labels."""
        family = self._core.HistogramMetricFamily(f"{self._prefix}_{name}", about, labels=labels)
        for of, histogram in values:
            counts, total = histogram.counts.copy(), histogram.total
            marks = [*(f"{bound / 1000:g}" for bound in BOUNDS), "+Inf"]
            buckets = list(zip(marks, map(float, accumulate(counts)), strict=True))
            family.add_metric(of, buckets, total / 1000)
        return self._metric(family)

    def _labelled(self, kind: Any, name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
        family = kind(f"{self._prefix}_{name}", about, labels=(label,))
        for value, number in values.items():
            family.add_metric((value,), number)
        return self._metric(family)

    @staticmethod
    def _metric(found: Any) -> Metric:
        metric: Metric = found
        return metric


class Exporter:
    """A bound server of metrics. ``collect`` makes the families, in a thread of this server's, one call at a time."""

    def __init__(self, where: tuple[str, int], collect: Callable[[], Iterable[Metric]]) -> None:
        """Raises ``BadSetting`` where the address can't be bound, ``MissingExtra``."""
        try:
            import prometheus_client  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtra("--metrics", "prometheus-client", "metrics") from None
        client: Any = prometheus_client
        registry = client.CollectorRegistry(auto_describe=False)
        client.ProcessCollector(registry=registry)
        client.PlatformCollector(registry=registry)
        registry.register(_Collector(collect))
        self._make: Callable[[], bytes] = lambda: client.generate_latest(registry)
        self._making = threading.Lock()
        self._text = b""
        self._until = 0.0  # the text may be told again until then, monotonic seconds
        try:
            self._server = _Server(where, self)
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise BadSetting(f"metrics can't be served at {_shown(where)}: {why or error}.") from None
        self.url = f"http://{_shown((where[0], self._server.server_port))}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def text(self) -> bytes:
        """What a scrape gets."""
        with self._making:
            begun = time.monotonic()
            if begun >= self._until:
                self._text = self._make()
                self._until = begun + SHARE * (time.monotonic() - begun)
            return self._text


class _Collector:
    """What a registry of prometheus-client asks."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect


class _Server(HTTPServer):
    """Answers each request in a thread, a few at a time; a connection that takes too long is ended."""

    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, where: tuple[str, int], exporter: Exporter) -> None:
        if ":" in where[0]:
            self.address_family = socket.AF_INET6
        self.exporter = exporter
        self._open: dict[socket.socket, float] = {}  # connection to the time when it is ended, monotonic seconds
        self._changing = threading.Lock()
        super().__init__(where, _Handler)

    def server_bind(self) -> None:
        """As inherited, without asking a name server for this machine's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changing:
            if len(self._open) >= MAX_CONNECTIONS:
                self.shutdown_request(request)
                return
            self._open[request] = time.monotonic() + PATIENCE
        threading.Thread(target=self._answer, args=(request, client_address), name="scrape", daemon=True).start()

    def _answer(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # it has gone, or was too slow
        except Exception:
            log.exception("a scrape failed")
        finally:
            with self._changing:
                del self._open[request]
            self.shutdown_request(request)

    def service_actions(self) -> None:
        now = time.monotonic()
        with self._changing:
            late = [request for request, until in self._open.items() if until <= now]
        for request in late:
            try:
                request.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has just ended


class _Handler(BaseHTTPRequestHandler):
    """One request; the connection ends with it."""

    server: _Server
    server_version = f"minilambda/{__version__}"
    sys_version = ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        if self.path.partition("?")[0] not in ("/metrics", "/"):
            self.send_error(404, "Not here", "The numbers are at /metrics.")
            return
        text = self.server.exporter.text()
        self.send_response(200)
        self.send_header("Content-Type", TYPE)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


def _shown(where: tuple[str, int]) -> str:
    host = where[0] or "0.0.0.0"
    return f"[{host}]:{where[1]}" if ":" in host else f"{host}:{where[1]}"
