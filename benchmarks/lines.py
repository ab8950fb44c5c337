"""A helper process that takes orders and gives answers, both one line of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import procs


class HelperFailed(Exception):
    """A helper process ended, was silent for too long or said what went wrong."""


class Lines:
    """A running helper, and whatever it started: all of it is gone after ``close``.

    It prints one line when it is ready, then answers each order. Its stderr goes to ``log``.
    """

    def __init__(
        self, command: Sequence[str], log: Path, seconds: float = 60.0, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        self._mark = f"BENCH_HELPER={os.getpid()}-{id(self)}-{time.monotonic_ns()}"
        key, _, value = self._mark.partition("=")
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {}), key: value},
                start_new_session=True,
            )
        try:
            self.ready: Any = self.answer(seconds)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def order(self, seconds: float = 120.0, **what: Any) -> Any:
        """Carry out one order and return the answer. Raises ``HelperFailed``."""
        self.begin(**what)
        return self.answer(seconds)

    def begin(self, **what: Any) -> None:
        """Give an order; ``answer`` waits for what comes of it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise HelperFailed(self._last_words("ended")) from None

    def answer(self, seconds: float = 120.0) -> Any:
        """Wait for the answer to the order that was given. Raises ``HelperFailed``."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                raise HelperFailed(self._last_words(f"said nothing for {seconds:g} s"))
        line = self._process.stdout.readline()
        if not line:
            raise HelperFailed(self._last_words("ended"))
        try:
            answer = json.loads(line)
        except ValueError:
            raise HelperFailed(f"said {line[:200]!r}") from None
        if isinstance(answer, dict) and "failed" in answer:
            raise HelperFailed(answer["failed"])
        return answer

    def pids(self) -> list[int]:
        """The helper and every process that it started, wherever they hang in the tree."""
        return list({*procs.family([self._process.pid]), *procs.marked(self._mark)})

    def close(self, patience: float = 15.0) -> None:
        """Let it end by itself, then kill what is left."""
        assert self._process.stdin is not None and self._process.stdout is not None
        for end in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                end.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        while left := procs.marked(self._mark):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.01)

    def _last_words(self, what: str) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"{what}: {lines[-1][:300]}" if lines else what


def serve(ready: Any, orders: Mapping[str, Any]) -> None:
    """The helper's side: say ``ready``, then answer orders from stdin until it ends. ``do`` names the function."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    print(json.dumps(ready), file=answers, flush=True)
    for line in sys.stdin:
        what = json.loads(line)
        answer = orders[what.pop("do")](**what)
        print(json.dumps(answer), file=answers, flush=True)
