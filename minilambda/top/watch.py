"""What top knows of a cluster, and what has changed in it since the last look. Pure: it is handed the time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from minilambda.client.listings import Cluster, JobInfo, Overview, WorkerInfo
from minilambda.errors import sentence_for
from minilambda.top.sample import Sample
from minilambda.top.words import BAD, GOOD, SOFT, WAIT, counted, middle, printable, tally

KEPT = 600
"""Points of the charts, at most."""

EACH = 5
"""Changes of one kind that are told one by one in a round; the others are counted."""

_REMEMBERED = 20_000  # failed jobs that were told already


class Note(NamedTuple):
    """A line for the log."""

    text: str
    style: str


class Watch:
    """The newest answer to each question, and short histories."""

    def __init__(self) -> None:
        self.latest = Sample(0.0)  # of each list the last that came
        self.away_since: float | None = None  # no answer since; None: the broker answers
        self.trouble = ""  # why there is none
        self.rate: float | None = None  # jobs that end a second; None: not known
        self.rates: deque[float] = deque(maxlen=KEPT)  # the same, one a round
        self.queue: deque[float] = deque(maxlen=KEPT)  # jobs in the broker's queue, one a round
        self._measured: tuple[float, Overview] | None = None  # the last overview, and when it came
        self._overview_at = 0.0  # when the last one came, also one from before the broker was away
        self._workers: dict[str, WorkerInfo] | None = None  # by id; None: not known yet
        self._failed: dict[tuple[str, str], None] = {}  # failed jobs that were told, oldest first
        self._asked: str | None = None  # what the last list of jobs was about; None: there was none

    # --- events ---------------------------------------------------------------------------------------

    def take(self, sample: Sample) -> list[Note]:
        """A round of answers has come; what it tells of new."""
        notes = self._back(sample)
        self.away_since, self.trouble = None, ""
        told: Counter[str] = Counter()
        if sample.jobs is not None:
            notes += self._jobs(sample.jobs, sample.asked, told)
        if sample.overview is not None:
            notes += self._overview(sample.overview, sample.at, told)
        if sample.cluster is not None:
            notes += self._cluster(sample.cluster, sample.overview)
        old = self.latest
        self.latest = replace(
            sample,
            overview=sample.overview or old.overview,
            cluster=sample.cluster or old.cluster,
            jobs=old.jobs if sample.jobs is None else sample.jobs,
            asked=old.asked if sample.jobs is None else sample.asked,
            clients=old.clients if sample.clients is None else sample.clients,
            functions=old.functions if sample.functions is None else sample.functions,
        )
        return notes

    def away(self, since: float, reason: str) -> list[Note]:
        """The broker did not answer a round of questions that began at ``since``."""
        first = self.away_since is None
        if first:
            self.away_since = since
            self._measured = self.rate = None
        self.trouble = printable(reason)
        return [Note(f"the broker is away: {self.trouble}", BAD)] if first else []

    # --- what is new ----------------------------------------------------------------------------------

    def _back(self, sample: Sample) -> list[Note]:
        if self.away_since is None:
            return []
        if not self.latest.at:
            return [Note("the broker is there", GOOD)]
        return [Note(f"the broker is back after {sample.at - self.away_since:.0f} s", GOOD)]

    def _overview(self, new: Overview, at: float, told: Counter[str]) -> list[Note]:
        old = self.latest.overview
        notes = []
        if old is not None and (new.up_ms < old.up_ms or new.up_ms / 1000 < at - self._overview_at):
            notes.append(Note("the broker was restarted; its counts begin anew", WAIT))
            self._measured = old = None
        if self._measured is not None and at > self._measured[0]:
            then, before = self._measured
            ended = sum(new.outcomes.values()) - sum(before.outcomes.values())
            self.rate = max(0, ended) / (at - then)
            self.rates.append(self.rate)
        self._measured, self._overview_at = (at, new), at
        self.queue.append(new.queued)
        if old is None:
            return notes
        failed = Counter(new.outcomes) - Counter(old.outcomes) - told
        for quiet in ("completed", "cancelled"):
            failed.pop(quiet, None)
        if failed:
            more = " more" if told else ""
            notes.append(Note(f"{counted(failed.total(), f'{more} job'.strip())} failed: {tally(failed, 5)}", BAD))
        wrong = Counter(new.rejected) - Counter(old.rejected)
        if wrong:
            notes.append(Note(f"the broker turned down {tally(wrong, 5)}", WAIT))
        return notes

    def _jobs(self, jobs: list[JobInfo], asked: str, told: Counter[str]) -> list[Note]:
        """Jobs that failed since the last look. Those that a list of others shows first are old news."""
        fresh: list[JobInfo] = []
        for job in jobs:
            if job.state == "failed" and (job.principal, job.job) not in self._failed:
                self._failed[job.principal, job.job] = None
                fresh.append(job)
        for key in list(self._failed)[: max(0, len(self._failed) - _REMEMBERED)]:
            del self._failed[key]
        if self._asked != asked:
            self._asked, fresh = asked, []
        notes = []
        for job in fresh[:EACH][::-1]:
            told[job.code] += 1
            where = f" at {printable(job.worker)}" if job.worker else ""
            what = f"job {middle(printable(job.job), 16)} failed{where}: {printable(job.code)}"
            notes.append(Note(f"{what}. {sentence_for(printable(job.code))}", BAD))
        if self.latest.overview is None and len(fresh) > EACH:  # else the broker's own counts tell
            codes = Counter(job.code for job in fresh[EACH:])
            notes.append(Note(f"{counted(codes.total(), 'more job')} failed: {tally(codes, 5)}", BAD))
        return notes

    def _cluster(self, cluster: Cluster, overview: Overview | None) -> list[Note]:
        old, new = self._workers, {each.id: each for each in cluster.workers}
        self._workers = new
        total = len(new) if overview is None else overview.workers
        if old is None:
            return [Note(f"{counted(total, 'worker')} there", SOFT)]
        if total > len(new):  # the list is cut: who is missing in it need not be gone
            return []
        joined = [_joined(worker) for key, worker in new.items() if key not in old]
        gone = [_gone(worker) for key, worker in old.items() if key not in new]
        changed = [note for key, worker in new.items() if key in old and (note := _changed(old[key], worker))]
        return [*_some(gone, "left"), *_some(joined, "joined"), *_some(changed, "changed")]


def _joined(worker: WorkerInfo) -> Note:
    return Note(f"worker {printable(worker.name)} joined, with {counted(worker.slots, 'slot')}", GOOD)


def _gone(worker: WorkerInfo) -> Note:
    if worker.state == "draining":
        return Note(f"worker {printable(worker.name)} has left, drained", SOFT)
    had = f" with {counted(worker.queue, 'job')}" if worker.queue else ""
    return Note(f"worker {printable(worker.name)} is gone{had}", BAD)


def _changed(old: WorkerInfo, new: WorkerInfo) -> Note | None:
    name = printable(new.name)
    if "lost" in (old.state, new.state) and old.state != new.state:
        return Note(f"worker {name} is lost", BAD) if new.state == "lost" else Note(f"worker {name} is back", GOOD)
    if new.state == "draining" != old.state:
        return Note(f"worker {name} drains: it takes nothing new", WAIT)
    return None


def _some(notes: list[Note], what: str) -> Iterator[Note]:
    yield from notes[:EACH]
    if len(notes) > EACH:
        yield Note(f"{counted(len(notes) - EACH, 'more worker')} {what}", notes[-1].style)
