"""The server of metrics: who reaches it, what a scrape may cost, and what peers' names become in it."""

from __future__ import annotations

import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from minilambda import exporter
from minilambda.broker.metrics import MAX_NAMED, BrokerMetrics
from minilambda.broker.telemetry import Traffic
from minilambda.exporter import Exporter, Families
from minilambda.extras import MissingExtra
from minilambda.histogram import BOUNDS, Histogram
from minilambda.notation import BadSetting, metrics_address
from tests.broker_world import World
from tests.cluster import wait_for

LOCAL = ("127.0.0.1", 0)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[], Any]], Exporter]]:
    made: list[Exporter] = []

    def start(collect: Callable[[], Any]) -> Exporter:
        made.append(Exporter(LOCAL, collect))
        made[-1].start()
        return made[-1]

    before = sys.getswitchinterval()
    yield start
    for each in made:
        each.close()
    sys.setswitchinterval(before)


def get(served: Exporter) -> str:
    with urllib.request.urlopen(served.url, timeout=10) as answer:
        return str(answer.read().decode())


def samples(text: str) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


# --- where -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("*:1", ("", 1)),
        ("[::1]:9464", ("::1", 9464)),
        ("host.example:65535", ("host.example", 65535)),
    ],
)
def test_only_this_machine_is_served_unless_a_host_is_named(text: str, where: tuple[str, int]) -> None:
    assert metrics_address(text) == where


@pytest.mark.parametrize(
    "text", ["", "host", "host:", "host:65536", "http://host:1", "host:-1", "host:1\n:2x", "a\tb:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match="no address for metrics"):
        metrics_address(text)


def test_an_address_that_is_taken_is_told(serve: Any) -> None:
    port = int(serve(list).url.rsplit(":", 1)[1].split("/")[0])
    with pytest.raises(BadSetting, match=f"metrics can't be served at 127.0.0.1:{port}: Address already in use"):
        Exporter(("127.0.0.1", port), list)


@pytest.mark.parametrize("make", [lambda: Exporter(LOCAL, list), lambda: Families("x")])
def test_a_missing_package_is_told_with_the_command_that_installs_it(
    make: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtra, match=r"needs prometheus-client.*pip install 'minilambda\[metrics\]'"):
        make()


# --- what a scrape may cost --------------------------------------------------------------------------


def test_silent_peers_are_few_and_are_sent_away(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PATIENCE", 0.5)
    served = serve(list)
    port = int(served.url.rsplit(":", 1)[1].split("/")[0])
    silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(exporter.MAX_CONNECTIONS + 4)]
    try:
        assert sum(thread.name == "scrape" for thread in threading.enumerate()) <= exporter.MAX_CONNECTIONS
        for each in silent:
            each.settimeout(10)
            assert each.recv(1) == b""  # the other side has ended it
    finally:
        for each in silent:
            each.close()
    assert "process_cpu_seconds_total" in get(served)


def test_a_text_is_told_again_while_making_another_would_take_too_much(serve: Any) -> None:
    made = 0

    def collect() -> list[Any]:
        nonlocal made
        made += 1
        threading.Event().wait(0.05)
        return []

    served = serve(collect)
    begun = made
    for _ in range(10):
        get(served)
    assert made - begun <= 3  # one a second, and each took a twentieth of that


def test_a_scrape_that_fails_is_one_that_fails(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    broken = True

    def collect() -> list[Any]:
        if broken:
            raise RuntimeError("no")
        return []

    served = serve(collect)
    with pytest.raises(OSError):
        get(served)
    broken = False
    assert get(served)
    assert "a scrape failed" in caplog.text


def test_a_broker_answers_while_a_scrape_is_stuck() -> None:
    from minilambda import Client
    from minilambda.broker.server import Server
    from minilambda.broker.telemetry import Telemetry, Wanted
    from minilambda.settings import BrokerSettings

    interval = sys.getswitchinterval()
    server = Server(BrokerSettings(), "tcp://127.0.0.1:0")
    server.telemetry = telemetry = Telemetry(Wanted(LOCAL), server.core, server.traffic)
    telemetry.start()
    thread = threading.Thread(target=server.serve)
    thread.start()
    served = telemetry._exporter
    assert served is not None
    try:
        with served._making:  # as if the scrape that waits for this took for ever
            scrape = threading.Thread(target=get, args=(served,))
            scrape.start()
            wait_for(lambda: any(each.name == "scrape" for each in threading.enumerate()), "a scrape is under way")
            with Client(server.endpoint) as client:
                assert client.overview().workers == 0
        scrape.join()
    finally:
        server.stop()
        thread.join()
        server.close()
        sys.setswitchinterval(interval)


# --- what is in it -----------------------------------------------------------------------------------


def test_a_histogram_is_told_in_seconds_and_adds_up(serve: Any) -> None:
    seen = Histogram()
    for value in (0.05, 3.0, 1e9):
        seen.add(value)
    make = Families("x")
    found = samples(get(serve(lambda: [make.histograms("wait_seconds", "A wait.", (), [((), seen)])])))
    assert found["x_wait_seconds_bucket", "0.0001"] == 1
    assert found["x_wait_seconds_bucket", "0.005"] == 2
    assert found["x_wait_seconds_bucket", f"{BOUNDS[-1] / 1000:g}"] == 2
    assert found["x_wait_seconds_bucket", "+Inf"] == found["x_wait_seconds_count",] == 3
    assert found["x_wait_seconds_sum",] == pytest.approx(1e6 + 0.00305)


def test_so_many_workers_are_told_by_name_and_the_others_together(serve: Any) -> None:
    world = World(audited=False)
    world.worker('we"ird\n} 1\\', slots=3)
    for number in range(MAX_NAMED + 10):
        world.worker(f"w{number}")
    metrics = BrokerMetrics(world.core, lambda: Traffic(0, 0, 0, 0), lambda: 0)
    found = samples(get(serve(metrics.collect)))
    slots = {key[1]: value for key, value in found.items() if key[0] == "minilambda_broker_worker_slots"}
    assert len(slots) == MAX_NAMED + 1 and slots["other"] == 11 and slots['we"ird\n} 1\\'] == 3
    assert found["minilambda_broker_slots",] == sum(slots.values())
