"""The future of one job, whose callbacks may fail as they like."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

_T = TypeVar("_T")
_log = logging.getLogger("concurrent.futures")  # where the standard library tells of callbacks that fail


class Promise(Future[_T]):
    """A future whose callbacks can't end the thread that they are called in, where ``inside`` says that it is ours.

    The standard library logs what is an ``Exception``; the others, such as ``SystemExit``, are logged here as well.
    """

    def __init__(self, inside: Callable[[], bool]) -> None:
        super().__init__()
        self._inside = inside

    def add_done_callback(self, fn: Callable[[Future[_T]], object]) -> None:
        super().add_done_callback(partial(_call, self._inside, fn))


def _call(inside: Callable[[], bool], callback: Callable[[Future[_T]], object], future: Future[_T]) -> None:
    try:
        callback(future)
    except BaseException as error:
        if isinstance(error, Exception) or not inside():
            raise
        _log.exception("exception calling callback for %r", future)
