"""The tables: their columns, how wide these are, and how rows are chosen and ordered. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from minilambda.client.functions import FunctionInfo
from minilambda.client.listings import ClientInfo, JobInfo, WorkerInfo
from minilambda.top.words import BUSY, GOOD, STATE_STYLES, age, bar, middle, millis, number, printable, short

T = TypeVar("T")

_ROOMY = 120  # a terminal of so many columns has room for more space between them


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table of ``T``."""

    name: str  # its head
    width: int  # columns of the terminal, at least
    text: Callable[[T], str]
    order: Callable[[T], Any]  # what rows are sorted by
    rank: int = 0  # where there isn't room for all, those with the highest rank are left out
    most: int = 0  # columns of the terminal that it grows to where there is room; 0: it does not
    right: bool = False  # aligned to the right
    style: Callable[[T], str] = lambda _: ""
    elide: bool = False  # a text that is too long is cut in its middle


@dataclass(frozen=True)
class Table(Generic[T]):
    """A kind of table."""

    name: str
    columns: tuple[Column[T], ...]
    key: Callable[[T], object]  # what makes a row the same row a moment later
    sort: str  # name of the column that it is sorted by at first
    descending: bool  # and how
    empty: str  # said where there are no rows

    def column(self, name: str) -> Column[T]:
        return next(each for each in self.columns if each.name == name)


def layout(columns: Sequence[Column[T]], width: int, needs: Mapping[str, int]) -> list[tuple[Column[T], int]]:
    """The columns that fit, in their order, with their widths; space is between two. ``needs``: see ``wanted``."""
    chosen: list[Column[T]] = []
    gap = gap_of(width)
    room = width + gap
    for column in sorted(columns, key=lambda each: each.rank):
        if room < column.width + gap and chosen:
            break
        chosen.append(column)
        room -= column.width + gap
    widths = {column.name: column.width for column in chosen}
    for column in chosen:  # by rank, too
        more = min(max(0, min(column.most, needs.get(column.name, 0)) - column.width), max(0, room))
        widths[column.name] += more
        room -= more
    return [(column, widths[column.name]) for column in columns if column.name in widths]


def gap_of(width: int) -> int:
    """The space between two columns."""
    return 1 if width < _ROOMY else 2


def wanted(columns: Sequence[Column[T]], rows: Sequence[T], before: Mapping[str, int]) -> dict[str, int]:
    """How wide the columns that may grow would be, for these rows and those ``before``: so they never shrink."""
    return {
        column.name: max(before.get(column.name, 0), max((len(column.text(row)) for row in rows), default=0))
        for column in columns
        if column.most
    }


def arrange(table: Table[T], rows: Iterable[T], sort: str, descending: bool, words: Sequence[str] = ()) -> list[T]:
    """The rows that have all the words somewhere in them, in order."""
    found = list(rows)
    if words:
        found = [row for row in found if all(word in text for text in (haystack(row),) for word in words)]
    found.sort(key=table.column(sort).order, reverse=descending)
    return found


def haystack(row: Any) -> str:
    """All that a row says, to look for words in."""
    return " ".join(str(getattr(row, each.name)) for each in fields(row)).lower()


def cell(column: Column[T], row: T, width: int) -> str:
    """What stands in a column of a row, shortened where that is better done in the middle."""
    text = printable(column.text(row))
    return middle(text, width) if column.elide else text


def _text(name: str, width: int, field: str, rank: int, most: int = 0, elide: bool = False) -> Column[Any]:
    def text(row: Any) -> str:
        return str(getattr(row, field))

    return Column(name, width, text, lambda row: text(row).lower(), rank, most, elide=elide)


def _number(name: str, width: int, field: str, rank: int, form: Callable[[float], str] = short) -> Column[Any]:
    def value(row: Any) -> float:
        return float(getattr(row, field))

    return Column(name, width, lambda row: form(value(row)), value, rank, right=True)


def _ago(name: str, field: str, rank: int) -> Column[Any]:
    return _number(name, 6, field, rank, lambda ms: age(ms / 1000))


