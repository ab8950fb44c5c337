"""The page that a chaos ends with."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field

from tests.chaos.ledger import Entry, Ledger
from tests.chaos.stage import Size

AFTERMATH = 3.0
"""A job that was asked for so long after a trouble, or whose wait a trouble fell into, is a troubled one, seconds."""

SHOWN = 5  # problems that are printed in full


@dataclass
class Report:
    """What happened; times are monotonic seconds."""

    seed: int
    seconds: float  # of trouble
    no_network: str  # why workers were not parted; "" when they were
    folder: str  # logs and ledger
    began: float
    durable: bool = False  # the broker had a journal
    trouble: float = 0.0  # when the monkey came
    calm: float = 0.0  # when it left
    answered: float = 0.0  # when the last client had all its answers
    files_back: float = 0.0  # seconds from then until nobody had more of them than before
    before: dict[str, Size] = field(default_factory=dict)
    after: dict[str, Size] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    diary: list[tuple[float, str]] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    calm_workers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def page(report: Report) -> str:
    """One page: what was done, what came of it, the verdict."""
    jobs = [entry for entry in report.ledger.jobs.values() if entry.kind]
    ended = Counter(entry.code or "completed" for entry in jobs if entry.answers)
    runs = Counter(len([1 for _, _, again in entry.starts if not again]) for entry in jobs)
    lines = [
        f"chaos: seed {report.seed}, {report.seconds:g} s of trouble",
        "",
        "troubles     " + (", ".join(f"{name} {n}" for name, n in sorted(report.done.items())) or "none"),
    ]
    if report.no_network:
        lines.append(f"             nobody was parted from the broker: {report.no_network}")
    if not report.durable:
        lines.append("             the broker was left alone: it has no journal")
    lines += [
        f"jobs         {len(jobs)}: " + ", ".join(f"{n} {kind}" for kind, n in Counter(e.kind for e in jobs).items()),
        f"acknowledged {sum(entry.accepted for entry in jobs)} detached jobs; without an end: "
        + str(sum(entry.accepted and not entry.answers for entry in jobs)),
        f"ends         {', '.join(f'{code} {n}' for code, n in ended.most_common())}",
        f"answers      {sum(entry.told for entry in jobs)}, each asked for again; jobs with different ones: "
        + str(sum(len(entry.answers) > 1 for entry in jobs)),
        "runs         " + ", ".join(f"{n} jobs began {times}×" for times, n in sorted(runs.items())),
        f"             may run once: {sum(e.retries == 0 for e in jobs)} jobs; did not keep to it: "
        + str(sum(e.retries == 0 and len(e.starts) > 1 for e in jobs)),
        *_latencies(report, jobs),
        f"calm         all answers {report.answered - report.calm:.1f} s after the last trouble, files closed "
        + str(round(report.files_back, 1))
        + f" s later; then 100 jobs on {len(report.calm_workers)} workers",
        *_sizes(report),
        "",
    ]
    if not report.problems:
        return "\n".join([*lines, "The ledger balances."])
    lines += [f"THE LEDGER DOES NOT BALANCE: {len(report.problems)} problems; logs are in {report.folder}", ""]
    lines += report.problems[:SHOWN]
    lines += ["", "what the monkey did:", *(f"    {when:10.3f}  {what}" for when, what in report.diary)]
    return "\n".join(lines)


def _latencies(report: Report, jobs: list[Entry]) -> list[str]:
    """Of jobs that one client waited for, their own time taken off as far as it is known: round trips."""
    times = [when for when, _ in report.diary]
    groups: dict[str, list[float]] = {"in peace": [], "in trouble": []}
    for entry in jobs:
        if entry.kind == "run" and entry.answered and not entry.expect and entry.text:
            near = any(entry.asked - AFTERMATH < when < entry.answered for when in times)
            groups["in trouble" if near else "in peace"].append((entry.answered - entry.asked) * 1000)
    found = []
    for name, waits in groups.items():
        if len(waits) > 1:
            cuts = statistics.quantiles(waits, n=100, method="inclusive")
            text = f"median {cuts[49]:.0f} ms, 99 of 100 within {cuts[98]:.0f} ms, longest {max(waits):.0f} ms"
            found.append(f"round trips  {name}: {text} ({len(waits)} jobs, their guests sleep 0 to 200 ms)")
    return found


def _sizes(report: Report) -> list[str]:
    found = []
    for name, now in sorted(report.after.items()):
        if name in report.before:
            then = report.before[name]
            grown = f"{then.kib / 1024:.0f} → {now.kib / 1024:.0f} MiB, {then.files} → {now.files} files"
            found.append(f"{'size' if not found else '':<12} {name}: {grown}")
    return found
