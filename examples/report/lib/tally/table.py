"""Sums over a table of texts."""

from collections.abc import Iterable, Mapping


def totals(rows: Iterable[Mapping[str, str]], key: str, value: str) -> dict[str, float]:
    """The sum of a column for each value of another one, in the order of these."""
    found: dict[str, float] = {}
    for row in rows:
        found[row[key]] = found.get(row[key], 0.0) + float(row[value])
    return dict(sorted(found.items()))
