"""What Ctrl-C, SIGTERM and SIGHUP do while there is a job to cancel."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def raised() -> Iterator[None]:
    """Within, Ctrl-C raises ``KeyboardInterrupt``, SIGTERM and SIGHUP ``SystemExit``.

    Where Ctrl-C or, as by ``nohup``, SIGHUP is ignored, it stays so.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGTERM, _terminated)
    if before[signal.SIGHUP] is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _terminated)
    if callable(before[signal.SIGINT]):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminated(number: int, _: object) -> NoReturn:
    """Cancel the job as an interrupt does, and leave with the code that shells use for the signal."""
    raise SystemExit(128 + number)
