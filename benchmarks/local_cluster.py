"""A broker and its workers as real processes on this machine, started and stopped for a benchmark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import procs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minilambda import Client

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "bin"
ADDRESS = re.compile(r"\b127\.0\.0\.1:[1-9]\d*\b")
UP_S = 30.0  # a process must be up after so long, seconds
DOWN_S = 15.0  # a process must be gone so long after SIGTERM, seconds
QUIET_S = 0.1  # processes that have all slept for so long have nothing left to do, seconds
UPGRADE_S = 1.3  # a worker that idles for a second may compile again what it knows; so long shows that it does not
SETTLE_S = 60.0  # they must have come to rest after so long, seconds


class ClusterFailed(Exception):
    """A process did not start, stop or answer as it should."""


class LocalCluster:
    """One broker, and workers that come and go. Leaves no process behind."""

    def __init__(
        self,
        folder: Path,
        slots: int,
        *,
        durable: bool = False,
        broker_options: Sequence[str] = (),
        with_broker: bool = True,
    ) -> None:
        self._folder = folder  # logs, artifacts, temporary files, the broker's state
        self._slots = slots  # of each worker
        state = ("--state-dir", str(folder / "state")) if durable else ("--ephemeral",)
        self._broker_options = (*state, *broker_options)
        self._with_broker = with_broker
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # running, by name
        self._workers = 0  # started so far
        self.address = ""  # of the broker, HOST:PORT

    def __enter__(self) -> LocalCluster:
        if not self._with_broker:
            return self
        try:
            self._start("broker", "broker", "--bind", "127.0.0.1:0", *self._broker_options)
            self.address = wait(lambda: self._printed("broker"), "the broker says its address")[0]
        except BaseException:
            self._stop_all(complain=False)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After a failure or an interrupt, a process may well end badly: the first error is the one to tell.
        self._stop_all(complain=error is None)

    def start_worker(self, client: Client, *options: str) -> str:
        """A new worker process. Returns its name when it has registered and its runners wait for work."""
        name = self.spawn_worker(self.address, *options)
        self.await_worker(name, client)
        return name

    def await_worker(self, name: str, client: Client) -> None:
        """Wait until a new worker has registered, its runners wait for work, and all have come to rest."""

        def up() -> bool:
            return self.ready(name) and any(row.name == name and row.state == "idle" for row in client.workers())

        wait(up, f"{name} registers")
        self.settle()

    def spawn_worker(self, address: str, *options: str) -> str:
        """A new worker process for any broker. Returns its name at once."""
        self._workers += 1
        name = f"worker-{self._workers}"
        place = ["--orchestrator", address, "--name", name, "--cache-dir", str(self._folder / "cache")]
        self._start(name, "worker", *place, "--slots", str(self._slots), *options)
        return name

    def ready(self, name: str) -> bool:
        """Whether a worker has its template and a runner for each slot: it registers before they are there."""
        self._check(name)
        return len(procs.family([self.pid(name)])) >= 2 + self._slots

    def stop_worker(self, name: str, client: Client) -> None:
        """Drain a worker and wait until the broker has forgotten it."""
        self._stop(name)
        wait(lambda: all(row.name != name for row in client.workers()), f"the broker forgets {name}")

    def pid(self, name: str) -> int:
        """The process of ``broker`` or of a worker."""
        return self._processes[name].pid

    def settle(self, quiet: float = QUIET_S) -> None:
        """Wait until the broker, the workers and all below them sleep: nothing of the last sample is left to do.

        They must have slept for ``quiet`` seconds; ``UPGRADE_S`` waits for compilations in the background too.
        """
        asleep_since = time.monotonic()

        def at_rest() -> bool:
            nonlocal asleep_since
            if not procs.asleep(procs.family([process.pid for process in self._processes.values()])):
                asleep_since = time.monotonic()
            return time.monotonic() - asleep_since >= quiet

        wait(at_rest, "the processes come to rest", SETTLE_S)

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


def worker_takes(option: str) -> bool:
    """Whether this version's worker knows a command-line option."""
    text = subprocess.run(
        [sys.executable, str(BIN / "minilambda-worker"), "--help"], capture_output=True, text=True, check=True
    )
    return option in text.stdout


def wait(condition: Callable[[], Any], what: str, seconds: float = UP_S) -> Any:
    """Poll until ``condition()`` is true and return what it gave. Raises ``ClusterFailed`` when time is up."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise ClusterFailed(f"Not within {seconds:g} s: {what}.")
        threading.Event().wait(0.005)
    return found
