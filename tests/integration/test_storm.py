"""A thousand workers at once: stand-ins that speak the real protocol from one process, to a real broker."""

from __future__ import annotations

import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.broker_peers import frames, parse
from tests.cluster import Cluster
from tests.integration.guests import HELLO

WORKERS = 1000
QUICK = ("--heartbeat", "1s", "--liveness", "5s")
BOUND = 30.0  # all are registered again so long after a restart, seconds


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 5 * WORKERS:
        pytest.skip(f"{WORKERS} workers need more files than the {hard} that this machine allows")
    resource.setrlimit(resource.RLIMIT_NOFILE, (5 * WORKERS, hard))
    made = Cluster(tmp_path)
    try:
        made.start_broker(*QUICK, "--state-dir", str(tmp_path / "state"))
        yield made
        made.stop()
    finally:
        made.kill()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Storm:
    """Workers of one slot each. What they are given they have done at once."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 3 * WORKERS)
        self._poller = zmq.Poller()
        self.names: dict[Any, str] = {}
        self.sessions: dict[str, int] = {}  # of those that are registered
        self._last: dict[str, int] = {}  # the latest session of each, the broker's or an earlier one's
        self._seen: dict[str, int] = {}  # the latest dispatch of that session
        self.registered: Counter[str] = Counter()  # sessions that each was given
        self.jobs: Counter[str] = Counter()  # dispatches of each job
        self._reports = 0.0  # when the next ones are due, monotonic seconds
        for number in range(WORKERS):
            socket = self._context.socket(zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(f"tcp://{address}")
            self._poller.register(socket, zmq.POLLIN)
            self.names[socket] = f"w{number}"
            self._register(socket)

    def close(self) -> None:
        for socket in self.names:
            socket.close()
        self._context.term()

    def forget(self) -> None:
        """The broker is gone."""
        self.sessions.clear()
        self.registered.clear()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Live until then."""
        end = time.monotonic() + BOUND
        while not condition():
            assert time.monotonic() < end, f"{what}: {len(self.sessions)} workers are registered"
            for socket, _ in self._poller.poll(50):
                self._hear(socket)
            if time.monotonic() >= self._reports:
                self._reports = time.monotonic() + 1.0
                for socket, name in self.names.items():  # a broker that does not know the session says so
                    if name in self._last:
                        self._say(socket, "report", session=self._last[name], queue=0, seen=self._seen[name])

    def _hear(self, socket: Any) -> None:
        message = parse(socket.recv_multipart()[1:])
        name = self.names[socket]
        if message["type"] == "registered":
            self.sessions[name] = self._last[name] = message["session"]
            self._seen[name] = 0
            self.registered[name] += 1
        elif message["type"] == "register_again" and name not in self.sessions:
            self._register(socket)
        elif message["type"] == "dispatch":
            self.jobs[message["ref"][1]] += 1
            self._seen[name] = message["sequence"]
            words = {"session": message["session"], "ref": message["ref"], "queue": 0, "seen": message["sequence"]}
            self._say(socket, "done", **words, result={"state": "completed", "exit_code": 0})

    def _register(self, socket: Any) -> None:
        name = self.names[socket]
        self._say(socket, "register", worker=name, name=name, slots=1)

    def _say(self, socket: Any, kind: str, **fields: Any) -> None:
        socket.send_multipart([b"", *frames(kind, **fields)])


def run_jobs(cluster: Cluster, count: int) -> list[str]:
    with cluster.connect() as client:
        return [result.job_id for result in client.map(HELLO, [[]] * count)]


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_thousand_workers_register_and_register_again_with_the_next_broker_each_once(cluster: Cluster) -> None:
    storm = Storm(cluster.address)
    try:
        # when
        storm.until(lambda: len(storm.sessions) == WORKERS, "all register")
        # then
        assert set(storm.registered.values()) == {1}
        assert_serves(cluster, storm)
        # when
        broker = cluster.service("broker")
        broker.signal(signal.SIGKILL)
        broker.process.wait()
        cluster.services.remove(broker)
        storm.forget()
        cluster.restart_broker(*QUICK, "--state-dir", str(cluster.folder / "state"))
        storm.until(lambda: len(storm.sessions) == WORKERS, "all register again")
        # then
        assert set(storm.registered.values()) == {1}
        assert_serves(cluster, storm)
    finally:
        storm.close()


def assert_serves(cluster: Cluster, storm: Storm) -> None:
    """The broker gives each job to one worker, and knows nobody twice."""
    storm.jobs.clear()
    with ThreadPoolExecutor(1) as pool:
        jobs = pool.submit(run_jobs, cluster, 300)
        storm.until(jobs.done, "the jobs are done")
        assert storm.jobs == Counter(jobs.result())
        listed = pool.submit(names, cluster)
        storm.until(listed.done, "the workers are listed")
        assert len(listed.result()) == len(set(listed.result())) > WORKERS // 2  # a list is cut to what fits a frame


def names(cluster: Cluster) -> list[str]:
    with cluster.connect() as client:
        return [worker.name for worker in client.workers()]
