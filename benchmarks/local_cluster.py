"""A broker, its workers and wasmtime-py as real processes on this machine, started and stopped for a benchmark."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from minilambda import Client

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "bin"
ADDRESS = re.compile(r"\b127\.0\.0\.1:[1-9]\d*\b")
UP_S = 30.0  # a process must be up after so long, seconds
DOWN_S = 15.0  # a process must be gone so long after SIGTERM, seconds
QUIET_S = 0.1  # processes that have all slept for so long have nothing left to do, seconds
SETTLE_S = 60.0  # they must have come to rest after so long, seconds


class ClusterFailed(Exception):
    """A process did not start, stop or answer as it should."""


class LocalCluster:
    """One broker, and workers that come and go. Leaves no process behind."""

    def __init__(self, folder: Path, slots: int) -> None:
        self._folder = folder  # logs, artifacts, temporary files
        self._slots = slots  # of each worker
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # running, by name
        self._workers = 0  # started so far
        self.address = ""  # of the broker, HOST:PORT

    def __enter__(self) -> LocalCluster:
        try:
            self._start("broker", "broker", "--bind", "127.0.0.1:0", "--ephemeral")
            self.address = _wait(lambda: self._printed("broker"), "the broker says its address")[0]
        except BaseException:
            self._stop_all(complain=False)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failure or an interrupt, a process may well end badly: the first error is the one to tell.
        self._stop_all(complain=error is None)

    def start_worker(self, client: Client) -> str:
        """A new worker process. Returns its name when it has registered and its runners wait for work."""
        self._workers += 1
        name = f"worker-{self._workers}"
        place = ["--orchestrator", self.address, "--name", name, "--cache-dir", str(self._folder / "cache")]
        process = self._start(name, "worker", *place, "--slots", str(self._slots))

        def up() -> bool:
            self._check(name)
            idle = any(row.name == name and row.state == "idle" for row in client.workers())
            # The template and a runner for each slot: a worker registers before they are there.
            return idle and len(_family([process.pid])) >= 2 + self._slots

        _wait(up, f"{name} registers")
        self.settle()
        return name

    def stop_worker(self, name: str, client: Client) -> None:
        """Drain a worker and wait until the broker has forgotten it."""
        self._stop(name)
        _wait(lambda: all(row.name != name for row in client.workers()), f"the broker forgets {name}")

    def settle(self) -> None:
        """Wait until the broker, the workers and all below them sleep: nothing of the last sample is left to do."""
        asleep_since = time.monotonic()

        def quiet() -> bool:
            nonlocal asleep_since
            if not _asleep(_family([process.pid for process in self._processes.values()])):
                asleep_since = time.monotonic()
            return time.monotonic() - asleep_since >= QUIET_S

        _wait(quiet, "the processes come to rest", SETTLE_S)

    # --- inside ---

    def _start(self, name: str, which: str, *options: str) -> subprocess.Popen[bytes]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("MINILAMBDA_")}
        command = [sys.executable, str(BIN / f"minilambda-{which}"), *options]
        with (self._folder / f"{name}.log").open("wb") as log:
            # A session of its own: Ctrl-C is for the benchmark, which then ends its processes in order.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**env, "TMPDIR": str(self._folder)},
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def _check(self, name: str) -> None:
        code = self._processes[name].poll()
        if code is not None:
            raise ClusterFailed(f"{name} exited with {code}: {self._log(name)}")

    def _printed(self, name: str) -> re.Match[str] | None:
        self._check(name)
        return ADDRESS.search(self._log(name))

    def _log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace").strip()

    def _stop(self, name: str) -> None:
        process = self._processes.pop(name)
        if process.poll() is None:
            process.terminate()
        try:
            code = process.wait(DOWN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code != 0:
            raise ClusterFailed(f"{name} ended with {code}: {self._log(name)}")

    def _stop_all(self, complain: bool) -> None:
        problems = []
        for name in reversed(list(self._processes)):
            try:
                self._stop(name)
            except ClusterFailed as problem:
                problems.append(str(problem))
        if problems and complain:
            raise ClusterFailed("; ".join(problems))


class BaselineProcess:
    """wasmtime-py in a process of its own, ready for orders: see ``baseline.py``."""

    def __init__(self, output: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("baseline.py")), str(output)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._line()

    def __enter__(self) -> BaselineProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate()

    def order(self, do: str, guest: dict[str, Any]) -> Any:
        """Carry out one order and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "guest": guest}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ClusterFailed("The process with wasmtime-py ended; see its traceback above.")
        return line


def _wait(condition: Callable[[], Any], what: str, seconds: float = UP_S) -> Any:
    """Poll until ``condition()`` is true and return what it gave. Raises ``ClusterFailed`` when time is up."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise ClusterFailed(f"Not within {seconds:g} s: {what}.")
        threading.Event().wait(0.005)
    return found


def _family(roots: list[int]) -> list[int]:
    """The processes ``roots`` and every process below them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(entry)):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found, waiting = [], list(roots)
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def _asleep(pids: list[int]) -> bool:
    """Whether no thread of these processes runs, wants to run or waits for a disk."""
    for pid in pids:
        try:
            threads = list(Path(f"/proc/{pid}/task").iterdir())
        except OSError:
            continue
        if any((stat := _stat(thread)) and stat[0] in "RD" for thread in threads):
            return False
    return True


def _stat(entry: Path) -> list[str] | None:
    """The fields of a ``stat`` file of /proc from the state on; None when the process is gone."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
