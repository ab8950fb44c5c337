"""Numbers, times and little charts as text of a few characters. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.style import Style
from rich.text import Text

GOOD, BAD, WAIT, BUSY, SOFT, STRONG = "green", "red", "yellow", "cyan", "dim", "bold"
"""Styles by meaning. What they say always stands in words too, for those who see no colours."""

STATE_STYLES = {
    "completed": GOOD,
    "failed": BAD,
    "cancelled": "magenta",
    "queued": WAIT,
    "assigned": BUSY,
    "running": BUSY,
    "idle": SOFT,
    "busy": GOOD,
    "draining": WAIT,
    "lost": BAD,
}
"""State of a job or worker to its style."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def printable(text: str) -> str:
    """A peer's text without what a terminal would obey."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def without_escapes(text: str) -> str:
    """A line that a guest wrote for a terminal as plain text: what overwrote itself by a return is its last state."""
    text = _ESCAPES.sub("", text).rstrip("\r").expandtabs(8)
    return printable(text.rpartition("\r")[2])


def colourless(text: Text) -> Text:
    """The same in the terminal's own colour; what is bold or reversed stays so."""
    made = Text(text.plain, no_wrap=text.no_wrap, end=text.end)
    for start, end, style in text.spans:
        made.stylize((Style.parse(style) if isinstance(style, str) else style).without_color, start, end)
    return made


def number(value: float) -> str:
    """A count with its thousands parted."""
    return f"{value:,.0f}"


def short(value: float) -> str:
    """A count or a rate in six characters at most."""
    if value < 10 and value != int(value):
        return f"{value:.1f}"
    if value < 10_000:
        return f"{value:.0f}"
    for unit in "kMG":
        value /= 1000
        if value < 999.5:
            return f"{value:.1f}{unit}" if value < 99.95 else f"{value:.0f}{unit}"
    return f"{value:.0f}G"


def millis(value: float) -> str:
    """Milliseconds in eight characters at most; "" for none."""
    if value <= 0:
        return ""
    if value < 10:
        return f"{value:.2f} ms"
    if value < 999.5:
        return f"{value:.0f} ms"
    return f"{value / 1000:.1f} s" if value < 99_950 else age(value / 1000)


def age(seconds: float) -> str:
    """A time in six characters at most."""
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d{hours:02}h" if days < 100 else f"{days}d"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{whole % 60:02}s" if minutes else f"{whole}s"


def amount(size: float) -> str:
    """Bytes, for people."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def counted(value: int, one: str, many: str = "") -> str:
    """``1 worker``, ``2 workers``."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def tally(counts: Mapping[str, int], most: int = 0) -> str:
    """``10 trap, 2 cancelled``, the largest first; with ``most``, so many kinds and the number of the others."""
    shown = sorted(((count, name) for name, count in counts.items() if count), key=lambda item: (-item[0], item[1]))
    cut = shown[:most] if most else shown
    words = [f"{number(count)} {printable(name)}" for count, name in cut]
    if len(cut) < len(shown):
        words.append(f"{number(sum(count for count, _ in shown[most:]))} of {len(shown) - most} other kinds")
    return ", ".join(words)


def sparkline(values: Sequence[float], width: int, least: float = 0.0) -> str:
    """The last ``width`` values as little bars, the newest at the right. The largest is full, if it has ``least``."""
    last = list(values)[-width:] if width > 0 else []
    top = max(least, max(last, default=0.0))
    bars = (_BLOCKS[min(7, int(value / top * 7.999))] if top > 0 else _BLOCKS[0] for value in last)
    return "".join(bars).rjust(max(0, width))


def bar(share: float, width: int) -> str:
    """A bar that is full where ``share`` is 1; more than nothing is always seen."""
    full = min(width, max(int(share * width + 0.5), 1 if share > 0 else 0))
    return "━" * full + "─" * (width - full)


def fit(text: str, width: int, *, right: bool = False) -> str:
    """Just so many columns of a terminal: padded, or cut with an ellipsis at the end."""
    size = len(text) if text.isascii() else cell_len(text)
    if size > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return " " * (width - size) + text if right else text + " " * (width - size)


def middle(text: str, width: int) -> str:
    """The text, or its beginning and its end: what tells ids apart is often the end."""
    if len(text) <= width or width < 5:
        return text
    tail = (width - 1) * 2 // 3
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def wrapped(lines: Iterable[tuple[str, str]], width: int, indent: int | None = None) -> Iterator[tuple[str, str]]:
    """Lines with their styles, the long ones broken; with ``indent``, between words, and indented so far."""
    for text, style in lines:
        if len(text) <= width and text.isascii():
            yield text, style
            continue
        if indent is None or width < 2 * indent:
            parts = chop_cells(text, max(2, width))
        else:
            parts = textwrap.wrap(text, width, subsequent_indent=" " * indent)
        for part in parts or [""]:
            yield part, style
