"""Measure how long a client waits for a run: module never seen, artifact on disk, warm."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import cold_compilers
import cold_tables
import command
import guests
import harness
import report
from cold_runs import Plan, Tier, medians
from cold_tiers import Bench
from guests import Guest
from local_cluster import LocalCluster

from minilambda import Client

USAGE = """Measure how long a client waits for a run of WebAssembly, cold and warm, beside wasmtime-py in one process.

Usage:
  cold_start.py [--quick] [--modules=<names>] [--json=<path>] [--plot=<path>]
  cold_start.py --from=<json> [--plot=<path>]
  cold_start.py (-h | --help)

Options:
  --quick            Few samples, about two minutes. Without it: about fifteen, and a p99 that means something.
  --modules=<names>  Some of hello, hello-c, component, numbers, py-component, cpython, with commas between.
                     Default: all; with --quick all but component and py-component.
  --json=<path>      Write machine, figures and all samples to this file.
  --plot=<path>      Draw a picture: PNG, SVG or PDF by the name's ending. Needs matplotlib (the extra `bench`).
  --from=<json>      Measure nothing: show the figures that an earlier run wrote with --json.
  -h --help          Show this.

It starts a broker and workers on this machine and runs each module in these tiers:
  never seen   the broker has not seen its bytes: hash, upload, fetch, compile, load, run
  on disk      the compiled artifact is in the cache, the worker is a new process that has come to rest: load, run
  rested       the same worker runs it again after a rest, as on disk: what a fresh worker costs is the difference
  warm         the same worker runs it again and again: run
  under way    as on disk, but a stream of jobs is under way when the new worker takes the next of them: load, run
  … then warm  the same worker goes on with the stream: run
What is compared is measured in the same round. Times are those of a client that is already connected. wasmtime-py does
the same work in turn: compile and run; load an artifact and run in a new process; run a loaded module in a loop.
After that, the never-seen tier by each of the worker's compilers. Most modules are there after `make guests`.

Examples:
  cold_start.py --quick
  cold_start.py --json cold.json --plot cold.png
  cold_start.py --modules hello --quick
"""

SLOTS = 2


def measure(chosen: list[Guest], quick: bool) -> dict[str, Any]:
    """Run the benchmark; the document that is printed, drawn and written."""
    begun, described = time.monotonic(), harness.machine()
    present = [guest for guest in chosen if guest.present]
    absent = [guest.name for guest in chosen if not guest.present]
    results = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minilambda-bench-")))
        memory = folder
        if Path("/dev/shm").is_dir():
            memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm", prefix="minilambda-bench-")))
        status = stack.enter_context(command.console.status("starting"))
        with LocalCluster(folder, SLOTS) as cluster, Client(f"tcp://{cluster.address}") as client:
            bench = Bench(cluster, client, folder, memory, lambda guest: Plan.of(guest, quick))
            for guest in present:
                tiers = bench.measure(guest, status.update)
                results += [_result(guest, name, tier) for name, tier in tiers.items()]
        compilers = cold_compilers.measure(present, folder, SLOTS, quick, status.update)
    return harness.document(
        "cold_start",
        quick,
        begun,
        described,
        answers=cold_tables.answers(results, absent),
        tables=cold_tables.tables(results, absent, compilers),
        not_measured=cold_tables.NOT_MEASURED,
        results=results,
        compilers=compilers,
        absent=absent,
    )


def _result(guest: Guest, name: str, tier: Tier) -> dict[str, Any]:
    mine, other = (harness.summary([*chain.from_iterable(side)]) for side in (tier.ours, tier.theirs))
    mine["rounds_ms"], other["rounds_ms"] = medians(tier.ours), medians(tier.theirs)
    if name == "never seen":
        other["compile_rounds_ms"] = medians(tier.theirs, "compile")
    return {
        "module": guest.name,
        "title": guest.title,
        "wasm_bytes": guest.size(),
        "large": guest.large,
        "tier": name,
        "compilers": dict(tier.compilers),
        "minilambda": mine,
        "wasmtime_py": other,
        "ratio": round(mine["median_ms"] / other["median_ms"], 3),
    }


def _read(path: Path) -> dict[str, Any]:
    document = command.read(path)
    if document["benchmark"] != "cold_start":
        raise ValueError(f"{path} was not written by cold_start.py --json.")
    return document


def _check_plot(plot: str | None) -> None:
    """Find out before minutes are spent whether there can be a picture. Raises ``ValueError``."""
    if plot is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install 'minilambda[bench]', or run it by `make bench`.")
    if Path(plot).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot: {plot} must end in .png, .svg or .pdf.")
    command.writable(plot)


def main(args: dict[str, Any]) -> dict[str, Any]:
    _check_plot(args["--plot"])
    if args["--from"]:
        document = _read(Path(args["--from"]))
    else:
        document = measure(guests.chosen(args["--modules"], args["--quick"]), args["--quick"])
    if args["--plot"]:
        import picture  # noqa: PLC0415 - matplotlib is needed for this only

        picture.draw(document, Path(args["--plot"]))
    return document


if __name__ == "__main__":
    sys.exit(command.run(USAGE, main, report.show))
