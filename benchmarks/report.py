"""The figures of a benchmark as tables for people."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

PHASES = {
    "client": "client and broker: hash and upload of a new module, request, reply",
    "hops": "broker, worker and runner: messages between them, output, bookkeeping",
    "wait": "in a queue, and for a compiler process",
    "fetch": "the module's bytes, broker to worker",
    "compile": "wasm to machine code",
    "load": "artifact into the runner",
    "run": "the guest, instantiation included",
}
"""What each phase is. All but the first two are what ``usage`` of the result says."""

NOT_MEASURED = [
    "a network: all processes are on this machine, over its loopback interface",
    "contention: one job at a time, nothing else is in the queue",
    "the start of a broker, a worker, a client or a Python interpreter",
    "a cold page cache: artifacts on disk were written minutes ago and are in memory",
    "large inputs and outputs, and throughput",
]

Document = dict[str, Any]


def read(path: Path) -> Document:
    """A document that ``--json`` wrote. Raises ``ValueError`` for another file."""
    try:
        document = json.loads(path.read_text())
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("benchmark") != "cold_start":
        raise ValueError(f"{path} was not written by cold_start.py --json.")
    return document


def milliseconds(value: float) -> str:
    """Three figures that matter: 0.512, 4.07, 28.5, 2312."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"


def size(count: int) -> str:
    """A number of bytes for people."""
    return f"{count} B" if count < 1000 else f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def machine_line(document: Document) -> str:
    """What it ran on, on one line."""
    machine = document["machine"]
    return (
        f"{machine['cores']} × {machine['cpu']}, {machine['memory_gib']:g} GiB, {machine['system']}, "
        f"{machine['python']}, wasmtime {machine['wasmtime']}"
    )


def show(document: Document) -> None:
    """Print everything."""
    # A terminal decides its own width; anything else gets one that holds the tables.
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(_latencies(document))
    console.print(_breakdown(document))
    console.print(_notes(document))


def _latencies(document: Document) -> Table:
    table = Table(title="What a client waits, end to end (milliseconds)", title_justify="left")
    for name in ("\nmodule", "\ntier"):
        table.add_column(name, no_wrap=True)
    for name in ("\nsamples", "\nmedian", "\np99", "\nbest"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("wasmtime-py\nmedian", "\np99", "\nbest"):
        table.add_column(name, justify="right", style="dim", no_wrap=True)
    table.add_column("\nratio", justify="right", style="bold", no_wrap=True)
    for row in document["results"]:
        first = row["tier"] == "never seen"
        ours, theirs = row["minilambda"], row["wasmtime_py"]
        table.add_row(
            f"{escape(row['title'])}, {size(row['wasm_bytes'])}" if first else "",
            row["tier"],
            str(ours["count"]),
            *_figures(ours),
            *_figures(theirs),
            f"{row['ratio']:.2f} ×",
            end_section=row["tier"] == "warm",
        )
    for name in document["absent"]:
        table.add_row(name, "not there: run `make guests`", style="yellow")
    return table


def _figures(side: dict[str, Any]) -> tuple[str, str, str]:
    """Median, p99 and best. With under 100 samples the p99 is the largest of them, which the parentheses say."""
    tail = milliseconds(side["p99_ms"])
    return (
        milliseconds(side["median_ms"]),
        tail if side["count"] >= 100 else f"({tail})",
        milliseconds(side["min_ms"]),
    )


def _breakdown(document: Document) -> Table:
    table = Table(title="Where it goes, in a run around the median (milliseconds)", title_justify="left")
    table.add_column("module", no_wrap=True)
    table.add_column("tier", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in PHASES:
        table.add_column(name, justify="right", no_wrap=True)
    for row in document["results"]:
        first = row["tier"] == "never seen"
        for label, key in (("minilambda", "minilambda"), ("wasmtime-py", "wasmtime_py")):
            ours = key == "minilambda"
            spent = row[key]["phases_ms"]
            table.add_row(
                row["module"] if first and ours else "",
                row["tier"] if ours else "",
                label,
                *(milliseconds(spent[name]) if spent.get(name) else "-" for name in PHASES),
                style=None if ours else "dim",
                end_section=row["tier"] == "warm" and not ours,
            )
    return table


def _notes(document: Document) -> str:
    machine = document["machine"]
    phases = "\n".join(f"  [bold]{name:8}[/] {meaning}" for name, meaning in PHASES.items())
    missing = "\n".join(f"  - {each}" for each in document["not_measured"])
    brackets = (
        "\np99 in parentheses: under 100 samples, so it is the largest of them. "
        "best: the run that the rest of the machine "
        "disturbed least. ratio: of the medians."
    )
    version = f"minilambda {document['minilambda']}" + (f" ({machine['commit']})" if machine["commit"] else "")
    return (
        f"{phases}{brackets}\n"
        "wasmtime-py: engine and linker are made once, output goes to a file in memory, no limits, no sandbox around "
        f"it.\n\n[bold]Not measured[/]\n{missing}\n\n"
        f"{escape(machine_line(document))}, pyzmq {machine['pyzmq']}, libzmq {machine['libzmq']}; {version}; "
        f"{machine['time']}; {document['seconds']:.0f} s in all; "
        f"load average {machine['load_average']} before, {machine['load_average_after']} after."
        + (" Quick run: few samples." if document["quick"] else "")
    )
