"""The agent's handle of the template process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from minilambda.errors import MinilambdaError
from minilambda.worker.channel import Channel

_dead: list[subprocess.Popen[bytes]] = []  # killed, and not yet reaped


class TemplateHandle:
    """One template process, and the channel to it."""

    def __init__(self, compilers: Sequence[str], delay: float, readable: str = "", required: bool = False) -> None:
        """Start it; it serves ``delay`` seconds after that. Raises OSError when it can't be executed.

        Its children may read the files of the directory ``readable`` that are handed to them. With ``required`` those
        around which a wall is missing don't serve.
        """
        reap()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        self.channel = Channel(near, max_fds=4)  # a process, and what there is of its home
        self._started = time.monotonic()  # seconds
        command = [sys.executable, "-m", "minilambda.worker.template", str(os.getpid()), str(far.fileno())]
        try:
            self._process = subprocess.Popen(
                [*command, ",".join(compilers), str(delay), readable, "required" if required else ""],
                cwd="/",  # ``-m`` puts it first on the path: nobody but root writes there
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(far.fileno(),),
                start_new_session=True,
            )
        except OSError:
            self.channel.close()
            raise
        finally:
            far.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def age(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self._started

    def stop(self, patience: float) -> None:
        """Hang up, which ends it and its children; after ``patience`` seconds, SIGKILL."""
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
            return
        self._process.kill()
        _dead.append(self._process)
        reap()


def refuse_other_platforms() -> None:
    """Raises MinilambdaError where no process of a worker can be started."""
    missing = [name for name in ("memfd_create", "pidfd_open", "eventfd") if not hasattr(os, name)]
    if sys.platform != "linux" or missing:
        what = ", ".join(missing) or "Linux itself"
        raise MinilambdaError(f"A worker runs on Linux with Python 3.10 or later only; missing here: {what}.")


def reap() -> None:
    """Collect the templates that were killed and are gone by now."""
    _dead[:] = [process for process in _dead if process.poll() is None]


def _environment() -> dict[str, str]:
    """What the template's Python needs to find the same code as ours, and nothing that might be a secret."""
    path = [os.path.abspath(entry) for entry in sys.path]
    return {"PYTHONPATH": os.pathsep.join(path), "PYTHONUTF8": "1"}
