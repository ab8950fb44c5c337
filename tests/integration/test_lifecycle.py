"""How brokers, workers and `minilambda up` come and go: nothing is run twice, nothing is left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from minilambda.client.results import RunResult
from minilambda.errors import WorkerLost
from tests.cluster import BIN, STOP_S, Cluster, Service, descendants, living, running_cluster, wait_for
from tests.integration.guests import CAT, HELLO, SLEEP, sleeping

QUICK = ("--heartbeat", "0.4s", "--liveness", "1.5s")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker that notices quickly that a worker is lost; each test brings its workers."""
    with running_cluster(tmp_path_factory.mktemp("quick"), QUICK, workers=[]) as cluster:
        yield cluster


# --- a worker that is told to stop --------------------------------------------------------------------------


def test_a_stopped_worker_finishes_what_runs_and_hands_back_the_rest(quick: Cluster) -> None:
    # given a worker with a job that runs and two that wait for its slot
    first = quick.start_worker("--slots", "1")
    with quick.connect() as client:
        running = client.submit(sleeping(1500))
        wait_for(lambda: running.status().state == "running", "the first job runs")
        waiting = [client.submit(CAT, stdin=f"{n}") for n in range(2)]
        wait_for(lambda: client.workers()[0].queue == 3, "the worker holds all three")
        # when
        first.signal(signal.SIGTERM)
        second = quick.start_worker("--slots", "1")
        # then
        results = [job.result(20) for job in [running, *waiting]]
        assert [result.worker for result in results] == [first.name, second.name, second.name]
        assert results[0].attempt == 1 and results[0].exit_code == 0
        assert [result.stdout for result in results[1:]] == [b"0", b"1"]
        assert first.process.wait(STOP_S) == 0
        # it said goodbye: nobody had to find out by its silence
        assert [worker.name for worker in client.workers()] == [second.name]
    quick.services.remove(first)
    quick.retire(second)


def test_a_stopped_worker_does_not_wait_longer_than_its_grace(quick: Cluster) -> None:
    # given
    worker = quick.start_worker("--slots", "1", "--grace", "0.3s")
    with quick.connect() as client:
        job = client.submit(SLEEP, retries=0)
        wait_for(lambda: job.status().state == "running", "the job runs")
        # when
        quick.retire(worker)
        # then
        with pytest.raises(WorkerLost):
            job.result(20)


def test_a_second_signal_stops_a_worker_at_once(quick: Cluster) -> None:
    # given
    worker = quick.start_worker("--slots", "1", "--grace", "1h")
    with quick.connect() as client:
        job = client.submit(SLEEP, retries=0)
        wait_for(lambda: job.status().state == "running", "the job runs")
        family = descendants(worker.process.pid)
        # when
        worker.signal(signal.SIGINT)
        wait_for(lambda: client.workers()[0].state == "draining", "the worker drains")
        worker.signal(signal.SIGINT)
        # then
        worker.process.wait(STOP_S)
        wait_for(lambda: not living(family), "all its processes are gone")
        with pytest.raises(WorkerLost):
            job.result(20)
    quick.services.remove(worker)


def test_a_worker_that_drains_does_not_tell_of_a_broker_that_has_ended_too(tmp_path: Path) -> None:
    hasty = ("--heartbeat", "0.2s", "--liveness", "0.8s")
    with running_cluster(tmp_path, hasty, workers=[("--slots", "1", "--grace", "2500ms")]) as cluster:
        # given: a worker that serves on tells of it
        worker, silent = cluster.service("worker-1"), "the broker is silent"
        cluster.lose(cluster.service("broker"))
        worker.wait_printed(re.compile(silent))
        cluster.restart_broker(*hasty)
        cluster.wait_workers(1)
        with cluster.connect() as client:
            job = client.submit(sleeping(1000))
            wait_for(lambda: job.status().state == "running", "the job runs")
            # when
            worker.signal(signal.SIGTERM)
            wait_for(lambda: client.workers()[0].state == "draining", "the worker drains")
        cluster.lose(cluster.services[-1])
        # then: it waits for somebody to take the result, and says nothing
        assert worker.process.wait(STOP_S) == 0
        assert worker.printed().count(silent) == 1
        cluster.services.clear()


