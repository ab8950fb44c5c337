"""The figures of the cold-start benchmark as a picture: a row for each module, a column for each tier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from report import Document, machine_line, milliseconds, size

# Blue for the guest itself and orange for compiling, greys for the way there: told apart by the colour-blind too.
COLOURS = {
    "client": "#c9ced6",
    "hops": "#8d97a5",
    "wait": "#5d6673",
    "fetch": "#8fd0c5",
    "compile": "#e8833a",
    "load": "#f3c14b",
    "run": "#2f6db5",
}
LABELS = {
    "client": "client ↔ broker",
    "hops": "broker ↔ worker ↔ runner",
    "wait": "wait",
    "fetch": "fetch",
    "compile": "compile",
    "load": "load",
    "run": "run",
}
TIERS = ("never seen", "on disk", "warm")
MEANING = {
    "never seen": "upload, compile and run",
    "on disk": "a new worker loads the artifact and runs",
    "warm": "the same worker runs it again",
}
INK, FAINT, PALE = "#1f2733", "#6b7480", "#cfd4da"
WIDTH, ABOVE, ROW, BELOW = 13.5, 1.5, 1.5, 0.5  # inches
MARGIN, LEFT, PANEL = 0.015, 0.09, 0.302  # shares of the width
Styled = tuple[str, str, str, float]
SIDES = (("minilambda", "minilambda"), ("wasmtime_py", "wasmtime-py"))


def draw(document: Document, path: Path) -> None:
    """Write the picture. Raises ``ValueError`` for an ending that matplotlib does not know."""
    rows = {(row["module"], row["tier"]): row for row in document["results"]}
    modules = list(dict.fromkeys(row["module"] for row in document["results"]))
    if not modules:
        raise ValueError("there is nothing to draw: no module was measured.")
    style: Any = {"font.family": "sans-serif", "font.size": 10, "text.color": INK, "svg.fonttype": "path"}
    with mpl.rc_context(style):
        height = ABOVE + ROW * len(modules) + BELOW  # inches
        figure = Figure(figsize=(WIDTH, height), dpi=160, facecolor="white")
        for line, module in enumerate(modules):
            top = 1 - (ABOVE + ROW * line) / height
            _rule(figure, top)
            title = rows[module, TIERS[0]]
            figure.text(MARGIN, top - 0.14 / height, title["title"], fontsize=11.5, fontweight="bold", va="top")
            figure.text(1 - MARGIN, top - 0.14 / height, size(title["wasm_bytes"]), color=FAINT, va="top", ha="right")
            for column, tier in enumerate(TIERS):
                left = LEFT + column * PANEL
                axes = figure.add_axes((left, top - (ROW - 0.36) / height, PANEL * 0.93, 0.78 / height))
                _panel(axes, rows[module, tier], first=column == 0)
        _frame(figure, document, height)
        figure.savefig(path)


def _panel(axes: Axes, row: dict[str, Any], first: bool) -> None:
    """One tier of one module: two stacked bars on a scale of their own, in milliseconds from 0."""
    longest = max(_length(row[key]) for key, _ in SIDES)
    for place, (key, _) in enumerate(SIDES):
        left = 0.0
        for phase, colour in COLOURS.items():
            width = row[key]["phases_ms"].get(phase, 0.0)
            axes.barh(-place, width, left=left, height=0.7, color=colour, linewidth=0)
            left += width
        _label(axes, row, key, (left, -place))
    axes.set_xlim(0, longest * 2.05)
    axes.set_ylim(-1.55, 0.5)
    axes.set_yticks([0, -1], [name for _, name in SIDES] if first else ["", ""])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.tick_params(axis="x", length=2, labelsize=8, labelcolor=FAINT, color=PALE)
    step = MaxNLocator(4, steps=[1, 2, 5, 10])
    ticks = [tick for tick in step.tick_values(0, longest) if tick <= longest * 1.3]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g} s" if longest >= 1000 else f"{value:g} ms")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.spines["bottom"].set_bounds(0, max(*ticks, longest))


def _length(side: dict[str, Any]) -> float:
    return float(sum(side["phases_ms"].values()))


def _label(axes: Axes, row: dict[str, Any], key: str, end: tuple[float, float]) -> None:
    """Median, ratio and p99 behind the end of a bar."""
    side = row[key]
    tail = "p99" if side["count"] >= 100 else "max"
    texts: list[Styled] = [(_duration(side["median_ms"]), INK, "bold", 10.0)]
    if key == "minilambda":
        texts.append((f"{row['ratio']:.1f}×", "#b3261e" if row["ratio"] > 1 else "#1f7a45", "bold", 10.0))
    texts.append((f"{tail} {_duration(side['p99_ms'])}", FAINT, "normal", 8.5))
    _chain(axes, end, "data", texts)


def _chain(artist: Any, start: tuple[float, float], coords: Any, texts: list[Styled]) -> None:
    """Texts one behind the other, each as (text, colour, weight, points)."""
    place: tuple[float, float] = start
    for text, colour, weight, points in texts:
        coords = artist.annotate(
            text,
            place,
            xycoords=coords,
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight=weight,
            fontsize=points,
            annotation_clip=False,
        )
        place = (1, 0.5)


def _duration(ms: float) -> str:
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{milliseconds(ms)} ms"


def _rule(figure: Figure, y: float) -> None:
    figure.add_artist(Line2D((MARGIN, 1 - MARGIN), (y, y), color=PALE, linewidth=0.8))


def _frame(figure: Figure, document: Document, height: float) -> None:
    """Title, legend, headings of the columns and small print."""

    def write(x: float, inches: float, text: str, points: float, colour: str = FAINT, weight: str = "normal") -> None:
        figure.text(x, 1 - inches / height, text, fontsize=points, color=colour, fontweight=weight, va="top")

    kind = "Quick run, few samples." if document["quick"] else "Full run."
    write(MARGIN, 0.2, "How long a client waits for WebAssembly", 17, INK, "bold")
    write(MARGIN, 0.58, "Median of one run end to end, and how many times the median of wasmtime-py that is,", 10)
    write(MARGIN, 0.77, "which does the same work in one process. Each panel has its own scale.", 10)
    for column, tier in enumerate(TIERS):
        heading: list[Styled] = [(tier, INK, "bold", 11), (MEANING[tier], FAINT, "normal", 9.5)]
        place = (LEFT + column * PANEL - 6 / 72 / WIDTH, 1 - (ABOVE - 0.22) / height)
        _chain(figure.axes[0], place, "figure fraction", heading)
    figure.legend(
        handles=[Patch(color=COLOURS[phase], label=LABELS[phase]) for phase in COLOURS],
        loc="upper right",
        bbox_to_anchor=(1 - MARGIN + 0.006, 1 - 0.15 / height),
        ncols=4,
        frameon=False,
        fontsize=9.5,
        handlelength=1.0,
        handleheight=1.0,
        columnspacing=1.4,
    )
    machine = document["machine"]
    _rule(figure, BELOW / height)
    write(MARGIN, height - BELOW + 0.1, f"{machine_line(document)}, {machine['time'][:10]}", 8)
    load = f"{kind} Load average {machine['load_average']} before, {machine['load_average_after']} after."
    missing = "Not measured: a network, contention, starting processes, a cold page cache, large inputs and outputs."
    write(MARGIN, height - BELOW + 0.27, f"{load} {missing}", 8)
