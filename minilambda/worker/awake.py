"""Processors that stay awake while jobs come: to wake one takes longer than most steps of a short job.

While somebody holds Linux's device for the latency of processors at 0, idle ones poll and do not sleep. That costs
power, and a virtual machine's host its idle time; so it is held for a moment after each job only, and on request.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

from minilambda.errors import MinilambdaError

DEVICE = Path("/dev/cpu_dma_latency")

STAY = 0.02
"""How long processors stay awake after a job was started, seconds."""

_NONE, _ANY = struct.pack("=i", 0), struct.pack("=i", 2_000_000_000)  # the latency that is allowed, microseconds


class Awake:
    """Keeps the processors of this machine awake at times. Raises ``MinilambdaError`` where it may not."""

    def __init__(self, device: Path = DEVICE) -> None:
        try:
            self._fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MinilambdaError(f"--low-latency: {device} can't be opened: {error.strerror}.") from None
        self._until = 0.0  # when they may sleep again, seconds
        self._held = False  # they stay awake now

    def stay(self) -> None:
        """From now on for a moment they do not sleep."""
        self._until = time.monotonic() + STAY
        if not self._held:
            os.write(self._fd, _NONE)
            self._held = True

    def look(self, now: float) -> float:
        """Let them sleep if it is time for that; returns after how many seconds to look again."""
        if self._held and now >= self._until:
            os.write(self._fd, _ANY)
            self._held = False
        return self._until - now if self._held else 3600.0
