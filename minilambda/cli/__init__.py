"""The commands, one file each.

Where the process is one of them, Ctrl-C ends it quietly from here on, while the rest is imported; a command that
has something to put in order takes over when it begins.
"""

from __future__ import annotations

import os
import signal
import sys

_COMMANDS = frozenset({"minilambda", "minilambda-broker", "minilambda-client", "minilambda-worker"})


def _leave(*_: object) -> None:
    os._exit(128 + signal.SIGINT)


_PROGRAM = os.path.basename((sys.argv or [""])[0])
if _PROGRAM in _COMMANDS and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and is not ignored
    signal.signal(signal.SIGINT, _leave)
