"""What outlives a broker: acknowledged jobs and their results, over SIGKILL, SIGTERM and a full disk."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minilambda import Client
from minilambda.errors import MinilambdaError, StorageFailed
from tests.cluster import STOP_S, Cluster, Service, running_cluster, wait_for
from tests.integration.guests import CAT, HELLO, SLEEP, sleeping, slow_cat

QUICK = ("--heartbeat", "0.4s", "--liveness", "1.5s")


def kill_and_restart(cluster: Cluster, broker: Service, *options: str) -> Service:
    broker.signal(signal.SIGKILL)
    broker.process.wait(STOP_S)
    cluster.services.remove(broker)
    return cluster.restart_broker(*QUICK, *options)


class Submitter(threading.Thread):
    """Hands in detached jobs until it is told to stop, and writes down what was acknowledged."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        super().__init__(name=name)
        self.cluster = cluster
        self.acknowledged: list[str] = []
        self.stopping = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        number = 0
        with self.cluster.connect() as client:
            while not self.stopping.is_set():
                try:
                    job = client.submit(slow_cat(2), stdin=f"{self.name}-{number}", job_id=f"{self.name}-{number}")
                except MinilambdaError as error:
                    self.failure = error
                    return
                self.acknowledged.append(job.id)
                number += 1


def test_every_acknowledged_job_of_a_broker_that_is_killed_again_and_again_has_its_result(tmp_path: Path) -> None:
    chance = random.Random(7)
    with running_cluster(tmp_path, QUICK, workers=[("--slots", "1")] * 2) as cluster:
        # given
        submitters = [Submitter(cluster, f"s{number}") for number in range(2)]
        for submitter in submitters:
            submitter.start()
        # when
        broker = cluster.service("broker")
        for _ in range(5):
            before = sum(len(each.acknowledged) for each in submitters)
            more = chance.randrange(5, 60)
            wait_for(
                lambda target=before + more: sum(len(each.acknowledged) for each in submitters) >= target,
                "jobs are acknowledged",
                40,
            )
            broker = kill_and_restart(cluster, broker)
        for submitter in submitters:
            submitter.stopping.set()
        for submitter in submitters:
            submitter.join(60)
            assert submitter.failure is None
        # then
        with cluster.connect() as client:
            for submitter in submitters:
                assert len(submitter.acknowledged) > 10
                for job in submitter.acknowledged:
                    result = client.job(job).result(40)
                    assert (result.state, result.stdout) == ("completed", job.encode())
            listed = {row.job: row for row in client.jobs(limit=1000)}
        assert all(row.losses == 0 for row in listed.values())


def test_waiting_clients_get_one_answer_from_one_run_over_a_killed_broker(tmp_path: Path) -> None:
    with running_cluster(tmp_path, QUICK, workers=[("--slots", "2")] * 2) as cluster:
        # given four jobs that run and two that wait behind them
        broker = cluster.service("broker")

        def run(number: int) -> bytes:
            with cluster.connect() as client:
                return client.run(slow_cat(1500), stdin=f"{number}", retries=0).stdout

        with ThreadPoolExecutor(6) as pool:
            answers = pool.map(run, range(6))
            with cluster.connect() as client:
                wait_for(lambda: sum(w.queue for w in client.workers()) == 6, "the workers have the jobs")
            # when
            kill_and_restart(cluster, broker)
            # then: a second run of any would be one retry too many
            assert list(answers) == [f"{number}".encode() for number in range(6)]
        with cluster.connect() as client:
            assert sum(worker.done for worker in client.workers()) == 6


def test_a_broker_that_is_told_to_stop_writes_everything_and_says_so(tmp_path: Path) -> None:
    with running_cluster(tmp_path, QUICK, workers=[]) as cluster:
        # given
        with cluster.connect() as client:
            jobs = [client.submit(CAT, stdin=f"{number}").id for number in range(20)]
        # when
        cluster.retire(cluster.service("broker"))
        cluster.restart_broker(*QUICK)
        cluster.start_worker("--slots", "2")
        # then
        with cluster.connect() as client:
            assert [client.job(job).result(30).stdout for job in jobs] == [f"{n}".encode() for n in range(20)]


def test_a_result_and_its_module_outlive_the_broker(tmp_path: Path) -> None:
    with running_cluster(tmp_path, QUICK) as cluster:
        # given
        with cluster.connect() as client:
            job = client.submit(CAT, stdin="kept")
            assert job.result(20).stdout == b"kept"
            (module,) = client.modules()
        # when
        kill_and_restart(cluster, cluster.service("broker"))
        # then
        with cluster.connect() as client:
            assert client.job(job.id).result(0).stdout == b"kept"
            assert client.run(module.module, stdin="again").stdout == b"again"


