"""A broker and its workers as real processes, started from `bin/` as a user would, and stopped without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minilambda import Client

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / "bin"
ADDRESS = re.compile(r"\b127\.0\.0\.1:([1-9]\d*)\b")
START_S = 20.0  # a process must be up after so long, seconds
STOP_S = 20.0  # a process must be gone so long after SIGTERM, seconds


def wait_for(condition: Callable[[], Any], what: str, seconds: float = START_S) -> Any:
    """Poll until ``condition()`` is true and return what it gave; fail naming ``what`` when time is up."""
    end = time.monotonic() + seconds
    pause = 0.001
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        threading.Event().wait(pause)
        pause = min(pause * 2, 0.05)
    return found


@dataclass(frozen=True)
class Ended:
    """How one call of a command ended."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The one object that ``--json`` prints."""
        try:
            found = json.loads(self.stdout)
        except ValueError:
            raise AssertionError(f"not JSON: {self.stdout!r}, stderr {self.stderr!r}") from None
        assert isinstance(found, dict), found
        return found


class Service:
    """One long-running command of `bin/`; what it prints goes to a file, so that it never waits for a reader."""

    def __init__(self, name: str, command: list[str], env: dict[str, str], logs: Path) -> None:
        self.name = name
        self.log = logs / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=logs
            )

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_printed(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait until the service has printed ``pattern``."""

        def look() -> re.Match[str] | None:
            found = pattern.search(self.printed())
            if found is None and self.process.poll() is not None:
                raise AssertionError(f"{self.name} exited with {self.process.returncode}: {self.printed()}")
            return found

        match: re.Match[str] = wait_for(look, f"{self.name} prints {pattern.pattern!r}")
        return match

    def stop(self) -> None:
        """SIGTERM; assert that it ends well and that none of the processes under it lives on."""
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} had exited with {self.process.returncode}: {self.printed()}")
        family = descendants(self.process.pid)
        self.process.terminate()
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} ignored SIGTERM for {STOP_S:g} s: {self.printed()}") from None
        wait_for(lambda: not living(family), f"the processes of {self.name} are gone: {family}", STOP_S)
        assert code == 0, f"{self.name} exited with {code}: {self.printed()}"

    def kill(self) -> None:
        """SIGKILL, for cleaning up after a failure and for tests of crashes."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def pids(self, name: str) -> list[int]:
        """The processes under this one that call themselves ``name``: ml-template, ml-runner, ml-compiler."""
        return [pid for pid, _ in living(descendants(self.process.pid)) if _command_name(pid) == name]

    def descriptors(self) -> int:
        """How many files the process has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class Cluster:
    """One broker on a free port of the loopback interface, and workers that share a cache directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("logs", "tmp", "home", "cache"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("MINILAMBDA_", "XDG_"))}
        self.env.update(TMPDIR=str(folder / "tmp"), HOME=str(folder / "home"), PYTHONWARNINGS="default")
        self.services: list[Service] = []
        self.workers_started = 0
        self.address = ""

    def start_broker(self, *options: str) -> Service:
        broker = self._start("broker", "--bind", "127.0.0.1:0", *options)
        self.address = "127.0.0.1:" + broker.wait_printed(ADDRESS)[1]
        return broker

    def restart_broker(self, *options: str) -> Service:
        """Another broker at the address of the first, which has ended."""
        broker = self._start("broker", "--bind", self.address, *options, name=f"broker-{len(self.services)}")
        broker.wait_printed(ADDRESS)
        return broker

    def start_worker(self, *options: str) -> Service:
        self.workers_started += 1
        number = self.workers_started
        place = ["--orchestrator", self.address, "--name", f"worker-{number}"]
        if "--cache-dir" not in options:
            place += ["--cache-dir", str(self.folder / "cache")]
        return self._start("worker", *place, *options, name=f"worker-{number}")

    def client(self, *args: str | Path, stdin: bytes = b"", timeout: float = 50.0) -> Ended:
        """Call `bin/minilambda-client` and wait for its end, ``timeout`` seconds at most."""
        command = self.command("client", *map(str, args))
        env = {**self.env, "MINILAMBDA_SERVER": self.address}
        done = subprocess.run(command, input=stdin, capture_output=True, env=env, timeout=timeout, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    def run(self, wasm: Path, *args: str, options: tuple[str, ...] = (), stdin: bytes | None = None) -> Ended:
        """Run a guest by the command line. With stdin, ``--stdin -`` is given."""
        source = () if stdin is None else ("--stdin", "-")
        return self.client("--server", self.address, *options, *source, wasm, "--", *args, stdin=stdin or b"")

    def run_json(
        self, wasm: Path, *args: str, options: tuple[str, ...] = (), stdin: bytes | None = None
    ) -> dict[str, Any]:
        """The object that ``--json`` prints for a run."""
        return self.run(wasm, *args, options=("--json", *options), stdin=stdin).json

    def connect(self, **options: float) -> Client:
        """A Python client of this broker."""
        from minilambda import Client  # a test of the bare protocol does without it

        return Client(self.address, **options)

    def service(self, name: str) -> Service:
        """A broker or worker by its name."""
        return next(service for service in self.services if service.name == name)

    def wait_workers(self, count: int) -> None:
        """Wait until the broker knows so many workers, and all of them have their runners."""
        with self.connect() as client:
            wait_for(lambda: len(client.workers()) == count, f"{count} workers are there")
        for worker in self.services:
            if worker.name.startswith("worker"):
                wait_for(lambda worker=worker: worker.pids("ml-runner"), f"{worker.name} has runners")

    def lose(self, service: Service) -> None:
        """SIGKILL to a service; assert that none of the processes under it lives on."""
        family = descendants(service.process.pid)
        service.kill()
        self.services.remove(service)
        wait_for(lambda: not living(family), f"the processes of {service.name} are gone: {family}", STOP_S)

    def retire(self, service: Service) -> None:
        """SIGTERM to a service, which must end well."""
        self.services.remove(service)
        try:
            service.stop()
        finally:
            service.kill()

    def stop(self) -> None:
        """Stop the workers, then the broker; assert that each ended well and that nothing is left."""
        problems = []
        for service in reversed(self.services):
            try:
                service.stop()
            except AssertionError as problem:
                problems.append(str(problem))
        left = sorted(path.name for path in (self.folder / "tmp").iterdir())
        if left:
            problems.append(f"left in the temporary directory: {left}")
        assert not problems, "\n".join(problems)

    def kill(self) -> None:
        for service in self.services:
            service.kill()

    def command(self, which: str, *args: str) -> list[str]:
        return [sys.executable, str(BIN / f"minilambda-{which}"), *args]

    def _start(self, which: str, *args: str, name: str = "") -> Service:
        service = Service(name or which, self.command(which, *args), self.env, self.folder / "logs")
        self.services.append(service)
        return service


@contextlib.contextmanager
def running_cluster(
    folder: Path, broker: Sequence[str] = (), workers: Sequence[Sequence[str]] = (("--slots", "2"),)
) -> Iterator[Cluster]:
    """A broker and workers with these options, which must leave nothing behind."""
    cluster = Cluster(folder)
    try:
        cluster.start_broker(*broker)
        for options in workers:
            cluster.start_worker(*options)
        cluster.wait_workers(len(workers))
        yield cluster
        cluster.stop()
    finally:
        cluster.kill()


Family = frozenset[tuple[int, str]]  # process ids with their start times, which tell a reused id


def descendants(pid: int) -> Family:
    """Every process under ``pid``, however deep."""
    parents: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            parents.setdefault(int(stat[1]), []).append(int(entry.name))
            started[int(entry.name)] = stat[19]
    found: set[tuple[int, str]] = set()
    waiting = [pid]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            found.add((child, started[child]))
            waiting.append(child)
    return frozenset(found)


def living(family: Family) -> Family:
    """Those of a family that run; a zombie does not."""
    return frozenset(one for one in family if (stat := _stat(one[0])) and stat[19] == one[1] and stat[0] != "Z")


def _command_name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
