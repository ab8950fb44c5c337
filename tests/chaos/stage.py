"""What the chaos happens to: a broker, its workers and its clients, all of them processes that can die."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from minilambda import Client
from tests.chaos.load import lines
from tests.chaos.network import BRIDGE, Network
from tests.cluster import ADDRESS, BIN, ROOT, STOP_S, Service, wait_for

HEARTBEAT, LIVENESS = 0.5, 2.0  # seconds
TTL = 900.0  # results are kept for longer than a chaos lasts, seconds


@dataclass(eq=False)
class Worker:
    """A worker that runs or ran."""

    number: int  # from 1, new for each
    service: Service
    seat: int  # place in the cluster; the worker that replaces this one has the same
    cut: bool = False  # parted from the broker


@dataclass(eq=False)
class Load:
    """A client that runs or ran."""

    name: str
    process: subprocess.Popen[bytes]
    file: Path


@dataclass(frozen=True)
class Size:
    """What a process takes."""

    kib: int  # resident memory
    files: int  # open descriptors
    kinds: tuple[tuple[str, int], ...] = ()  # what the descriptors are, and how many of each


class Stage:
    """One broker, and seats for workers and clients; whoever leaves a seat can be replaced."""

    def __init__(self, folder: Path, seed: int, workers: int, clients: int, network: Network | None) -> None:
        self.folder, self.seed, self.network = folder, seed, network
        for name in ("logs", "tmp", "home", "cache", "ledger"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("MINILAMBDA_", "XDG_"))}
        self.env.update(TMPDIR=str(folder / "tmp"), HOME=str(folder / "home"), PYTHONPATH=str(ROOT))
        self.env["PYTHONWARNINGS"] = "default"
        self.seats = {"worker": workers, "client": clients}
        self.broker: Service | None = None
        self.workers: list[Worker] = []
        self.leaving: list[Service] = []  # workers that were told to stop
        self.loads: list[Load] = []
        self.past: list[Load] = []  # clients that died
        self.logs: list[Service] = []  # everybody who ever ran
        self.address = ""
        self.durable = (
            "--state-dir"
            in subprocess.run(
                [sys.executable, BIN / "minilambda-broker", "--help"], capture_output=True, text=True, check=True
            ).stdout
        )
        self._numbers = {"broker": 0, "worker": 0, "client": 0}

    # --- coming ---

    def start_broker(self) -> Service:
        """The broker, or another one at its address and with its state."""
        where = self.address or (f"{BRIDGE}:8080" if self.network else "127.0.0.1:0")
        command = [sys.executable, str(BIN / "minilambda-broker"), "--bind", where, "--result-ttl", f"{TTL}"]
        command += ["--heartbeat", f"{HEARTBEAT}", "--liveness", f"{LIVENESS}"]
        command += ["--insecure"] if self.network else []
        command += ["--state-dir", str(self.folder / "state")] if self.durable else []
        self.broker = self._start("broker", command)
        if not self.address:
            self.address = where if self.network else "127.0.0.1:" + self.broker.wait_printed(ADDRESS)[1]
        return self.broker

    def start_worker(self, seat: int, cache: str = "cache") -> Worker:
        """A worker of one slot on an even seat, of two on an odd one."""
        number = self._numbers["worker"] + 1
        command = [sys.executable, "-m", "tests.chaos.witness", str(self.folder / "ledger" / f"worker-{number}")]
        command += ["--orchestrator", self.address, "--name", f"worker-{number}", "--slots", str(1 + seat % 2)]
        command += ["--cache-dir", str(self.folder / cache)]
        if self.network is not None:
            command = self.network.command(number, command)
        worker = Worker(number, self._start("worker", command), seat)
        if self.network is not None:
            self.network.plug(number, worker.service.process.pid)
        self.workers.append(worker)
        return worker

    def start_load(self) -> Load:
        number = self._numbers["client"] = self._numbers["client"] + 1
        name = f"client-{number}"
        file = self.folder / "ledger" / name
        command = [
            sys.executable,
            "-m",
            "tests.chaos.load",
            self.address,
            name,
            f"{self.seed * 1000 + number}",
            str(file),
        ]
        with (self.folder / "logs" / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self.env)
        load = Load(name, process, file)
        self.loads.append(load)
        return load

    def _start(self, kind: str, command: list[str]) -> Service:
        self._numbers[kind] += 1
        service = Service(f"{kind}-{self._numbers[kind]}", command, self.env, self.folder / "logs")
        self.logs.append(service)
        return service

    # --- going ---

    def lose_worker(self, worker: Worker) -> None:
        """SIGKILL, whatever state it is in."""
        worker.service.kill()
        self.workers.remove(worker)

    def retire_worker(self, worker: Worker) -> None:
        """SIGTERM; that it ends well is looked at in the end."""
        worker.service.process.terminate()
        self.workers.remove(worker)
        self.leaving.append(worker.service)

    def lose_load(self, load: Load) -> None:
        """SIGKILL to a client."""
        load.process.kill()
        load.process.wait()
        assert load.process.stdin is not None
        load.process.stdin.close()
        self.loads.remove(load)
        self.past.append(load)

    def retire_loads(self, seconds: float) -> list[str]:
        """Let the clients finish what they have begun; returns what was wrong with them."""
        for load in self.loads:
            assert load.process.stdin is not None
            load.process.stdin.close()
        problems = []
        end = time.monotonic() + seconds
        for load in self.loads:
            try:
                code = load.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                load.process.kill()
                code = load.process.wait()
            if code:
                said = (self.folder / "logs" / f"{load.name}.log").read_text(errors="replace")
                problems.append(f"{load.name} did not finish within {seconds:g} s of calm ({code}): {said}")
        return problems

    def stop(self) -> list[str]:
        """SIGTERM to workers and broker; returns what did not end well."""
        problems = []
        for service in self.leaving:
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.process.wait(STOP_S)
            fine = (0,) if "registered" in service.printed() else (0, -signal.SIGTERM)  # not up yet: it just dies
            if service.process.returncode not in fine:
                problems.append(f"{service.name} was told to stop, and now: {service.process.returncode}")
        for service in [*(worker.service for worker in self.workers), *([self.broker] if self.broker else [])]:
            try:
                service.stop()
            except AssertionError as problem:
                problems.append(str(problem))
        return problems

    def kill(self) -> None:
        """End everything that still runs, whatever happened."""
        for service in self.logs:
            with contextlib.suppress(ProcessLookupError):
                service.process.send_signal(signal.SIGCONT)
            service.kill()
        for load in self.loads:
            load.process.kill()
            load.process.wait()

    # --- how it is ---

    def connect(self) -> Client:
        return Client(self.address, connect_timeout=20)

    def wait_ready(self) -> None:
        """Wait until every seat has a worker that the broker knows."""
        names = {worker.service.name for worker in self.workers}
        with self.connect() as client:

            def known() -> bool:
                listed = client.workers()
                return {w.name for w in listed if w.state in ("idle", "busy")} == names and len(listed) == len(names)

            wait_for(known, f"the broker knows {sorted(names)} and nobody else", 40)

    def sizes(self) -> dict[str, Size]:
        """The broker and the agents."""
        found = {worker.service.name: size(worker.service.process.pid) for worker in self.workers}
        if self.broker is not None:
            found["broker"] = size(self.broker.process.pid)
        return found

    def notes(self) -> list[tuple[str, list[object]]]:
        """All that clients and witnesses have written, each line with who wrote it."""
        files = sorted((self.folder / "ledger").iterdir())
        return [(file.name, line) for file in files for line in lines(file)]

    def complaints(self) -> list[str]:
        """What brokers and workers printed that nobody should ever see."""
        return [f"{s.name} printed:\n{s.printed()[-3000:]}" for s in self.logs if "Traceback" in s.printed()]


def size(pid: int) -> Size:
    """What a process takes now."""
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    kinds: Counter[str] = Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            kinds[re.sub(r":?\[\d+\]$|/[0-9a-f]{16,}.*|-\d+\.log$", "", os.readlink(f"/proc/{pid}/fd/{fd}"))] += 1
    return Size(kib, kinds.total(), tuple(sorted(kinds.items())))
