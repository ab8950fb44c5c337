"""The figures of a benchmark as text for people: on a terminal, and in Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

Document = dict[str, Any]
ANSWERS = ("question", "figure", "ratio", "target", "")
MET = {True: "met", False: "not met", None: ""}


def milliseconds(value: float) -> str:
    """Three figures that matter: 0.512, 4.07, 28.5, 2312."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"


def micros(value: float) -> str:
    """Whole microseconds, or milliseconds where they are many: 7.2 µs, 450 µs, 10.8 ms."""
    if value >= 9_950:
        return f"{value / 1e3:.3g} ms"
    return f"{value:.0f} µs" if value >= 10 else f"{value:.1f} µs"


def rate(per_second: float) -> str:
    """A throughput: 6,100/s, 61.3/s."""
    return f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"


def size(count: float) -> str:
    """A number of bytes for people."""
    return f"{count:.0f} B" if count < 1000 else f"{count / 1e3:.3g} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"


def ratio(value: float | None) -> str:
    """A ratio, two figures after the point where that says something."""
    return "" if value is None else f"{value:.3f} ×" if value < 0.1 else f"{value:.2f} ×"


def machine_line(document: Document) -> str:
    """What it ran on, on one line."""
    machine = document["machine"]
    return (
        f"{machine['cores']} × {machine['cpu']}, {machine['memory_gib']:g} GiB, {machine['system']}, "
        f"{machine['python']}, wasmtime {machine['wasmtime']}"
    )


def origin_line(document: Document) -> str:
    """Versions, time and load, on one line."""
    machine = document["machine"]
    version = f"minilambda {document['minilambda']}" + (f" ({machine['commit']})" if machine["commit"] else "")
    return (
        f"pyzmq {machine['pyzmq']}, libzmq {machine['libzmq']}; {version}; {machine['time']}; "
        f"{document['seconds']:.0f} s in all; load average {machine['load_average']} before, "
        f"{machine['load_average_after']} after." + (" Quick run: few samples." if document["quick"] else "")
    )


def answer_rows(answers: Sequence[Document]) -> list[list[str]]:
    """The cells of the table of answers."""
    return [
        [each["question"], each["figure"], ratio(each["ratio"]), each["target"], MET[each["met"]]] for each in answers
    ]


# --- on a terminal -----------------------------------------------------------------------------------


def terminal() -> Console:
    """A terminal decides its own width; anything else gets one that holds the tables."""
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)


def show(document: Document) -> None:
    """Print everything."""
    console = terminal()
    for table in document["tables"]:
        console.print(_grid(table["title"], table["columns"], table["rows"], table["left"]))
        if table["note"]:
            console.print(escape(table["note"]) + "\n")
    if document["answers"]:
        console.print(answers_grid(document["answers"]))
    missing = "\n".join(f"  - {escape(each)}" for each in document["not_measured"])
    console.print(f"[bold]Not measured[/]\n{missing}\n")
    console.print(escape(f"{machine_line(document)}, {origin_line(document)}"))


def answers_grid(answers: Sequence[Document], title: str = "Answers") -> Table:
    """The answers as a table, those that miss their target in red."""
    table = _grid(title, ANSWERS, [], 2)
    for row, answer in zip(answer_rows(answers), answers, strict=True):
        colour = {True: "green", False: "red", None: None}[answer["met"]]
        table.add_row(*map(escape, row), style=colour)
    return table


def _grid(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for index, name in enumerate(columns):
        table.add_column(escape(name), justify="left" if index < left else "right", no_wrap=index >= left)
    previous = ""
    for row in rows:
        if table.rows and row[0] and previous != row[0] and any(not each[0] for each in rows):
            table.add_section()
        previous = row[0]
        table.add_row(*map(escape, row))
    return table


# --- Markdown ----------------------------------------------------------------------------------------


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table in Markdown."""
    lines = [list(columns), ["---" if index < left else "---:" for index in range(len(columns))], *map(list, rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"
