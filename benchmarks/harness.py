"""What benchmarks share: samples, statistics, answers, the document that they write, and the machine's description."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zmq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minilambda import __version__

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sample:
    """One measured run."""

    total_ms: float  # as the caller sees it
    phases_ms: dict[str, float]  # where it went; together they are the total


@dataclass(frozen=True)
class Answer:
    """One line of the page: a question, what was measured, and what was to be reached."""

    question: str
    figure: str  # for people, with its unit and what it is compared with
    ratio: float | None = None  # of the two, where two are compared
    target: str = ""  # for people; "" where nothing was to be reached
    met: bool | None = None  # None: no target, or not measured


@dataclass(frozen=True)
class Table:
    """A table for people."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""  # what a reader must know to read it
    left: int = 1  # so many columns from the left are text, the others figures


def at_most(question: str, figure: str, ratio: float, limit: float) -> Answer:
    """The answer where a ratio is to be small."""
    return Answer(question, figure, round(ratio, 3), f"≤ {limit:.3g} ×", ratio <= limit)


def at_least(question: str, figure: str, ratio: float, limit: float) -> Answer:
    """The answer where a ratio is to be large."""
    return Answer(question, figure, round(ratio, 3), f"≥ {limit:.3g} ×", ratio >= limit)


def document(
    benchmark: str,
    quick: bool,
    begun: float,
    described: dict[str, Any],
    *,
    answers: Sequence[Answer],
    tables: Sequence[Table],
    not_measured: Sequence[str],
    results: Any,
    **more: Any,
) -> dict[str, Any]:
    """What a benchmark shows and writes. ``begun`` is by ``time.monotonic``, ``described`` was ``machine()`` then."""
    return {
        "benchmark": benchmark,
        "minilambda": __version__,
        "quick": quick,
        "seconds": round(time.monotonic() - begun, 1),
        "machine": {**described, "load_average_after": machine()["load_average"]},
        "answers": [asdict(answer) for answer in answers],
        "tables": [asdict(table) for table in tables],
        "not_measured": list(not_measured),
        **more,
        "results": results,
    }


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
