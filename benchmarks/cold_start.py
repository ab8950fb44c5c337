"""Measure how long a client waits for a run: module never seen, artifact on disk, warm."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from docopt import docopt
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import guests
import harness
import report
from guests import Guest
from harness import Sample
from local_cluster import BaselineProcess, ClusterFailed, LocalCluster

from minilambda import Client, MinilambdaError, RunResult, __version__

USAGE = """Measure how long a client waits for a run of WebAssembly, cold and warm, beside wasmtime-py in one process.

Usage:
  cold_start.py [--quick] [--modules=<names>] [--json=<path>] [--plot=<path>]
  cold_start.py --from=<json> [--plot=<path>]
  cold_start.py (-h | --help)

Options:
  --quick            Few samples, under a minute. Without it: about five minutes, and a p99 that means something.
  --modules=<names>  Some of hello, component, py-component, cpython, with commas between.
                     Default: all, but for --quick without py-component, which alone compiles for half a minute.
  --json=<path>      Write machine, figures and all samples to this file.
  --plot=<path>      Draw a picture: PNG, SVG or PDF by the name's ending. Needs matplotlib (the extra `bench`).
  --from=<json>      Measure nothing: show the figures that an earlier run wrote with --json.
  -h --help          Show this.

It starts a broker and workers on this machine and runs each module in three tiers:
  never seen   the broker has not seen its bytes: hash, upload, fetch, compile, load, run
  on disk      the compiled artifact is in the cache, the worker is a new process: load, run
  warm         the same worker runs it again and again: run
Times are those of a client that is already connected. wasmtime-py does the same work in turn, in the same minutes:
compile and run; load an artifact and run in a new process; run a loaded module in a loop.
The large modules are there after `make guests`.

Examples:
  cold_start.py --quick
  cold_start.py --json cold.json --plot cold.png
  cold_start.py --modules hello --quick
