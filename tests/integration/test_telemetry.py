"""What a broker and a worker tell those who watch over them: numbers, spans and a line for each job."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import zmq
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster import Cluster, Service, wait_for
from tests.integration.guests import HELLO
from tests.integration.plain import Plain

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"
METRICS = re.compile(r"serves metrics at (http://127\.0\.0\.1:\d+/metrics)")
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HOSTILE = 'we"ird\n{"event": "job_ended"}\x1b[31m'


class Receiver:
    """Takes spans over HTTP, as an OTLP collector does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
                request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for group in request.resource_spans:
                    receiver.resources.append(group.resource)
                    receiver.spans += [span for scope in group.scope_spans for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def of(self, job: str) -> list[Any]:
        """The spans of a job, its own first."""
        own = [span for span in self.spans if attributes(span).get("minilambda.job.id") == job]
        return own + [span for span in self.spans if own and span.parent_span_id == own[0].span_id]


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Cluster]:
    """A cluster that tells all that it can; its worker has a name that does its worst."""
    told = ("--metrics", "0", "--log-format", "json", "--verbose")
    broker = (*told, "--otlp", receiver.url, "--ephemeral")
    cluster = Cluster(tmp_path_factory.mktemp("watched"))
    place = ("--cache-dir", str(cluster.folder / "cache"), "--name", HOSTILE, "--slots", "2")
    try:
        cluster.start_broker(*broker)
        cluster._start("worker", "--orchestrator", cluster.address, *place, *told)
        cluster.wait_workers(1)
        yield cluster
        cluster.stop()
    finally:
        cluster.kill()


def service(cluster: Cluster, name: str) -> Service:
    return next(each for each in cluster.services if each.name.startswith(name))