# --- a broker that comes back -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_broker_that_is_restarted_costs_no_second_run(tmp_path: Path, number: signal.Signals) -> None:
    with running_cluster(tmp_path, QUICK, workers=[("--slots", "1")]) as cluster:
        # given
        broker = cluster.service("broker")
        with ThreadPoolExecutor(1) as pool:
            answer: Future[RunResult] = pool.submit(run_in_a_thread, cluster, sleeping(1000))
            with cluster.connect() as client:
                wait_for(lambda: client.workers()[0].queue == 1, "the job is at the worker")
            # when
            broker.signal(number)
            assert broker.process.wait(STOP_S) in (0, -signal.SIGKILL)
            cluster.services.remove(broker)
            cluster.restart_broker(*QUICK)
            # then
            result = answer.result(40)
        assert (result.state, result.worker, result.attempt) == ("completed", "worker-1", 1)
        with cluster.connect() as client:
            assert [worker.name for worker in client.workers()] == ["worker-1"]
            assert client.run(HELLO).stdout == b"hello\n"


def run_in_a_thread(cluster: Cluster, wasm: bytes) -> RunResult:
    with cluster.connect() as client:
        return client.run(wasm, retries=0)


def test_workers_that_come_before_their_broker_wait_for_it(tmp_path: Path) -> None:
    with running_cluster(tmp_path, QUICK, workers=[]) as cluster:
        # given
        cluster.retire(cluster.service("broker"))
        cluster.start_worker("--slots", "1")
        wait_for(lambda: cluster.service("worker-1").pids("ml-runner"), "the worker is up")
        # when
        cluster.restart_broker(*QUICK)
        # then
        with cluster.connect() as client:
            assert client.run(HELLO).stdout == b"hello\n"


# --- minilambda up ------------------------------------------------------------------------------------------


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Service]:
    """`minilambda up` with two workers of one slot, and a job that runs on one of them."""
    cluster = Cluster(tmp_path)
    options = ["--workers", "2", "--slots", "1", "--bind", "127.0.0.1:0", "--cache-dir", str(tmp_path / "cache")]
    command = [sys.executable, str(BIN / "minilambda"), "up", "--grace", "0.3s", *options]
    service = Service("up", command, cluster.env, tmp_path / "logs")
    try:
        cluster.address = service.wait_printed(re.compile(r"listening on tcp://(127\.0\.0\.1:\d+)"))[1]
        cluster.services.append(service)
        with cluster.connect() as client:
            wait_for(lambda: len(client.workers()) == 2, "both workers are there")
            assert client.run(HELLO).stdout == b"hello\n"
            job = client.submit(SLEEP)
            wait_for(lambda: job.status().state == "running", "a job runs")
        yield service
        assert list((tmp_path / "tmp").iterdir()) == []
    finally:
        service.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_after_up(up: Service, number: signal.Signals) -> None:
    # given
    family = descendants(up.process.pid)
    assert len(up.pids("ml-runner")) == 2
    # when
    up.signal(number)
    # then
    assert up.process.wait(STOP_S) == (-signal.SIGKILL if number == signal.SIGKILL else 0), up.printed()
    wait_for(lambda: not living(family), f"all processes are gone: {family}")
    assert "Traceback" not in up.printed()


def test_up_starts_a_worker_again_that_died(up: Service) -> None:
    # given
    templates = set(up.pids("ml-template"))
    (worker,) = {parent_of(pid) for pid in list(templates)[:1]}
    # when
    subprocess.run(["kill", "-KILL", str(worker)], check=True)
    # then
    wait_for(lambda: len(set(up.pids("ml-template")) - templates) == 1, "another worker runs")
    wait_for(lambda: len(up.pids("ml-runner")) == 2, "and has its runner")
    up.stop()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
