"""A whole cluster for the tests of your own project: a real broker and real workers, up in less than a second.

    from minilambda.testing import cluster

    with cluster(workers=2) as running:
        assert running.client.run("guest.wasm").ok

With pytest there is nothing to import: the fixture ``minilambda_cluster`` is such a cluster, one for the whole run.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from minilambda.client.sync import Client

__all__ = ["Cluster", "cluster"]

_ROOT = str(Path(__file__).resolve().parent.parent.parent)  # where this package was imported from
_KEEPER = f"import sys; sys.path[0] = {_ROOT!r}; from minilambda.testing.keeper import main; main()"
_PAUSE = 0.002  # between two looks at whether it is up, seconds
_STOP = 15.0  # the processes must be gone so long after they were told to end, seconds
_LONGEST_PATH = 80  # of the folder, so that the socket's path can be used, bytes


class Cluster:
    """A running broker and its workers. ``cluster`` makes one."""

    def __init__(self, folder: Path, keeper: subprocess.Popen[bytes]) -> None:
        self.address: str = ""  # where its clients connect
        self._folder = folder
        self._keeper = keeper
        self._says = cast(IO[bytes], keeper.stdout)  # the address; its end: a server has ended
        self._clients: list[Client] = []

    @property
    def client(self) -> Client:
        """A client of this cluster, for the thread that made it."""
        return self._clients[0] if self._clients else self.connect()

    def connect(self, **options: Any) -> Client:
        """Another client; ``options`` are those of ``Client``. It is closed with the cluster."""
        from minilambda.client.sync import Client  # noqa: PLC0415 - a run of pytest without a cluster does without it

        made = Client(self.address, **options)
        self._clients.append(made)
        return made

    def log(self) -> str:
        """What the broker and the workers have said so far."""
        texts = [path.read_text(errors="replace") for path in sorted(self._folder.glob("*.log"))]
        return "".join(texts)

    def _start(self, workers: int, until: float) -> None:
        """Wait until all is up. Raises ``RuntimeError`` where it does not come up."""
        self.address = _line(self._says, until)
        if not self.address:
            raise RuntimeError(f"The cluster did not start: {self.log().strip()}")
        socket = Path(self.address.removeprefix("ipc://"))
        while self.address.startswith("ipc://") and not socket.exists():
            self._look(until)
        while len(self.client.workers()) < workers:
            self._look(until)

    def _look(self, until: float) -> None:
        ended, _, _ = select.select([self._says], [], [], _PAUSE)
        if ended or time.monotonic() > until:
            raise RuntimeError(f"The cluster did not start: {self.log().strip()}")

    def _stop(self) -> None:
        for each in self._clients:
            with contextlib.suppress(RuntimeError):  # one that belongs to a thread that still uses it
                each.close()
        with contextlib.suppress(BrokenPipeError), cast(IO[bytes], self._keeper.stdin) as words:
            words.write(b"end\n")  # a process that was forked meanwhile may keep the pipe open
        try:
            self._keeper.wait(_STOP)
        except subprocess.TimeoutExpired:
            self._keeper.kill()  # the others die with it
            self._keeper.wait()
        self._says.close()


@contextlib.contextmanager
def cluster(
    workers: int = 1,
    slots: int = 1,
    *,
    tcp: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    broker: Sequence[str] = (),
    worker: Sequence[str] = (),
    start_timeout: float = 20.0,
) -> Iterator[Cluster]:
    """A broker and so many workers, each with so many slots, for as long as the ``with`` lasts.

    They listen on a socket in a directory that only this user can read; with ``tcp`` on a free port of the loopback
    interface. ``cache_dir`` keeps compiled modules from one cluster to the next. ``broker`` and ``worker`` are further
    options of the two commands. Raises ``RuntimeError`` with what they said if they are not up after ``start_timeout``
    seconds.

    Nothing is left behind: no process and no file, also where this process is killed.
    """
    folder = _new_folder()
    plan = {
        "folder": str(folder),
        "tcp": tcp,
        "workers": workers,
        "broker": ["--ephemeral", *broker] if "--state-dir" not in broker else list(broker),
        "worker": ["--slots", str(slots), "--cache-dir", os.fspath(cache_dir or folder / "cache"), *worker],
    }
    try:
        keeper = subprocess.Popen(
            [sys.executable, "-c", _KEEPER, json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the tests; the keeper sees its input end
        )
        made = Cluster(folder, keeper)
        try:
            made._start(workers, time.monotonic() + start_timeout)
            yield made
        finally:
            made._stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="minilambda-")
    if len(os.fsencode(folder)) > _LONGEST_PATH:
        os.rmdir(folder)
        folder = tempfile.mkdtemp(prefix="minilambda-", dir="/tmp")
    return Path(folder)


def _line(stream: IO[bytes], until: float) -> str:
    """The first line of a stream; "" where it ends, or none comes in time."""
    ready, _, _ = select.select([stream], [], [], max(0.0, until - time.monotonic()))
    return stream.readline().decode().strip() if ready else ""
