"""The answers of all benchmarks on one page, and the same figures in ``docs/performance.md``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import report

Document = dict[str, Any]
PLACE = re.compile(r"(?<=<!-- figures: )([a-z_ ]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
"""Where generated text stands in a page: from ``<!-- figures: NAME -->`` to ``<!-- end -->``."""


def show(documents: Mapping[str, Document], failed: Mapping[str, str]) -> None:
    """Print one line for each question, and what failed."""
    console = report.terminal()
    for name, document in documents.items():
        console.print(report.answers_grid(document["answers"], f"{name} ({document['seconds']:.0f} s)"))
    judged = [answer["met"] for document in documents.values() for answer in document["answers"]]
    console.print(f"{judged.count(True)} met, {judged.count(False)} not met, {judged.count(None)} without a target.")
    for name, reason in failed.items():
        console.print(f"{name} failed: {reason}", style="red", markup=False)
    for document in list(documents.values())[:1]:
        console.print(report.machine_line(document), markup=False)
    console.print(
        "What each does not measure, and its tables, are in its own output.", style="dim", markup=False, soft_wrap=True
    )


def filled(text: str, documents: Mapping[str, Document]) -> str:
    """The page with the generated parts made anew; those of benchmarks that are not there stay as they are."""

    def part(match: re.Match[str]) -> str:
        name = match[1]
        if name == "answers":
            made = _answers(documents)
        elif name == "machine":
            made = _machine(next(iter(documents.values())))
        elif name in documents:
            made = _tables(documents[name])
        else:
            return match[0]
        return f"{name}{match[2]}{made}\n"

    return PLACE.sub(part, text)


def write(path: Path, documents: Mapping[str, Document]) -> None:
    """Put the figures into a page of documentation."""
    path.write_text(filled(path.read_text(), documents))


def _answers(documents: Mapping[str, Document]) -> str:
    rows = []
    for name, document in documents.items():
        rows += [[*cells, f"`{name}.py`"] for cells in report.answer_rows(document["answers"])]
    return report.markdown((*report.ANSWERS, "by"), rows, 2)


def _machine(document: Document) -> str:
    quick = (
        " A quick run: few samples, so take these figures for their order of magnitude." if document["quick"] else ""
    )
    versions = document["machine"]
    return (
        f"{report.machine_line(document)}, pyzmq {versions['pyzmq']}, libzmq {versions['libzmq']}, "
        f"minilambda {document['minilambda']}.{quick}\n"
    )


def _tables(document: Document) -> str:
    parts = []
    for table in document["tables"]:
        note = table["note"].replace("\n", "  \n")
        parts += [f"**{table['title']}**\n", report.markdown(table["columns"], table["rows"], table["left"])]
        parts += [note + "\n"] if note else []
    parts += ["Not measured:\n", "\n".join(f"- {each}" for each in document["not_measured"]) + "\n"]
    load = document["machine"]
    parts.append(
        f"{document['seconds']:.0f} s in all; load average {load['load_average']} before, "
        f"{load['load_average_after']} after.\n"
    )
    return "\n".join(parts)