def test_an_ephemeral_broker_leaves_nothing(tmp_path: Path) -> None:
    with running_cluster(tmp_path, (*QUICK, "--ephemeral"), workers=[]) as cluster:
        with cluster.connect() as client:
            job = client.submit(HELLO)
        kill_and_restart(cluster, cluster.service("broker"), "--ephemeral")
        with cluster.connect() as client, pytest.raises(MinilambdaError, match="does not know"):
            client.job(job.id).status()
        assert not list((tmp_path / "home").rglob("*journal*"))


# --- what is refused ---------------------------------------------------------------------------------


def start_and_fail(cluster: Cluster, *options: str) -> str:
    command = cluster.command("broker", "--bind", "127.0.0.1:0", *options)
    done = subprocess.run(command, capture_output=True, env=cluster.env, timeout=STOP_S, check=False, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_second_broker_on_one_state_directory_is_refused(tmp_path: Path) -> None:
    with running_cluster(tmp_path, ("--state-dir", str(tmp_path / "state")), workers=[]) as cluster:
        said = start_and_fail(cluster, "--state-dir", str(tmp_path / "state"))
        assert "Another broker uses the state directory" in said and "--ephemeral" in said


def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_cluster(tmp_path / "cluster", ("--state-dir", str(state)), workers=[]) as cluster:
        cluster.retire(cluster.service("broker"))
        with sqlite3.connect(state / "journal.sqlite3") as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        assert "newer version of minilambda" in start_and_fail(cluster, "--state-dir", str(state))


# --- a full disk -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, timeout=STOP_S, check=False, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], timeout=STOP_S, check=True)


def fill(client: Client, stdin: bytes) -> list[str]:
    """Hand in jobs until the broker refuses one; returns those that it took."""
    taken: list[str] = []
    for number in range(200):
        try:
            taken.append(client.submit(CAT, stdin=stdin, job_id=f"fill-{number}", output_limit="2M").id)
        except StorageFailed:
            return taken
    raise AssertionError("the disk is never full")


def test_a_full_disk_refuses_jobs_and_lets_the_others_end(small_disk: Path, tmp_path: Path) -> None:
    state = ("--state-dir", str(small_disk / "state"))
    with running_cluster(tmp_path / "cluster", (*QUICK, *state), workers=[]) as cluster, cluster.connect() as client:
        # given
        stdin = bytes(range(256)) * 4096
        taken = fill(client, stdin)
        assert len(taken) > 5
        # when
        worker = cluster.start_worker("--slots", "2")
        # then: what was taken ends, waiting clients are served, and after a crash all of it is there
        assert client.run(HELLO).stdout == b"hello\n"
        states = {job: client.job(job).result(40).state for job in taken}
        assert set(states.values()) == {"completed"}
        kill_and_restart(cluster, cluster.service("broker"), *state)
        for job in taken:
            assert client.job(job).result(20).stdout == stdin
        cluster.retire(worker)


def test_jobs_are_taken_again_when_the_disk_has_room_again(small_disk: Path, tmp_path: Path) -> None:
    state = ("--state-dir", str(small_disk / "state"))
    with running_cluster(tmp_path / "cluster", (*QUICK, *state), workers=[]) as cluster, cluster.connect() as client:
        # given
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(64 * 1024))
            except OSError:
                pass
        taken = fill(client, os.urandom(100_000))
        # when
        filler.unlink()
        # then

        def accepted() -> bool:
            try:
                taken.append(client.submit(CAT, stdin="x").id)
            except StorageFailed:
                return False
            return True

        wait_for(accepted, "a job is taken again")
        kill_and_restart(cluster, cluster.service("broker"), *state)
        assert {client.job(job).status().state for job in taken} == {"queued"}


# --- poisoned jobs -----------------------------------------------------------------------------------


def test_a_poisoned_job_is_listed_and_run_again_by_hand(tmp_path: Path) -> None:
    with running_cluster(tmp_path, QUICK, workers=[]) as cluster, cluster.connect() as client:
        # given
        job = client.submit(sleeping(400), retries=5)
        for _ in range(3):
            worker = cluster.start_worker("--slots", "1")
            wait_for(lambda: job.status().state == "running", "the job runs")
            cluster.lose(worker)
            wait_for(lambda: job.status().state != "running", "the worker is lost")
        kill_and_restart(cluster, cluster.service("broker"))
        # when
        listed = cluster.client("jobs", "--state", "poisoned", "--json")
        again = cluster.client("run-again", job.id)
        cluster.start_worker("--slots", "1")
        # then
        assert f'"job": "{job.id}"' in listed.stdout.decode() and '"losses": 3' in listed.stdout.decode()
        assert client.job(again.stdout.decode().strip()).result(20).state == "completed"
        assert cluster.client("run-again", "unknown").code == 125
        running = client.submit(SLEEP)
        assert b"conflict" in cluster.client("run-again", running.id).stderr
        running.cancel()
