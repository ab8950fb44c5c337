"""What Ctrl-C and SIGTERM do while there is a job to cancel."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def raised() -> Iterator[None]:
    """Within, Ctrl-C raises ``KeyboardInterrupt`` and SIGTERM ``SystemExit``; where Ctrl-C is ignored, it stays so."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, _terminated)
    if callable(before[signal.SIGINT]):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminated(*_: object) -> NoReturn:
    """SIGTERM: cancel the job as an interrupt does, and leave with the code that shells use for it."""
    raise SystemExit(128 + signal.SIGTERM)
