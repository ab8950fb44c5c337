"""What benchmarks share: samples, statistics, and the description of the machine that they ran on."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sample:
    """One measured run."""

    total_ms: float  # as the caller sees it
    phases_ms: dict[str, float]  # where it went; together they are the total


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def middle(samples: Sequence[Sample]) -> list[Sample]:
    """The fifth of the samples around the median, at least one: a typical run, without the outliers."""
    ordered = sorted(samples, key=lambda sample: sample.total_ms)
    left = (len(ordered) - max(1, len(ordered) // 5)) // 2
    return ordered[left : len(ordered) - left]


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """The figures of one series, ready for JSON.

    The phases are means over the runs around the median, so that they add up to about the median; medians of single
    phases would not.
    """
    totals = [sample.total_ms for sample in samples]
    typical = middle(samples)
    names = list(dict.fromkeys(name for sample in typical for name in sample.phases_ms))
    return {
        "count": len(totals),
        "median_ms": _round(statistics.median(totals)),
        "p99_ms": _round(quantile(totals, 0.99)),
        "min_ms": _round(min(totals)),
        "max_ms": _round(max(totals)),
        "phases_ms": {
            name: _round(statistics.fmean(sample.phases_ms.get(name, 0.0) for sample in typical)) for name in names
        },
        "samples_ms": [_round(total) for total in totals],
    }


def _round(ms: float) -> float:
    return round(ms, 4)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "wasmtime": importlib.metadata.version("wasmtime"),
        "pyzmq": importlib.metadata.version("pyzmq"),
        "libzmq": zmq.zmq_version(),
        "commit": _commit(),
        "load_average": round(os.getloadavg()[0], 2),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


def _commit() -> str:
    """The commit of the clone, with a + when files differ from it; "" where git can't tell."""
    try:
        described = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return described.stdout.strip()