def _module(rank: int) -> Column[Any]:
    return Column("module", 12, lambda row: row.module.removeprefix("sha256:"), lambda row: row.module, rank, 16)


def _state(rank: int) -> Column[Any]:
    return Column(
        "state",
        9,
        lambda row: row.state,
        lambda row: row.state,
        rank,
        style=lambda row: STATE_STYLES.get(row.state, ""),
    )


def _code_style(row: JobInfo) -> str:
    return STATE_STYLES["cancelled" if row.code == "cancelled" else "failed"] if row.code else ""


def _load(row: WorkerInfo) -> float:
    return row.queue / row.slots if row.slots else float(bool(row.queue))


JOBS: Table[JobInfo] = Table(
    "jobs",
    (
        _text("job", 14, "job", 0, 24, elide=True),
        _state(1),
        Column("code", 11, lambda row: row.code, lambda row: row.code, 2, 21, style=_code_style),
        _text("function", 9, "function", 11, 24),
        _text("worker", 8, "worker", 3, 20, elide=True),
        _number("att", 4, "attempt", 12),
        _text("tier", 8, "tier", 7),
        _number("queued", 8, "queued_ms", 8, millis),
        _number("compile", 8, "compile_ms", 9, millis),
        _number("run", 8, "run_ms", 5, millis),
        _number("total", 8, "total_ms", 4, millis),
        _ago("age", "age_ms", 6),
        _text("group", 7, "group", 13, 16),
        _text("principal", 10, "principal", 10, 24, elide=True),
        _module(14),
    ),
    lambda row: (row.principal, row.job),
    "age",
    False,
    "There are no jobs.",
)

WORKERS: Table[WorkerInfo] = Table(
    "workers",
    (
        _text("name", 12, "name", 0, 28, elide=True),
        _state(1),
        Column(
            "load", 8, lambda row: bar(_load(row), 8), _load, 2, style=lambda row: GOOD if _load(row) <= 1 else BUSY
        ),
        _number("slots", 6, "slots", 3),
        _number("queue", 6, "queue", 4),
        _number("ended", 9, "done", 5, number),
        _ago("seen", "seen_ms", 6),
        _text("host", 8, "host", 7, 28, elide=True),
        _text("walls", 8, "walls", 8, 60),
        _number("pid", 8, "pid", 9, lambda pid: f"{pid:.0f}"),
        _text("version", 9, "version", 10),
        _text("id", 8, "id", 11, 36, elide=True),
    ),
    lambda row: row.id,
    "name",
    False,
    "No worker is connected.",
)

CLIENTS: Table[ClientInfo] = Table(
    "clients",
    (
        _text("name", 10, "name", 1, 24),
        _text("principal", 12, "principal", 0, 40, elide=True),
        _number("queued", 7, "queued", 2),
        _number("running", 8, "running", 3),
        _number("completed", 10, "completed", 4, number),
        _number("failed", 8, "failed", 5, number),
        _number("cancelled", 10, "cancelled", 7, number),
        _ago("seen", "seen_ms", 6),
    ),
    lambda row: row.principal,
    "running",
    True,
    "Nobody has had a job yet.",
)

FUNCTIONS: Table[FunctionInfo] = Table(
    "functions",
    (
        _text("function", 16, "function", 0, 40),
        _number("version", 8, "version", 1),
        Column("aliases", 14, lambda row: ", ".join(row.aliases), lambda row: row.aliases, 2, 30),
        _number("of", 3, "versions", 3),
        _ago("made", "age_ms", 4),
        Column("shared", 7, lambda row: "shared" if row.shared else "", lambda row: row.shared, 5),
        _text("invoke", 8, "invoke", 7, 20),
        _text("principal", 10, "principal", 6, 24, elide=True),
        _module(8),
    ),
    lambda row: (row.principal, row.function, row.version),
    "function",
    False,
    "There are no functions.",
)

TABLES: dict[str, Table[Any]] = {each.name: each for each in (JOBS, WORKERS, CLIENTS, FUNCTIONS)}
