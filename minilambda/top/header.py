"""The lines at the top: how the broker does. Pure."""

from __future__ import annotations

from collections import Counter

from rich.text import Text

from minilambda.client.listings import Latency, Overview
from minilambda.top.sample import Sample
from minilambda.top.watch import Watch
from minilambda.top.words import (
    BAD,
    BUSY,
    GOOD,
    SOFT,
    STRONG,
    WAIT,
    age,
    amount,
    bar,
    counted,
    number,
    printable,
    short,
    sparkline,
    tally,
)

LINES = 5
"""Lines of it."""

_WIDE = 120  # columns of a terminal from which on there is more to say


def head(
    watch: Watch, endpoint: str, width: int, now: float, *, paused: bool = False, charts: bool = True
) -> list[Text]:
    """The lines, none of them wider than ``width``; ``now`` is of the clock of ``Watch``."""
    latest = watch.latest
    lines = [_first(watch, endpoint, width, now, paused)]
    overview = latest.overview
    if overview is None:
        lines += _without(latest, watch)
    else:
        lines += [
            _load(overview, width),
            _charts(watch, overview, width if charts else 0),
            _outcomes(overview, width),
            _latency(overview.tiers, width),
        ]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def _first(watch: Watch, endpoint: str, width: int, now: float, paused: bool) -> Text:
    latest = watch.latest
    who = latest.greeting or (latest.overview.broker if latest.overview is not None else "minilambda")
    line = Text.assemble((printable(who), STRONG), (f" at {endpoint}", SOFT))
    if latest.overview is not None:
        line.append(f"  up {age(latest.overview.up_ms / 1000)}")
    if watch.away_since is not None:
        state = Text(f"● away for {age(now - watch.away_since)}, trying", f"{STRONG} {BAD}")
    elif not latest.at:
        state = Text("○ connecting", WAIT)
    elif paused:
        state = Text("■ paused", WAIT)
    else:
        state = Text("● live", GOOD)
    room = width - state.cell_len - 1
    line.truncate(max(0, room), overflow="ellipsis")
    line.append(" " * max(1, width - state.cell_len - line.cell_len))
    return line.append_text(state)


def _load(o: Overview, width: int) -> Text:
    share = o.running / o.slots if o.slots else 0.0
    workers = Text(counted(o.workers, "worker"), "" if o.workers else BAD)
    parts = [
        workers,
        Text.assemble(
            "load ",
            (bar(share, 10 if width < _WIDE else 24), GOOD if share <= 1 else BUSY),
            f" {number(o.running)}/{counted(o.slots, 'slot')}",
        ),
        Text(f"{number(o.queued)} queued", WAIT if o.queued else ""),
        Text(f"{number(o.kept)} kept"),
    ]
    if width >= _WIDE:
        parts += [
            Text(f"{number(o.accepted)} accepted so far"),
            Text(f"{counted(o.modules, 'module')}, {amount(o.store_bytes)}"),
        ]
    return _joined(parts)


def _charts(watch: Watch, overview: Overview, width: int) -> Text:
    """Jobs that end a second and those that wait, with their latest history; without it where ``width`` is 0."""
    rate = "–" if watch.rate is None else short(watch.rate)
    queued = short(overview.queued)
    left, right = f"ended/s {rate:>6} ", f"queue {queued:>6} "
    room = max(0, (width - len(left) - len(right) - 2) // 2)
    return Text.assemble(
        left,
        (sparkline(watch.rates, room), GOOD),
        "  ",
        right,
        (sparkline(watch.queue, room, 8), WAIT),
    )


def _outcomes(overview: Overview, width: int) -> Text:
    outcomes = dict(overview.outcomes)
    completed = outcomes.pop("completed", 0)
    line = Text.assemble("ended ", (f"{number(completed)} completed", GOOD))
    rest = tally(outcomes, 3 if width < _WIDE else 7)
    if rest:
        line.append(", ").append(rest, BAD)
    wrong = tally(overview.rejected, 2 if width < _WIDE else 5)
    if wrong and width >= _WIDE:
        line.append(" · rejected ", SOFT).append(wrong, WAIT)
    return line


def _latency(tiers: tuple[Latency, ...], width: int) -> Text:
    if not any(each.count for each in tiers):
        return Text("p50/p99  no job has ended yet", SOFT)
    parts = []
    for each in tiers:
        if each.count:
            of = f" of {number(each.count)}" if width >= _WIDE else ""
            part = Text.assemble((f"{printable(each.tier)} ", SOFT), _pair(each.p50_ms, each.p99_ms), (of, SOFT))
            parts.append(part)
    return Text("p50/p99  ").append_text(_joined(parts))


def _pair(p50: float, p99: float) -> str:
    half, most = (("ms", each) if each < 9_950 else ("s", each / 1000) for each in (p50, p99))
    first = _figure(half[1]) if half[0] == most[0] else f"{_figure(half[1])} {half[0]}"
    return f"{first}/{_figure(most[1])} {most[0]}"


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _without(latest: Sample, watch: Watch) -> list[Text]:
    """What there is to say for a key that may not see the broker as a whole."""
    if not latest.at:
        return [Text(watch.trouble or "Waiting for the broker's first answer.", SOFT), *(Text() for _ in range(3))]
    states = Counter(job.state for job in latest.jobs or ())
    own = f"jobs of {printable(latest.principal)}: {tally(states) or 'none'}"
    return [
        Text("The broker as a whole is not for this key.", WAIT),
        Text(printable(latest.refused.get("overview", "")), SOFT),
        Text(own),
        Text(),
    ]


def _joined(parts: list[Text]) -> Text:
    line = Text()
    for part in parts:
        line.append(" · " if line else "", SOFT).append_text(part)
    return line
