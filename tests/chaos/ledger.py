"""The ledger: who was promised what, what ran, what was answered; and whether it balances. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

Gap = tuple[float, float]
"""From when to when, monotonic seconds."""


@dataclass(slots=True)
class Entry:
    """One job."""

    job: str  # id
    kind: str = ""  # "run", "map" or "detached"
    retries: int = 0
    text: str = ""  # what its output must begin with; "" for a guest that writes nothing
    expect: str = ""  # code that it must fail with, "" for none
    client: str = ""  # who asked
    asked: float = 0.0  # monotonic seconds
    accepted: bool = False  # a detached job that was acknowledged
    answered: float = 0.0  # when the first answer came, monotonic seconds; 0: none
    answers: set[tuple[Any, ...]] = field(default_factory=set)  # all different ones
    starts: list[tuple[float, int, bool]] = field(default_factory=list)  # time, attempt, again for a bad artifact
    told: int = 0  # answers
    story: list[tuple[float, str]] = field(default_factory=list)  # with times

    @property
    def code(self) -> str:
        """How the job failed; "" when it completed."""
        return str(next(iter(self.answers))[1]) if self.answers else ""


class Ledger:
    """All jobs. Lines come from the clients and the witnesses, in any order."""

    def __init__(self) -> None:
        self.jobs: dict[str, Entry] = {}
        self.duplicates: list[str] = []  # ids given twice
        self.errors: list[str] = []  # what clients could not do

    def add(self, line: list[Any], client: str = "") -> None:
        """One line: a time, what happened, the job's id, and the rest."""
        when, what, job, *rest = line
        if what == "error":
            self.errors.append(f"{when:.2f} {client}: {job}")
            return
        entry = self.jobs.setdefault(job, Entry(job))
        entry.story.append((when, f"{what} {rest} {client}"))
        if what == "asked":
            if entry.kind:
                self.duplicates.append(job)
            entry.kind, entry.retries, entry.text, entry.expect = rest
            entry.asked, entry.client = when, client
        elif what == "accepted":
            entry.accepted = True
        elif what == "started":
            entry.starts.append((when, rest[0], rest[1]))
        elif what == "answer":
            entry.told += 1
            entry.answers.add(tuple(rest))
            entry.answered = min(entry.answered or when, when)

    def problems(
        self, killed: Iterable[str], may_fail: Iterable[str], once: bool = False, ends: Sequence[Gap] = ()
    ) -> list[str]:
        """Why the ledger does not balance, each with the story of the job; [] when it does.

        ``killed`` names clients that died, which nobody answers; ``may_fail`` the codes that the monkey explains;
        with ``once`` nothing explains that any job runs twice. ``ends`` are the times from the end of a broker to the
        beginning of the next one, which counts the attempts of waiting jobs anew.
        """
        gone, allowed = set(killed), set(may_fail)
        found = [f"the id {job} was given twice" for job in self.duplicates] + self.errors
        for entry in self.jobs.values():
            if entry.kind:
                found += [
                    f"{problem}: {entry.job}\n{story(entry)}" for problem in _look(entry, gone, allowed, once, ends)
                ]
        return found


def _look(entry: Entry, gone: set[str], allowed: set[str], once: bool, ends: Sequence[Gap]) -> list[str]:
    found = []
    until = entry.answered or inf
    ended = sum(entry.asked < new and end < until for end, new in ends)
    if entry.retries == 0 and ended:
        allowed = {*allowed, "worker_lost"}  # the next broker can't know whether it had begun
    if not entry.answers and (entry.accepted or entry.client not in gone):
        found.append("an acknowledged job has no end" if entry.accepted else "a waiting job has no end")
    if len(entry.answers) > 1:
        found.append("a job has different answers")
    ran = [attempt for _, attempt, again in entry.starts if not again]
    if any(times > (1 if entry.accepted else 1 + ended) for times in Counter(ran).values()):
        found.append("one attempt began twice")
    if entry.retries == 0 and len(ran) > 1:
        found.append("a job that may run once ran more often")
    elif once and len(ran) > 1:
        found.append("a job ran again though no worker was lost")
    for state, code, begins, _, attempt, exit_code, *_ in entry.answers:
        if code == "" and not (state == "completed" and exit_code == 0 and begins == entry.text):
            found.append("a job completed with something else than its output")
        if code == "" and entry.expect:
            found.append(f"a job completed that should have failed with {entry.expect}")
        if code and code not in {*allowed, entry.expect}:
            found.append("a job failed for no reason")
        if code == "" and attempt not in ran:
            found.append("an answer is of an attempt that nobody saw begin")
    return found


def story(entry: Entry) -> str:
    """All that happened to a job, in order."""
    return "\n".join(f"    {when:10.3f}  {what}" for when, what in sorted(entry.story))
