"""Processors that stay awake around a job: to wake one takes longer than most steps of a short job.

Linux heeds a bound on the time that an idle processor may take to wake up, as long as somebody holds its device open
with that bound written to it. It is one for the whole machine, and what is not slept costs power, and a virtual
machine's host its idle time. So it is held from a step of a job until a moment after the last one, and while nothing
but a guest runs, or nothing at all, processors sleep as ever.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from minilambda.errors import MinilambdaError

DEVICE = Path("/dev/cpu_dma_latency")
DRIVER = Path("/sys/devices/system/cpu/cpuidle/current_driver")

HOLD = 0.005
"""How long processors stay awake after a step of a job unless something else is asked for, seconds.

A millisecond would last from step to step, but a loop that waits for less than a tick of the kernel (4 ms, as a rule)
has a timer set for each wait, which costs a virtual machine a third of what it gains.
"""

GUEST, METAL, ANY = 0, 10, 2_000_000_000
"""Latencies that may be asked for, microseconds.

In a guest of a virtual machine the only idle state gives the processor back to the host, and to get it again takes
tens of microseconds: so there idle processors must poll. Elsewhere the lightest sleep costs 1 to 2 µs to leave and
saves most of the power, so only deeper ones are kept away. The last one is no bound at all.
"""

_NO_BOUND = struct.pack("=i", ANY)


class Awake:
    """Keeps the processors of this machine awake at times. It knows no clock: callers say what time it is, seconds."""

    @classmethod
    def wanted(cls, hold: float | None, device: Path = DEVICE, driver: Path = DRIVER) -> Awake | None:
        """What holds for ``hold`` seconds after a step; with None for ``HOLD``, where the system lets it.

        None for 0, and where the system does not let it but nobody asked. Raises ``MinilambdaError`` where somebody
        did.
        """
        if hold == 0.0:
            return None
        try:
            return cls(HOLD if hold is None else hold, device, driver)
        except MinilambdaError:
            if hold is not None:
                raise
            return None

    def __init__(self, hold: float, device: Path = DEVICE, driver: Path = DRIVER) -> None:
        """Raises ``MinilambdaError`` where the device can't be opened, or the kernel would not heed it."""
        self._bound = struct.pack("=i", _latency(driver))
        try:
            self._fd = os.open(device, os.O_WRONLY | os.O_CLOEXEC)  # what is run for strangers must not have it
        except OSError as error:
            raise MinilambdaError(f"--awake: {device} can't be opened: {error.strerror}.") from None
        self._hold = hold  # for so long after a step, seconds
        self._until = 0.0  # when they may sleep again, seconds
        self._held = False  # they stay awake now

    def step(self, now: float) -> None:
        """A job has made a step: from now on for a moment no processor sleeps."""
        self._until = now + self._hold
        if not self._held:
            os.write(self._fd, self._bound)
            self._held = True

    def look(self, now: float, longest: float) -> float:
        """Let them sleep if it is time for that. Returns when to look again, in seconds, at most ``longest``."""
        if not self._held:
            return longest
        left = self._until - now
        if left > 0.0:
            return left if left < longest else longest
        os.write(self._fd, _NO_BOUND)
        self._held = False
        return longest

    def close(self) -> None:
        """They may sleep, for good. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)  # the kernel forgets the bound then
            self._fd, self._held = -1, False


def _latency(driver: Path) -> int:
    """What to ask for on this machine, microseconds. Raises ``MinilambdaError`` where nothing would heed it."""
    try:
        name = driver.read_text().strip()
    except OSError:
        name = "none"
    if name == "none":  # then an idle processor halts whatever was asked for
        raise MinilambdaError("--awake: this kernel has no driver for idle processors that could keep them awake.")
    return GUEST if name == "haltpoll" else METAL
