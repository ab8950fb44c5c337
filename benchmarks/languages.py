"""Measure the guests that the guides make, language by language: size, first run, run from disk, warm run."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import command
import harness

from minilambda import Client, RunResult
from minilambda.testing import cluster

USAGE = """Measure the guests of docs/guests/*.md: how large they are, and how long a client waits for them.

Usage:
  languages.py [--quick] [--json=<path>] [--write]
  languages.py (-h | --help)

Options:
  --quick        Few samples.
  --json=<path>  Write machine, figures and all samples to this file.
  --write        Put the table into docs/guests.md.
  -h --help      Show this.

The guests are there after `make test-languages`. Each counts the words of a short text.
"""

GUESTS = harness.ROOT / ".guests" / "languages"
PAGE = harness.ROOT / "docs" / "guests.md"
BEGIN, END = "<!-- figures: languages -->\n", "<!-- end -->"
TEXT = "one two three"
SUMMARIZE = "local:guest/texts#summarize"


@dataclass(frozen=True)
class Guest:
    """One guest and how it is asked."""

    title: str
    file: str
    function: bool = False  # else a command, which reads the text
    more: dict[str, Any] = field(default_factory=dict)  # options of a run, and its arguments as ``args``

    def run(self, client: Client) -> RunResult:
        """Ask it once. Raises ``AssertionError`` for another answer than three."""
        options = dict(self.more)
        if self.function:
            result = client.run(GUESTS / self.file, [TEXT], invoke=SUMMARIZE, **options)
            assert result.value == {"ok": {"words": 3, "longest": "three"}}, result
        else:
            result = client.run(GUESTS / self.file, options.pop("args", ()), stdin=TEXT, **options)
            assert result.stdout == b"3 words\n", result
        return result


SCRIPT = "import sys; print(len(sys.stdin.read().split()), 'words')"
UPGRADED_S = 60.0  # Cranelift must have made the code of the warm runs after so long, seconds
ALL = [
    Guest("C, by zig", "c-count.wasm"),
    Guest("Rust", "rust-count.wasm"),
    Guest("Go", "go-count.wasm"),
    Guest("JavaScript, a program by componentize-js", "javascript-count.wasm"),
    Guest("JavaScript, a function by componentize-qjs", "javascript-texts.wasm", True),
    Guest("Python, a script in CPython", "python-python.wasm", False, {"args": ["-c", SCRIPT]}),
    Guest("Python, a function by componentize-py", "python-texts.wasm", True),
]


def measure(guest: Guest, cold: int, warm: int) -> dict[str, Any]:
    """The samples of a guest, milliseconds, as a client that is connected sees them."""
    found: dict[str, Any] = {"title": guest.title, "bytes": (GUESTS / guest.file).stat().st_size}
    found |= {"compiled": [], "disk": [], "warm": []}

    def sample(client: Client, tier: str) -> None:
        begun = time.perf_counter()
        result = guest.run(client)
        found[tier].append(1e3 * (time.perf_counter() - begun))
        assert result.tier == tier, result

    for _ in range(cold):
        with tempfile.TemporaryDirectory() as folder:
            for tier in ("compiled", "disk"):
                with cluster(cache_dir=folder) as running:
                    sample(running.client, tier)
    with cluster() as running:
        end = time.monotonic() + UPGRADED_S
        while guest.run(running.client).usage.compiler != "cranelift" and time.monotonic() < end:
            time.sleep(0.1)
        guest.run(running.client)
        for _ in range(warm):
            sample(running.client, "warm")
    return found


def table(rows: list[dict[str, Any]]) -> harness.Table:
    """The table of the page."""

    def cells(row: dict[str, Any]) -> list[str]:
        times = [min(row["compiled"]), min(row["disk"]), statistics.median(row["warm"])]
        return [row["title"], _size(row["bytes"]), *(f"{ms:,.0f} ms" if ms >= 20 else f"{ms:.1f} ms" for ms in times)]

    columns = ["guest", "size", "never seen", "on disk", "warm"]
    note = "Of the cold runs the quickest, so that what else the machine does counts less; of the warm ones the median."
    return harness.Table("Guests by language", columns, [*map(cells, rows)], note)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size > 1e6 else f"{size / 1e3:.0f} kB"


def write(made: harness.Table) -> None:
    """Put the table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index(BEGIN) + len(BEGIN)
    lines = [f"| {' | '.join(made.columns)} |", "|---" + "|---:" * (len(made.columns) - 1) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in made.rows]
    PAGE.write_text(text[:start] + "\n".join(lines) + "\n" + text[text.index(END, start) :], encoding="utf-8")


def run(args: dict[str, Any]) -> dict[str, Any]:
    """Measure all; the document."""
    begun, described = time.monotonic(), harness.machine()
    missing = [guest.file for guest in ALL if not (GUESTS / guest.file).exists()]
    if missing:
        raise ValueError(f"{GUESTS} lacks {', '.join(missing)}: run `make test-languages`")
    rows = [measure(guest, *((2, 10) if args["--quick"] else (5, 100))) for guest in ALL]
    made = table(rows)
    if args["--write"]:
        write(made)
    return harness.document(
        "languages",
        args["--quick"],
        begun,
        described,
        answers=[],
        tables=[made],
        not_measured=["a network: all processes are on this machine"],
        results=rows,
    )


if __name__ == "__main__":
    command.main(USAGE, run)
