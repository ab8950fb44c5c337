"""What a terminal shows while something takes longer than a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minilambda.errors import MinilambdaError

if TYPE_CHECKING:
    from minilambda.client.job import Job

DELAY = 1.0
"""Nothing is shown before, seconds."""


@contextmanager
def waiting(endpoint: str, job_id: str, shown: bool) -> Iterator[Callable[[], None]]:
    """A line on stderr with the job's state, gone when the job has ended, or before, by what this gives."""
    if not shown:
        yield lambda: None
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(endpoint, job_id, over), daemon=True)
    watcher.start()

    def stop() -> None:
        over.set()
        watcher.join(2.0)

    try:
        yield stop
    finally:
        stop()


def _watch(endpoint: str, job_id: str, over: threading.Event) -> None:
    if over.wait(DELAY):
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import, and seldom needed

    from minilambda.client.sync import Client  # noqa: PLC0415

    began = time.monotonic() - DELAY
    with Console(stderr=True).status("waiting") as line, Client(endpoint) as client:
        while not over.is_set():
            line.update(f"{_state(client.job(job_id))}, {time.monotonic() - began:.0f} s")
            over.wait(0.5)


def _state(job: Job) -> str:
    try:
        found = job.status()
    except MinilambdaError as error:
        return error.code.replace("_", " ")
    return f"{found.state} on {found.worker}" if found.worker else found.state


@contextmanager
def uploading(size: int) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr for a module of ``size`` bytes, shown when it takes longer than a second."""
    began = time.monotonic()
    bars: list[_Bar] = []

    def advance(sent: int, _: int) -> None:
        if not bars and time.monotonic() - began >= DELAY:
            bars.append(_Bar(size))
        for bar in bars:
            bar.show(sent)

    try:
        yield advance
    finally:
        for bar in bars:
            bar.stop()


class _Bar:
    def __init__(self, size: int) -> None:
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn  # noqa: PLC0415

        columns = ("sending the module", BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=size)
        self._progress.start()

    def show(self, sent: int) -> None:
        self._progress.update(self._task, completed=sent)

    def stop(self) -> None:
        self._progress.stop()
