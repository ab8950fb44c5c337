"""A hundred real workers, each in a network namespace of its own where the machine allows, and their broker.

The namespaces have no names: they, their bridge and their cables vanish with the last process in them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import procs
from local_cluster import ClusterFailed

from tests.chaos.network import BRIDGE, Network, enter, inside, why_not

BIN = Path(__file__).resolve().parent.parent / "bin"
PORT = 18_080
UP_S = 300.0  # all workers must be up after so long, seconds
DOWN_S = 30.0
LEASH = ["setpriv", "--pdeathsig", "KILL"]  # they end with the benchmark, even when that is killed


def own_network() -> str:
    """Start this program again in a network of its own, if it is not in one; why it can't be, or ""."""
    if inside():
        return ""
    reason = why_not()
    if not reason:
        sys.stdout.flush()
        enter()
    return reason


class Nodes:
    """The workers' processes, and the broker's while there is one. Leaves nothing behind, even when it is killed."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self.count = count
        self._network = Network() if inside() else None
        self.address = f"{BRIDGE if self._network else '127.0.0.1'}:{PORT}"
        self._workers: list[subprocess.Popen[bytes]] = []
        self._broker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Nodes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_broker()
        for worker in self._workers:
            worker.send_signal(signal.SIGTERM)
        end = time.monotonic() + DOWN_S
        for worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.1, end - time.monotonic()))
            worker.kill()
            worker.wait()

    def start_broker(self) -> None:
        """The real one, at the address that the workers know."""
        self._broker = self._start("broker", ["broker", "--bind", self.address, "--insecure", "--ephemeral"], None)

    def stop_broker(self) -> None:
        """Free the address for another."""
        if self._broker is not None:
            self._broker.terminate()
            self._broker.wait()
            self._broker = None

    def start_workers(self) -> None:
        """Begin to start all of them."""
        cache = str(self._folder / "cache")
        for number in range(self.count):
            place = ["worker", "--orchestrator", self.address, "--cache-dir", cache, "--slots", "1", "--grace", "1s"]
            self._workers.append(self._start(f"node-{number}", [*place, "--name", f"node-{number}"], number))
            if self._network is not None:
                self._network.plug(number, self._workers[-1].pid)

    def check(self) -> None:
        """Raises ``ClusterFailed`` when a process has ended."""
        named = [*((f"node-{number}", worker) for number, worker in enumerate(self._workers))]
        if self._broker is not None:
            named.append(("broker", self._broker))
        for name, process in named:
            if process.poll() is not None:
                log = (self._folder / f"{name}.log").read_text(errors="replace").strip()
                raise ClusterFailed(f"{name} ended with {process.returncode}: {log[-500:]}")

    def memory(self) -> tuple[int, int]:
        """Processes of all workers together, and their memory in bytes, what they share counted once."""
        family = procs.family([worker.pid for worker in self._workers])
        return len(family), sum(_proportional(pid) for pid in family)

    def processor_s(self) -> float:
        """Processor time of the broker, the workers and all below them so far, seconds."""
        roots = [worker.pid for worker in self._workers]
        if self._broker is not None:
            roots.append(self._broker.pid)
        return sum(procs.process_us(pid) for pid in procs.family(roots)) / 1e6

    def _start(self, name: str, what: list[str], node: int | None) -> subprocess.Popen[bytes]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("MINILAMBDA_")}
        leash = LEASH if shutil.which(LEASH[0]) else []
        command = [sys.executable, str(BIN / f"minilambda-{what[0]}"), *what[1:]]
        if node is not None and self._network is not None:
            command = self._network.command(node, command)
        with (self._folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*leash, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**env, "TMPDIR": str(self._folder)},
                start_new_session=True,
            )


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