"""

SLOTS = 2
EXPECTED_TIER = {"never seen": "compiled", "on disk": "disk", "warm": "warm"}
console = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Plan:
    """How many samples to take."""

    never_seen: int
    on_disk: int
    warm: int
    seconds: float  # a tier of a module takes no further sample after so long

    @classmethod
    def of(cls, guest: Guest, quick: bool) -> Plan:
        if quick:
            return cls(5, 3, 50, 3.0) if guest.large else cls(20, 3, 500, 3.0)
        return cls(10, 10, 200, 60.0) if guest.large else cls(100, 20, 2000, 60.0)


Pair = tuple[list[Sample], list[Sample]]
"""Samples of minilambda and of wasmtime-py."""


class Bench:
    """The three tiers of one guest, minilambda and wasmtime-py in turn."""

    def __init__(self, cluster: LocalCluster, client: Client, folder: Path, memory: Path, quick: bool) -> None:
        self._cluster = cluster
        self._client = client
        self._folder = folder
        self._output = memory / "baseline.out"  # where wasmtime-py writes a guest's output
        self._quick = quick
        self._worker = cluster.start_worker(client)

    def measure(self, guest: Guest, say: Callable[[str], None]) -> dict[str, Pair]:
        """The samples of each tier. ``say`` is told what is being done."""
        plan = Plan.of(guest, self._quick)
        # The copy that the last sample of the first tier ran is what the other tiers find compiled.
        path, artifact = self._folder / f"{guest.name}.wasm", self._folder / f"{guest.name}.cwasm"
        order = {**asdict(guest), "path": str(path), "artifact": str(artifact)}
        with BaselineProcess(self._output) as baseline:
            say(f"{guest.name}: never seen")
            never_seen = self._never_seen(guest, path, order, baseline, plan)
            say(f"{guest.name}: on disk")
            on_disk = self._on_disk(guest, path, order, plan)
            say(f"{guest.name}: warm")
            warm = self._warm(guest, path, order, baseline, plan)
        path.unlink()
        artifact.unlink()
        return {"never seen": never_seen, "on disk": on_disk, "warm": warm}

    def _never_seen(
        self, guest: Guest, path: Path, order: dict[str, Any], baseline: BaselineProcess, plan: Plan
    ) -> Pair:
        ours, theirs = [], []
        for _ in _rounds(plan.never_seen, plan.seconds):
            guests.write_unseen_copy(guest, path)
            self._cluster.settle()
            ours.append(self._run(guest, path, "never seen"))
            self._cluster.settle()
            theirs.append(_baseline_sample(baseline.order("compiled", order)))
        return ours, theirs

    def _on_disk(self, guest: Guest, path: Path, order: dict[str, Any], plan: Plan) -> Pair:
        ours, theirs = [], []
        for _ in _rounds(plan.on_disk, plan.seconds):
            self._cluster.stop_worker(self._worker, self._client)
            self._worker = self._cluster.start_worker(self._client)
            ours.append(self._run(guest, path, "on disk"))
            with BaselineProcess(self._output) as fresh:
                self._cluster.settle()
                theirs.append(_baseline_sample(fresh.order("loaded", order)))
        return ours, theirs

    def _warm(self, guest: Guest, path: Path, order: dict[str, Any], baseline: BaselineProcess, plan: Plan) -> Pair:
        ours: list[Sample] = []
        theirs: list[Sample] = []
        turn = max(1, plan.warm // 20)  # runs of one side before the other has its turn
        for _ in range(3):
            self._client.run(path, **_options(guest))
        baseline.order("warm", {**order, "count": 3})
        self._cluster.settle()
        for _ in _rounds(plan.warm // turn, plan.seconds):
            ours += [self._run(guest, path, "warm") for _ in range(turn)]
            theirs += map(_baseline_sample, baseline.order("warm", {**order, "count": turn}))
        return ours, theirs

    def _run(self, guest: Guest, path: Path, tier: str) -> Sample:
        begun = time.perf_counter()
        result = self._client.run(path, **_options(guest))
        total = (time.perf_counter() - begun) * 1e3
        if result.tier != EXPECTED_TIER[tier]:
            raise ClusterFailed(f"{guest.name} was to run {tier} and ran as {result.tier!r}.")
        if (result.stdout.decode(), result.value) != (guest.stdout, guest.value):
            raise ClusterFailed(f"{guest.name} gave {result.stdout!r} and {result.value!r}.")
        return _sample(total, result)


def _options(guest: Guest) -> dict[str, Any]:
    if guest.invoke is None:
        return {"args": guest.args}
    return {"args": guest.texts, "invoke": guest.invoke}


def _sample(total: float, result: RunResult) -> Sample:
    """A run of minilambda. What no phase of its usage explains is split by what the broker saw of it."""
    usage = result.usage
    told = {
        "wait": usage.queued_ms,
        "fetch": usage.fetch_ms,
        "compile": usage.compile_ms,
        "load": usage.load_ms,
        "run": usage.run_ms,
    }
    hops = max(0.0, usage.total_ms - sum(told.values()))
    return Sample(total, {"client": max(0.0, total - usage.total_ms), "hops": hops, **told})


def _baseline_sample(times: dict[str, float]) -> Sample:
    return Sample(sum(times.values()), times)


def _rounds(count: int, seconds: float) -> Iterator[None]:
    """``count`` rounds, fewer when they take too long, but one at least."""
    end = time.monotonic() + seconds
    for number in range(count):
        if number and time.monotonic() > end:
            return
        yield


def measure(chosen: list[Guest], quick: bool) -> dict[str, Any]:
    """Run the benchmark; the document that is printed, drawn and written."""
    begun = time.monotonic()
    described = harness.machine()
    results = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minilambda-bench-")))
        memory = folder
        if Path("/dev/shm").is_dir():
            memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm", prefix="minilambda-bench-")))
        cluster = stack.enter_context(LocalCluster(folder, SLOTS))
        client = stack.enter_context(Client(f"tcp://{cluster.address}"))
        status = stack.enter_context(console.status("starting"))
        bench = Bench(cluster, client, folder, memory, quick)
        for guest in (guest for guest in chosen if guest.present):
            tiers = bench.measure(guest, status.update)
            results += [_result(guest, tier, *pair) for tier, pair in tiers.items()]
    return {
        "benchmark": "cold_start",
        "minilambda": __version__,
        "quick": quick,
        "seconds": round(time.monotonic() - begun, 1),
        "machine": {**described, "load_average_after": harness.machine()["load_average"]},
        "not_measured": report.NOT_MEASURED,
        "absent": [guest.name for guest in chosen if not guest.present],
        "results": results,
    }


def _result(guest: Guest, tier: str, ours: list[Sample], theirs: list[Sample]) -> dict[str, Any]:
    mine, other = harness.summary(ours), harness.summary(theirs)
    return {
        "module": guest.name,
        "title": guest.title,
        "wasm_bytes": guest.size(),
        "tier": tier,
        "minilambda": mine,
        "wasmtime_py": other,
        "ratio": round(mine["median_ms"] / other["median_ms"], 3),
    }


def _check_targets(plot: str | None, figures: str | None) -> None:
    """Find out before minutes are spent whether the files can be written. Raises ``ValueError``."""
    if plot and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install 'minilambda[bench]', or run it by `make bench`.")
    if plot and Path(plot).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--plot: {plot} must end in .png, .svg or .pdf.")
    for path in filter(None, (plot, figures)):
        if not Path(path).resolve().parent.is_dir():
            raise ValueError(f"{path}: there is no such directory.")


def main() -> int:
    args = docopt(USAGE)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _check_targets(args["--plot"], args["--json"])
        if args["--from"]:
            document = report.read(Path(args["--from"]))
        else:
            document = measure(guests.chosen(args["--modules"], args["--quick"]), args["--quick"])
            if args["--json"]:
                Path(args["--json"]).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        report.show(document)
        if args["--plot"]:
            import picture  # noqa: PLC0415 - matplotlib is needed for this only

            picture.draw(document, Path(args["--plot"]))
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    except (MinilambdaError, ClusterFailed, ValueError, OSError) as error:
        console.print(f"cold_start: {error}", style="bold red", markup=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
