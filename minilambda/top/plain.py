"""The same as text and as an object, for scripts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len

from minilambda.top.header import head
from minilambda.top.sample import LISTS
from minilambda.top.status import extent
from minilambda.top.tables import TABLES, Table, arrange
from minilambda.top.watch import Watch
from minilambda.top.words import fit, printable

_WIDTH = 160  # of the lines at the top, columns


def lines(watch: Watch, endpoint: str) -> Iterator[str]:
    """The lines at the top and all tables, as plain text."""
    latest = watch.latest
    for line in head(watch, endpoint, _WIDTH, latest.at, charts=False):
        yield line.plain.rstrip()
    for name in LISTS:
        table = TABLES[name]
        yield ""
        if name in latest.refused:
            yield f"{name}: {printable(latest.refused[name])}"
            continue
        rows = latest.rows(name) or []
        own = f", only those of {printable(latest.principal)}" if name == "jobs" and latest.own_only else ""
        yield extent(latest, name, len(rows)) + own
        if rows:
            yield from _table(table, arrange(table, rows, table.sort, table.descending))


def _table(table: Table[Any], rows: list[Any]) -> Iterator[str]:
    texts = [[printable(column.text(row)) for column in table.columns] for row in rows]
    heads = [column.name for column in table.columns]
    widths = [max(map(cell_len, found)) for found in zip(heads, *texts, strict=True)]
    for found in [heads, *texts]:
        parts = zip(table.columns, widths, found, strict=True)
        yield "  ".join(fit(text, width, right=column.right) for column, width, text in parts).rstrip()


def as_object(watch: Watch, endpoint: str) -> dict[str, Any]:
    """All that is known, as JSON can hold it; null for what this key may not see."""
    latest = watch.latest
    found: dict[str, Any] = {
        "server": endpoint,
        "broker": latest.greeting,
        "principal": latest.principal,
        "overview": None if latest.overview is None else asdict(latest.overview),
        "ended_per_second": None if watch.rate is None else round(watch.rate, 3),
    }
    for name in LISTS:
        rows = latest.rows(name)
        found[name] = None if rows is None else [asdict(row) for row in rows]
    found["own_jobs_only"] = latest.own_only
    found["refused"] = latest.refused
    return found
