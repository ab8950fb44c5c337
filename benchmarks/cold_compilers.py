"""The never-seen tier by compiler: a worker for each, and the bare Cranelift compile in one process beside them."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import guests
from cold_runs import Baseline, Plan, rounds, run
from guests import Guest
from local_cluster import QUIET_S, UPGRADE_S, LocalCluster, worker_takes

from minilambda import Client
from minilambda.errors import CompileLimit, InvalidModule

COMPILERS = ("tiered", "cranelift", "winch")
OPTION = "--compiler"
QUICK = {"hello-c", "cpython"}  # the only ones in a quick run


class Rig:
    """A broker and a worker that was started with one compiler."""

    def __init__(self, compiler: str, folder: Path, slots: int, stack: ExitStack) -> None:
        folder.mkdir()
        self.compiler = compiler
        self.cluster = stack.enter_context(LocalCluster(folder, slots))
        self.client = stack.enter_context(Client(f"tcp://{self.cluster.address}"))
        self.cluster.start_worker(self.client, OPTION, compiler)


def measure(chosen: Sequence[Guest], folder: Path, slots: int, quick: bool, say: Callable[[str], None]) -> Any:
    """Rows of module, compiler, samples and ratio; a text instead where this version has no choice of compilers."""
    if not worker_takes(OPTION):
        return f"skipped: this worker has no {OPTION}"
    rows = []
    with ExitStack() as stack:
        say("starting a worker for each compiler")
        rigs = [Rig(name, folder / f"by-{name}", slots, stack) for name in COMPILERS]
        for guest in (guest for guest in chosen if not quick or guest.name in QUICK):
            say(f"{guest.name}: never seen, by compiler")
            rows += _rows(guest, *_samples(guest, rigs, folder, Plan.of(guest, quick)))
    return rows


def _samples(
    guest: Guest, rigs: list[Rig], folder: Path, plan: Plan
) -> tuple[dict[str, list[float]], list[float], dict[str, str]]:
    """End-to-end times by compiler and those of the bare compile, milliseconds; and who refused the module."""
    path, artifact = folder / f"by-{guest.name}.wasm", folder / f"by-{guest.name}.cwasm"
    ours: dict[str, list[float]] = {rig.compiler: [] for rig in rigs}
    bare: list[float] = []
    refused: dict[str, str] = {}
    turns = list(rigs)
    with Baseline(guest, path, artifact, folder / "bare.out", folder / "bare.log") as baseline:
        for _ in rounds(plan.compilers, plan.seconds):
            random.shuffle(turns)
            for rig in turns:
                if rig.compiler not in refused:
                    guests.write_unseen_copy(guest, path)
                    try:
                        ours[rig.compiler].append(run(rig.client, guest, path, "compiled")[0].total_ms)
                    except (InvalidModule, CompileLimit) as error:
                        refused[rig.compiler] = str(error)
                    rig.cluster.settle(UPGRADE_S if rig.compiler == "tiered" else QUIET_S)
            bare.append(baseline.compiled().phases_ms["compile"])
    return ours, bare, refused


def _rows(guest: Guest, ours: dict[str, list[float]], bare: list[float], refused: dict[str, str]) -> list[Any]:
    compile_ms = statistics.median(bare)
    rows = []
    for compiler, samples in ours.items():
        row = {"module": guest.name, "title": guest.title, "compiler": compiler, "bare_ms": round(compile_ms, 4)}
        if samples:
            # The ratio is that of neighbours: the machine may be another one a minute later.
            ratio = statistics.median(one / other for one, other in zip(samples, bare, strict=False))
            median = statistics.median(samples)
            row |= {"count": len(samples), "median_ms": round(median, 4), "ratio": round(ratio, 3)}
        else:
            row |= {"refused": refused.get(compiler, "")}
        rows.append(row)
    return rows