def scrape(cluster: Cluster, name: str) -> dict[tuple[str, ...], float]:
    """The numbers by name and values of labels, as Prometheus reads them."""
    url = service(cluster, name).wait_printed(METRICS)[1]
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.read().decode()
    families = text_string_to_metric_families(text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def lines(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    """What a service has logged; each line that is one of the log is an object."""
    printed = service(cluster, name).printed().splitlines()
    return [json.loads(line) for line in printed if line.startswith('{"time"')]


def ended(cluster: Cluster, name: str, job: str) -> dict[str, Any]:
    found = [line for line in lines(cluster, name) if line.get("job") == job]
    assert len(found) == 1, found
    return found[0]


# --- numbers -----------------------------------------------------------------------------------------


def test_the_broker_counts_jobs_by_outcome_and_times_them_by_tier(watched: Cluster) -> None:
    before = scrape(watched, "broker")
    with watched.connect() as client:
        client.run(HELLO)
        client.run(HELLO)
        client.run(EXAMPLES / "hostile" / "divide.wasm", check=False)

    def grown(*key: str) -> float:
        return after.get(key, 0.0) - before.get(key, 0.0)

    wait_for(lambda: scrape(watched, "broker")["minilambda_broker_accepted_jobs_total",] >= 3, "it was scraped anew")
    after = scrape(watched, "broker")
    assert grown("minilambda_broker_jobs_total", "completed") == 2
    assert grown("minilambda_broker_jobs_total", "trap") == 1
    assert grown("minilambda_broker_queue_wait_seconds_count") == 3
    tiers = ("warm", "disk", "compiled")
    assert sum(grown("minilambda_broker_job_seconds_count", tier) for tier in tiers) == 3
    assert grown("minilambda_broker_job_seconds_sum", "warm") < 5.0  # seconds, not milliseconds
    assert after["minilambda_broker_worker_slots", HOSTILE] == after["minilambda_broker_slots",] == 2
    assert after["minilambda_broker_workers", "idle"] + after["minilambda_broker_workers", "busy"] == 1
    assert grown("minilambda_broker_received_bytes_total") > 1000  # the modules came this way


def test_a_worker_times_what_comes_before_a_guest_and_counts_its_runners(watched: Cluster) -> None:
    with watched.connect() as client:
        for _ in range(2):
            client.run(HELLO)
        client.run(EXAMPLES / "hostile" / "sleep.wasm", timeout=0.1, check=False)
    wait_for(
        lambda: scrape(watched, "worker").get(("minilambda_worker_runner_ends_total", "deadline")), "one is killed"
    )
    found = scrape(watched, "worker")
    assert found["minilambda_worker_cold_start_seconds_count", "total", "warm"] >= 1
    assert found["minilambda_worker_cold_start_seconds_count", "compile", "compiled"] >= 1
    assert found["minilambda_worker_jobs_total", "deadline_exceeded"] == 1
    assert found["minilambda_worker_runner_starts_total",] >= 3
    assert found["minilambda_worker_compilations_total", "completed"] >= 2
    assert found["minilambda_worker_registered",] == 1 and found["minilambda_worker_slots",] == 2


def test_what_peers_get_wrong_is_counted_by_kind(watched: Cluster) -> None:
    with zmq.Context() as context:
        plain = Plain(context, watched.address)
        plain.refused("nothing")
        plain.socket.close()
    wait_for(
        lambda: scrape(watched, "broker").get(("minilambda_broker_rejected_total", "bad_request")), "it is counted"
    )


def test_all_that_the_dashboard_and_the_alerts_ask_for_is_exported_and_explained(watched: Cluster) -> None:
    texts = [_text(watched, name) for name in ("broker", "worker")]
    families = {line.split()[2] for text in texts for line in text.splitlines() if line.startswith("# TYPE")}
    offered = families | {key[0] for name in ("broker", "worker") for key in scrape(watched, name)}
    contrib = ROOT / "contrib"
    for file, least in ((contrib / "grafana" / "minilambda.json", 25), (contrib / "minilambda.rules.yml", 7)):
        named = set(re.findall(r"\bminilambda_(?:broker|worker)_[a-z_]+", file.read_text()))
        assert len(named) > least and named - offered == set(), file
    page = (ROOT / "docs" / "operating.md").read_text()
    assert {name for name in families if name.startswith("minilambda_") and f"`{name}" not in page} == set()


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads((ROOT / "contrib" / "grafana" / "minilambda.json").read_text())
    panels = dashboard["panels"]
    assert dashboard["schemaVersion"] >= 39 and dashboard["id"] is None
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    variables = {each["name"] for each in dashboard["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert set(re.findall(r"\$(?!__)(\w+)", target["expr"])) <= variables


def _text(cluster: Cluster, name: str) -> str:
    with urllib.request.urlopen(service(cluster, name).wait_printed(METRICS)[1], timeout=10) as answer:
        return str(answer.read().decode())


# --- lines -------------------------------------------------------------------------------------------


def test_each_job_has_one_line_in_either_log(watched: Cluster) -> None:
    with watched.connect() as client:
        client.run(HELLO, job_id="logged", group="g")
        client.run(EXAMPLES / "hostile" / "divide.wasm", job_id="logged-trap", check=False)
    good = ended(watched, "broker", "logged")
    wanted = {"event": "job_ended", "attempt": 1, "principal": "local", "outcome": "completed", "group": "g"}
    assert wanted.items() <= good.items() and good["worker"] == HOSTILE and good["level"] == "info"
    assert good["total_ms"] >= good["run_ms"] > 0 and good["tier"] in ("warm", "disk", "compiled")
    assert ended(watched, "broker", "logged-trap")["outcome"] == "trap"
    assert ended(watched, "worker", "logged")["attempt"] == 1
    assert ended(watched, "worker", "logged-trap")["outcome"] == "trap"


# --- spans -------------------------------------------------------------------------------------------


def test_a_job_with_a_traceparent_becomes_spans_under_it(watched: Cluster, receiver: Receiver) -> None:
    with watched.connect() as client:
        result = client.run(EXAMPLES / "upper.wasm", stdin="x", job_id="traced", traceparent=f"00-{TRACE}-{SPAN}-01")
    wait_for(lambda: receiver.of("traced"), "the spans arrive", 20)
    job, *steps = receiver.of("traced")
    assert (job.name, job.trace_id.hex(), job.parent_span_id.hex()) == ("job", TRACE, SPAN)
    assert {"minilambda.outcome": "completed", "minilambda.attempt": 1, "minilambda.worker": HOSTILE}.items() <= (
        attributes(job).items()
    )
    assert [step.name for step in steps] == ["queue", "compile", "load", "run"]
    assert all(step.trace_id.hex() == TRACE for step in steps)
    begins = [step.start_time_unix_nano for step in steps]
    assert begins == sorted(begins) and all(
        job.start_time_unix_nano <= step.start_time_unix_nano <= step.end_time_unix_nano <= job.end_time_unix_nano
        for step in steps
    )
    run = steps[-1]
    took_ms = (run.end_time_unix_nano - run.start_time_unix_nano) / 1e6
    assert took_ms == pytest.approx(result.usage.run_ms, abs=0.01)
    about = {each.key: each.value.string_value for each in receiver.resources[0].attributes}
    assert about["service.name"] == "minilambda-broker"


def test_a_bad_traceparent_is_ignored(watched: Cluster, receiver: Receiver) -> None:
    bad = ["nonsense", f"00-{TRACE}-{SPAN}-00", f"00-{'0' * 32}-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", "x" * 128]
    with watched.connect() as client:
        ignored = [client.run(HELLO, traceparent=parent).job_id for parent in bad]
        after = client.run(HELLO, traceparent=f"00-{TRACE}-{SPAN}-01").job_id
    wait_for(lambda: receiver.of(after), "the spans of the job after them arrive", 20)
    assert [receiver.of(job) for job in ignored] == [[]] * len(bad)


# --- usage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--metrics", "localhost"), "'localhost' is no address for metrics"),
        (("--metrics", "192.0.2.1:9"), "metrics can't be served at 192.0.2.1:9"),
        (("--otlp", "ftp://x"), "'ftp://x' is no address for spans"),
        (("--log-format", "xml"), "'xml' is not one of text, json"),
    ],
)
def test_what_can_not_be_is_said_at_the_start(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    import subprocess

    cluster = Cluster(tmp_path)
    command = cluster.command("broker", "--bind", "127.0.0.1:0", "--ephemeral", *options)
    done = subprocess.run(command, capture_output=True, env=cluster.env, timeout=30, check=False)
    assert done.returncode in (1, 2) and says in done.stderr.decode()


def test_other_paths_and_methods_are_refused(watched: Cluster) -> None:
    url = service(watched, "broker").wait_printed(METRICS)[1]
    for request, status in ((url + "/x", 404), (urllib.request.Request(url, b"x", method="POST"), 501)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == status
        refused.value.close()
