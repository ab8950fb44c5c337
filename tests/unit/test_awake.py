"""Keeping processors awake: what is written to the device, and when."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from minilambda.errors import MinilambdaError
from minilambda.worker.awake import STAY, Awake


def written(device: Path) -> list[int]:
    """The latencies that were asked for, microseconds."""
    return [number for (number,) in struct.iter_unpack("=i", device.read_bytes())]


def test_processors_stay_awake_from_a_job_until_a_moment_after_the_last(tmp_path: Path) -> None:
    # given
    device = tmp_path / "latency"
    device.touch()
    awake = Awake(device)
    # when
    awake.stay()
    awake.stay()
    # then
    assert written(device) == [0]
    assert 0 < awake.look(time.monotonic()) <= STAY
    # when
    later = time.monotonic() + STAY + 1
    # then
    assert awake.look(later) > STAY and written(device)[1:] == [2_000_000_000]
    awake.look(later)
    assert len(written(device)) == 2


def test_a_system_that_does_not_let_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(MinilambdaError, match=r"--low-latency: .*/none can't be opened: No such file"):
        Awake(tmp_path / "none")
