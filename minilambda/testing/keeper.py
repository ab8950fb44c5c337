"""The process between a test and its cluster: it starts the servers, and ends them when the test is gone.

However the test ends, its standard input or another parent tells it so; where this process is killed itself, the kernel
kills the servers. It writes one line, the broker's address, and closes its output when a server has ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # found before any fork
_ROOT = str(Path(__file__).resolve().parent.parent.parent)  # where this package was imported from
_START = "import sys; sys.path[0] = {root!r}; from minilambda.cli.{command} import main; sys.exit(main())"
_PAUSE = 0.005  # between two looks for what the broker says, seconds
_SOON = 0.1  # how often the servers are looked at, seconds
_GRACE = 10.0  # a server has so long to end, seconds


def main() -> None:
    """Run the cluster that the first argument describes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # the test ends this process; SIG_IGN would pass on to the servers
    plan = json.loads(sys.argv[1])
    keeper = Keeper(Path(plan["folder"]))
    try:
        keeper.start(plan)
        keeper.watch()
    finally:
        keeper.stop()
        shutil.rmtree(plan["folder"], ignore_errors=True)


class Keeper:
    """The servers of one cluster."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._test = os.getppid()  # the process that the cluster is for
        self._servers: list[subprocess.Popen[bytes]] = []  # the broker first
        (folder / "tmp").mkdir()
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("MINILAMBDA_")}
        self._env["TMPDIR"] = str(folder / "tmp")

    def start(self, plan: Mapping[str, Any]) -> None:
        """Start all; by a socket in the folder they find each other however late one is."""
        address = "127.0.0.1:0" if plan["tcp"] else f"ipc://{self._folder}/broker"
        self._run("broker", ["--bind", address, *plan["broker"]], "broker")
        if plan["tcp"]:
            address = self._address()
        if not address:
            return
        for number in range(1, plan["workers"] + 1):
            name = f"worker-{number}"
            self._run("worker", ["--orchestrator", address, "--name", name, "--grace", "0", *plan["worker"]], name)
        print(address, flush=True)

    def watch(self) -> None:
        """Until the test is gone. Where a server is, the end of the output says so."""
        whole = True
        while True:
            ready, _, _ = select.select([0], [], [], _SOON)
            if ready or os.getppid() != self._test:
                return
            if whole and any(server.poll() is not None for server in self._servers):
                whole = False
                os.close(1)

    def stop(self) -> None:
        """End all of them, the workers first."""
        for server in reversed(self._servers):
            if server.poll() is None:
                server.terminate()
        until = time.monotonic() + _GRACE
        for server in reversed(self._servers):
            try:
                server.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()

    def _run(self, command: str, args: Sequence[str], name: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-c", _START.format(root=_ROOT, command=command), *args],
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=partial(_die_with, os.getpid()),  # noqa: PLW1509 - one system call, looked up before
            )
        self._servers.append(server)

    def _address(self) -> str:
        """Where the broker listens, as it says itself."""
        log = self._folder / "broker.log"
        while (found := re.search(r"listening on (\S+)\n", log.read_text())) is None:
            ready, _, _ = select.select([0], [], [], _PAUSE)
            if ready or self._servers[0].poll() is not None:
                return ""
        return found[1]


def _die_with(parent: int) -> None:
    """In the server, before its program starts: the kernel kills it when its parent dies."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
