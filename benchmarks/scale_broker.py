"""A real broker with thousands of simulated workers: cost of a job, of being alive, of a connection, of a restart."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import procs
import zmq
from local_cluster import ClusterFailed

from minilambda.wire import VERSION

BIN = Path(__file__).resolve().parent.parent / "bin"
ADDRESS = re.compile(r"\b127\.0\.0\.1:[1-9]\d*\b")
SLOTS = 16  # of a simulated worker: ten of them have room for all jobs that are under way
WINDOW = 64  # jobs under way
EACH = 2500  # workers in one process, at most
ROLES = {"main": "main", "ZeroMQ I/O": "io"}  # threads of the broker that are told apart
PATIENCE_S = 120.0
POLL_S = 0.02
WASM = b"\0asm a module that nobody runs"


class Broker:
    """A broker's process, which can be killed and started again at the same address."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = ["--state-dir", str(folder / "state"), *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.address = "127.0.0.1:0"  # HOST:PORT

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Its process. Raises ``ClusterFailed`` where it has none or has ended."""
        if self._process is None or self._process.poll() is not None:
            raise ClusterFailed(f"the broker is gone: {self._log()}")
        return self._process.pid

    def start(self) -> float:
        """Start it; returns when it said that it listens, monotonic seconds."""
        command = [sys.executable, str(BIN / "minilambda-broker"), "--bind", self.address]
        env = {key: value for key, value in os.environ.items() if not key.startswith("MINILAMBDA_")}
        with (self._folder / "broker.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                start_new_session=True,
            )
        found = until(lambda: ADDRESS.search(self._log()) if self.pid else None, "the broker listens", POLL_S / 10)
        self.address = found[0]
        return time.monotonic()

    def kill(self) -> None:
        """As a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _log(self) -> str:
        return (self._folder / "broker.log").read_text(errors="replace")


