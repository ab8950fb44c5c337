"""The line of tabs, the line below the table, and the help. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.style import Style
from rich.text import Text

from minilambda.errors import JOB_CODES
from minilambda.messages import TERMINAL
from minilambda.top.sample import LISTS, Sample
from minilambda.top.watch import Watch
from minilambda.top.words import SOFT, STRONG, WAIT, counted, number, printable, short

MANY = 300
"""So many rows of a list that has more than it tells are told for sure; a shorter list is whole."""

STATES = frozenset({"queued", "assigned", "running", *TERMINAL})
"""The states of a job, and words that the broker chooses jobs by, as are the codes of failures."""

_KEYS = """\
1 2 3 4, Tab    jobs, workers, clients, functions
↑ ↓ PgUp PgDn   move; Home goes back to the top, and stays there
Enter           a job's story, phases and live output;
                the jobs of a worker, a client or a function
c               cancel the job, after a question
/               show rows with these words; a state or a code
                among them is asked of the broker
f               all jobs, queued, running, failed, …
Esc             show all rows again
< >  ← →        sort by another column; or click its head
r               the other way round
p, Space        hold the tables still
l               a tall log, a short one
d               dark or light
q               leave"""


def help_text() -> Text:
    """What the keys do."""
    text = Text("Keys\n\n", STRONG)
    return text.append(_KEYS, "not bold")


def state_asked(words: Sequence[str]) -> str:
    """The first state or code among the words of a filter, "" for none: the broker chooses jobs by it."""
    return next((word for word in words if word in STATES or word in JOB_CODES), "")


def tabs(watch: Watch, current: str, width: int) -> Text:
    """The names of the lists with their keys; a click on one shows it."""
    line = Text(no_wrap=True)
    counts = _counts(watch.latest)
    for place, name in enumerate(LISTS, 1):
        style = Style(bold=name == current, reverse=name == current, meta={"@click": f"app.tab('{name}')"})
        count = f" {counts[name]}" if counts.get(name) else ""
        line.append(f" {place} {name}{count} ", style).append(" ")
    line.truncate(width)
    return line


def _counts(latest: Sample) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in LISTS:
        rows = latest.rows(name)
        if rows is not None:
            found[name] = short(_total(replace(latest, asked=""), name) or len(rows))
    return found


def status(
    watch: Watch, current: str, shown: int, sort: str, descending: bool, words: Sequence[str], width: int
) -> Text:
    """What of a list is shown, and how."""
    latest = watch.latest
    parts = [extent(latest, current, shown)]
    if current == "jobs" and latest.asked:
        parts.append(f"asked for: {printable(latest.asked)}")
    words = [word for word in words if current != "jobs" or word != latest.asked]
    if words:
        parts.append(f"with {printable(' '.join(words))}")
    if current == "jobs" and latest.own_only:
        parts.append(f"only those of {printable(latest.principal)}")
    parts.append(f"by {sort} {'▼' if descending else '▲'}")
    line = Text(" · ".join(parts), SOFT if watch.away_since is None else WAIT, no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return line


def extent(latest: Sample, name: str, shown: int) -> str:
    """How many rows of a list are shown of how many; a list that the broker has cut says so."""
    got, total = len(latest.rows(name) or ()), _total(latest, name)
    # What the broker counts is of another moment than its list: a few more do not mean that it is cut.
    cut = total > got + got // 20 + 2 if total else got >= MANY
    what = f"{number(got)} of {number(total)} {name}" if cut and total else counted(got, name[:-1])
    if cut:
        what = f"the {'newest' if name == 'jobs' else 'first'} {what}"
    return what if shown == got else f"{number(shown)} of {what}"


def _total(latest: Sample, name: str) -> int:
    """How many rows there are at the broker; 0: not known."""
    o = latest.overview
    if o is None or (name == "jobs" and latest.asked):
        return 0
    return {"jobs": o.queued + o.running + o.kept, "workers": o.workers}.get(name, 0)
