"""One job: where its time went, what happened to it, what it wrote. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from rich.text import Text

from minilambda.client.listings import JobInfo, Status
from minilambda.client.live import Chunk
from minilambda.client.results import RunResult
from minilambda.top.words import (
    BAD,
    BUSY,
    GOOD,
    SOFT,
    STATE_STYLES,
    STRONG,
    WAIT,
    age,
    amount,
    middle,
    millis,
    printable,
    without_escapes,
)

MAX_LINES = 2000
"""Lines of output that are kept, the last ones."""

MAX_LINE = 4096
"""Characters of a line of output, at most; a longer one is broken."""

_PHASES = (
    ("queued", "░", WAIT),
    ("fetch", "▒", "blue"),
    ("compile", "▓", "magenta"),
    ("load", "▒", "cyan"),
    ("run", "█", GOOD),
    ("other", "·", SOFT),
)
"""Name, sign and style of each, in their order."""


@dataclass(frozen=True)
class Known:
    """All that is known of a job."""

    row: JobInfo  # as the list had it
    status: Status | None = None  # newer than the row, where there is one
    result: RunResult | None = None  # how it ended, for whom may see that

    @property
    def state(self) -> str:
        if self.result is not None:
            return self.result.state
        return self.row.state if self.status is None else self.status.state

    @property
    def done(self) -> bool:
        return self.state in ("completed", "failed", "cancelled")


def about(known: Known, width: int) -> list[Text]:
    """What the job is and how it stands, a few lines."""
    row, result, status = known.row, known.result, known.status
    state = known.state
    code = result.error.code if result is not None and result.error is not None else row.code
    first = Text.assemble("job ", (printable(row.job), STRONG), "  ", (state, STATE_STYLES.get(state, "")))
    if code and code != state:
        first.append(f": {printable(code)}", BAD)
    if status is not None and status.cancelling and not known.done:
        first.append(", being cancelled", WAIT)
    attempt = max(row.attempt, 0 if status is None else status.attempt)
    worker = (status.worker if status is not None else "") or row.worker
    old = row.age_ms / 1000 if status is None else status.age
    where = f"attempt {attempt}" + (f" at {printable(worker)}" if worker else "")
    names = ("principal", "function", "group", "tier")
    facts = [f"{name} {printable(value)}" for name in names if (value := getattr(row, name))]
    second = Text(" · ".join([where, f"{age(old)} old", *facts, middle(row.module, 26 if width < 120 else 71)]), SOFT)
    lines = [first, second, *_ending(result)]
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return lines


def _ending(result: RunResult | None) -> Iterator[Text]:
    if result is None:
        return
    if result.error is not None:
        yield Text(printable(result.error.message), BAD)
        for line in (result.error.backtrace or "").splitlines()[:3]:
            yield Text(printable(line), SOFT)
        return
    usage = result.usage
    used = (
        f"exit code {result.exit_code} · cpu {millis(usage.cpu_ms) or '–'} · memory {amount(usage.peak_memory_bytes)}"
    )
    value = "" if result.value is None else f" · value {printable(repr(result.value))}"
    yield Text(used + value, WAIT if result.exit_code else GOOD)


def phases(known: Known, width: int) -> list[Text]:
    """A bar of where the time went, and the same in words."""
    row, parts = known.row, dict.fromkeys((name for name, _, _ in _PHASES), 0.0)
    if known.result is not None:
        usage = known.result.usage
        total = usage.total_ms
        parts.update(
            queued=usage.queued_ms,
            fetch=usage.fetch_ms,
            compile=usage.compile_ms,
            load=usage.load_ms,
            run=usage.run_ms,
        )
    else:
        total = row.total_ms
        parts.update(queued=row.queued_ms, compile=row.compile_ms, run=row.run_ms)
        if not known.done and known.status is not None:
            total = known.status.age * 1000
            waiting = total - row.total_ms if known.state == "queued" else 0.0
            parts["queued"] = min(total, row.queued_ms + max(0.0, waiting))
    parts["other"] = max(0.0, total - sum(parts.values()))
    if not known.done:
        parts["run" if known.state == "running" else "other"] += parts.pop("other")
    bar, words = Text(no_wrap=True), Text(no_wrap=True)
    shares = _shares([parts.get(name, 0.0) for name, _, _ in _PHASES], width)
    for (name, sign, style), share in zip(_PHASES, shares, strict=True):
        bar.append(sign * share, style)
        if (spent := parts.get(name, 0.0)) >= 0.005:
            words.append(f"{'  ' if words else ''}{sign} ", style).append(f"{name} {millis(spent)}")
    words.append(f"  total {millis(total)}", STRONG)
    return [bar, words]


def _shares(values: list[float], width: int) -> list[int]:
    """Columns for each value; what is more than nothing gets one at least."""
    whole = sum(values)
    if whole <= 0 or width <= 0:
        return [0] * len(values)
    found = [max(1 if value > 0 else 0, int(value / whole * width)) for value in values]
    largest = found.index(max(found))
    found[largest] = max(0, found[largest] + width - sum(found))
    return found


def moments(status: Status | None) -> list[tuple[str, str]]:
    """What happened to it, a line each with its style."""
    if status is None or not status.story:
        return [("Its story is not known yet.", SOFT)]
    return [(f"{moment.at:10.3f} s  {printable(moment.what)}", _style(moment.what)) for moment in status.story]


def _style(what: str) -> str:
    for word, style in (("completed", GOOD), ("failed", BAD), ("cancelled", "magenta"), ("running", BUSY)):
        if what.startswith(word):
            return style
    return WAIT if what.startswith("back in") else ""


class Tail:
    """The last lines of what a job has written, of both streams."""

    def __init__(self) -> None:
        self.size = 0  # bytes that came of the attempt
        self.attempt = 0  # whose output it is; 0: none came
        self._lines: deque[tuple[str, str]] = deque(maxlen=MAX_LINES)
        self._open = {"stdout": b"", "stderr": b""}  # lines that have no end yet

    def take(self, chunk: Chunk) -> None:
        """More was written."""
        if chunk.attempt > self.attempt:
            if self.attempt:
                self._lines = deque(self.lines(), MAX_LINES)
                self._lines.append((f"— attempt {chunk.attempt}, from the beginning —", WAIT))
            self.attempt, self.size, self._open = chunk.attempt, 0, {"stdout": b"", "stderr": b""}
        self.size += len(chunk.data)
        self._add(chunk.stream, chunk.data)

    @staticmethod
    def of(result: RunResult) -> Tail:
        """That of all that an ended job wrote; its standard error comes last."""
        made = Tail()
        for stream, data in (("stdout", result.stdout), ("stderr", result.stderr)):
            made.take(Chunk(stream, data, 0, result.attempt))
        return made

    def has_all(self, result: RunResult) -> bool:
        """Whether nothing is missing of what the ended job wrote."""
        whole = len(result.stdout) + len(result.stderr)
        return not whole or (self.attempt == result.attempt and self.size == whole)

    def lines(self) -> list[tuple[str, str]]:
        """The lines with their styles."""
        rest = [(_shown(data), _STREAMS[stream]) for stream, data in self._open.items() if data]
        return [*self._lines, *rest]

    def _add(self, stream: str, data: bytes) -> None:
        *whole, rest = (self._open[stream] + data).split(b"\n")
        self._lines.extend((_shown(line), _STREAMS[stream]) for line in whole[-MAX_LINES:])
        while len(rest) > MAX_LINE:
            self._lines.append((_shown(rest[:MAX_LINE]), _STREAMS[stream]))
            rest = rest[MAX_LINE:]
        self._open[stream] = rest


_STREAMS = {"stdout": "", "stderr": WAIT}


def _shown(line: bytes) -> str:
    return without_escapes(line[-MAX_LINE:].decode("utf-8", "replace"))