class Fleet:
    """Simulated workers in as many processes as they need."""

    def __init__(self, address: str, count: int) -> None:
        self.count = count
        self._processes: list[subprocess.Popen[str]] = []
        parts = -(-count // EACH)
        for number in range(parts):
            size = count // parts + (number < count % parts)
            script = str(Path(__file__).with_name("scale_workers.py"))
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, script, f"tcp://{address}", f"w{number}-", str(size), str(SLOTS)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.communicate()

    def status(self) -> dict[str, Any]:
        """The counts of all of them together; ``last`` is when the last registration was answered."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("status\n")
            process.stdin.flush()
        rows = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise ClusterFailed("a process of simulated workers ended; see its traceback above.")
            rows.append(json.loads(line))
        totals = {key: sum(row[key] for row in rows) for key in rows[0]}
        return {**totals, "last": max(row["last"] for row in rows)}

    def registered(self, known: int = 0) -> dict[str, Any]:
        """Wait until all are registered, and that ``known`` registrations ago; their counts then."""
        seen: dict[str, Any] = {}

        def all_there() -> bool:
            seen.update(self.status())
            return bool(seen["registered"] == self.count and seen["sessions"] - known >= self.count)

        try:
            until(all_there, "all are registered", POLL_S)
        except ClusterFailed:
            raise ClusterFailed(f"{seen.get('registered')} of {self.count} workers are registered.") from None
        return seen


class Load:
    """A client that keeps ``WINDOW`` jobs under way."""

    def __init__(self, address: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self._socket.connect(f"tcp://{address}")
        self._spec = {"module": "sha256:" + hashlib.sha256(WASM).hexdigest()}
        self._ask([["wasm", WASM]])
        self._hear()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._context.term()

    def run(self, count: int) -> None:
        """So many jobs, from the first request to the last result."""
        for _ in range(min(WINDOW, count)):
            self._ask()
        for number in range(count):
            self._hear()
            if number + WINDOW < count:
                self._ask()

    def _ask(self, bodies: list[list[Any]] | None = None) -> None:
        header = {"v": VERSION, "type": "run", "request": 1, "job": uuid.uuid4().hex, "spec": self._spec}
        self._socket.send_multipart([b"", msgpack.packb({**header, "bodies": bodies} if bodies else header)])

    def _hear(self) -> None:
        try:
            header = msgpack.unpackb(self._socket.recv_multipart()[1])
        except zmq.Again:
            raise ClusterFailed(f"no result within {PATIENCE_S:g} s.") from None
        if header["type"] != "result" or header["result"]["state"] != "completed":
            raise ClusterFailed(f"a job was answered with {header}.")


def work(size: int, jobs: int) -> dict[str, Any]:
    """What a job costs a broker with ``size`` workers that hardly ever report."""
    rarely = ("--heartbeat", "60s", "--liveness", "300s")
    with TemporaryDirectory(prefix="minilambda-bench-") as folder, Broker(Path(folder), *rarely) as broker:
        before = procs.private_bytes(broker.pid)
        with Fleet(broker.address, size) as fleet, Load(broker.address) as load:
            fleet.registered()
            load.run(2 * size + 10 * WINDOW)  # from then on every worker has the module
            memory = procs.private_bytes(broker.pid) - before
            spent = _watch(broker.pid, lambda: load.run(jobs))
    return {
        "workers": size,
        "jobs": jobs,
        "connection_bytes": memory // size,
        "jobs_per_s": round(jobs / spent["wall"]),
        "main_us": round(spent["main"] / jobs, 1),
        "io_us": round(spent["io"] / jobs, 1),
        "us": round(spent["all"] / jobs, 1),
    }


def alive(size: int, seconds: float) -> float:
    """The share of a core that ``size`` idle workers cost a broker, which report once a second."""
    with (
        TemporaryDirectory(prefix="minilambda-bench-") as folder,
        Broker(Path(folder)) as broker,
        Fleet(broker.address, size) as fleet,
    ):
        fleet.registered()
        spent = _watch(broker.pid, lambda: threading.Event().wait(seconds))
    return round(spent["all"] / spent["wall"] / 1e6, 4)


def _watch(pid: int, action: Callable[[], object]) -> dict[str, float]:
    """Processor time that the process spends meanwhile, microseconds by thread, and the seconds that it takes."""
    first, begun = procs.spent(pid), time.monotonic()
    action()
    last, wall = procs.spent(pid), time.monotonic() - begun
    found = {"wall": wall, "main": 0.0, "io": 0.0, "all": 0.0}
    for key, spent in last.items():
        took = spent - first.get(key, 0.0)
        found["all"] += took
        if key[1] in ROLES:
            found[ROLES[key[1]]] += took
    return found


def restart(size: int, rounds: int) -> dict[str, Any]:
    """How long ``size`` workers take to be registered: at first, and after a broker was killed and started again."""
    with TemporaryDirectory(prefix="minilambda-bench-") as folder, Broker(Path(folder)) as broker:
        begun = time.monotonic()
        with Fleet(broker.address, size) as fleet:
            first = fleet.registered()
            back, spent, sessions = [], [], []
            for _ in range(rounds):
                known = fleet.status()["sessions"]
                broker.kill()
                listening = broker.start()
                there = fleet.registered(known)
                back.append(there["last"] - listening)
                sessions.append((there["sessions"] - known) / size)
                spent.append(procs.process_us(broker.pid) / 1e6)
    return {
        "workers": size,
        "first_s": round(first["last"] - begun, 3),
        "back_s": [round(each, 3) for each in back],
        "broker_cpu_s": [round(each, 3) for each in spent],
        "sessions_each": round(max(sessions), 3),
    }


def allow_files(count: int) -> None:
    """Let this process and those that it starts open so many files. Raises ``ClusterFailed`` where that can't be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(hard, count)))
    except (ValueError, OSError):
        raise ClusterFailed(f"{count} open files are needed, and {hard} are allowed: ulimit -n {count}") from None


def until(condition: Callable[[], Any], what: str, pause: float) -> Any:
    """Ask again and again until it is true; what it gave. Raises ``ClusterFailed`` when it takes too long."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        if time.monotonic() > end:
            raise ClusterFailed(f"Not within {PATIENCE_S:g} s: {what}.")
        threading.Event().wait(pause)
    return found
