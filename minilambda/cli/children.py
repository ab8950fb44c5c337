"""The processes under ``minilambda up``: started together, none left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None  # found before any fork
_ROOT = str(Path(__file__).resolve().parent.parent.parent)  # where this package was imported from
_START = "import sys; sys.path[0] = {root!r}; from minilambda.cli.{command} import main; sys.exit(main())"

_BROKERS = ("MINILAMBDA_METRICS",)  # one port can't be for all
_OWN = ("MINILAMBDA_KEY", "MINILAMBDA_SERVER_KEY", "MINILAMBDA_KEYS")  # whoever has set them meant another broker


class Child:
    """One command of minilambda as a process of its own; what it prints is read line by line."""

    def __init__(self, name: str, command: str, args: Sequence[str]) -> None:
        self.name = name
        self.open = True  # it may still print something
        self._rest = b""  # the last line, as far as it is there
        without = _OWN if command == "broker" else (*_OWN, *_BROKERS)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START.format(root=_ROOT, command=command), *args],
            env={name: value for name, value in os.environ.items() if name not in without},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the parent, which stops the children in order
            preexec_fn=partial(_die_with, os.getpid()),  # noqa: PLW1509 - one system call, looked up before
        )
        self._output = self.process.stdout
        os.set_blocking(self.fileno(), False)

    def fileno(self) -> int:
        return -1 if self._output is None else self._output.fileno()

    def lines(self) -> list[str]:
        """What it has printed since the last call."""
        try:
            while data := os.read(self.fileno(), 65536):
                self._rest = (self._rest + data)[-65536:]
            self.open = False
        except BlockingIOError:
            pass
        *lines, self._rest = self._rest.split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def close(self) -> None:
        if self._output is not None:
            self._output.close()


class Children:
    """All of them, in the order in which they were started."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._selector = selectors.DefaultSelector()
        self.all: list[Child] = []

    def start(self, name: str, command: str, args: Sequence[str]) -> Child:
        child = Child(name, command, args)
        self.all.append(child)
        self._selector.register(child, selectors.EVENT_READ, child)
        return child

    def listen(self, seconds: float) -> list[str]:
        """Wait at most so long for the children to print something, and pass it on; also returned."""
        said: list[str] = []
        for key, _ in self._selector.select(seconds):
            said += self._take(key.data)
        return said

    def reap(self) -> list[Child]:
        """Those that have ended since the last call, no longer among them."""
        ended = [child for child in self.all if child.process.poll() is not None]
        for child in ended:
            self._take(child)
            self._forget(child)
        return ended

    def stop(self, children: Sequence[Child], seconds: float, hurry: Callable[[], bool]) -> None:
        """SIGTERM, then SIGKILL for those that live on after so long, or when ``hurry`` says so."""
        for child in children:
            child.process.terminate()
        until = time.monotonic() + seconds
        while any(child.process.poll() is None for child in children):
            if time.monotonic() > until or hurry():
                for child in children:
                    child.process.kill()
                until = float("inf")
            self.listen(0.05)
        self.reap()

    def kill(self) -> None:
        """End all that are left, at once."""
        for child in list(self.all):
            child.process.kill()
            child.process.wait()
            self._forget(child)

    def _take(self, child: Child) -> list[str]:
        lines = child.lines()
        for line in lines:
            self._say(line)
        if not child.open:
            self._unwatch(child)
        return lines

    def _unwatch(self, child: Child) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(child)

    def _forget(self, child: Child) -> None:
        self._unwatch(child)
        child.close()
        self.all.remove(child)


def _die_with(parent: int) -> None:
    """In the child, before its program starts: the kernel kills it when its parent dies."""
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
