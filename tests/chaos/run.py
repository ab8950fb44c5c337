"""One chaos from warm-up to verdict."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections import Counter
from pathlib import Path

from minilambda.errors import MinilambdaError
from tests.chaos.guests import nap
from tests.chaos.ledger import Entry, Ledger
from tests.chaos.load import NAPS, told
from tests.chaos.monkey import Monkey
from tests.chaos.network import Network
from tests.chaos.report import Report
from tests.chaos.stage import Size, Stage
from tests.cluster import descendants, living
from tests.integration.guests import slow_to_compile

BRIEF = 30.0  # a chaos of fewer seconds has no troubles with long consequences
PEACE = 3.0  # load without trouble, seconds
CALM = 60.0  # every client must have its answers so long after the last trouble, seconds
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
FILES_BACK = 45.0  # a connection without a FIN is noticed by TCP keepalive after 30 s, seconds
MODULES = 20  # more than all modules of a chaos
KIB_BROKER, KIB_JOB, KIB_AGENT = 40_000, 6, 30_000
"""Resident memory may grow by so much: the broker by a constant and so much a kept job, an agent by a constant."""


def chaos(
    report: Report, folder: Path, network: Network | None, workers: int, clients: int, *, every: float, only: set[str]
) -> None:
    """Run it all and write what happened into the report."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)  # what outlives its parent becomes our child: see ``_orphans``
    stage = Stage(folder, report.seed, workers, clients, network)
    monkey = Monkey(stage, report.seed, only, brief=report.seconds < BRIEF)
    try:
        _play(stage, monkey, report, every)
    except (AssertionError, MinilambdaError) as problem:
        report.problems += [str(problem), *stage.complaints()]
    finally:
        stage.kill()
    report.diary, report.done, report.durable = monkey.diary, monkey.done, stage.durable


def _play(stage: Stage, monkey: Monkey, report: Report, every: float) -> None:
    stage.start_broker()
    for seat in range(stage.seats["worker"]):
        stage.start_worker(seat)
    stage.wait_ready()
    _warm_up(stage)
    report.before = stage.sizes()
    for _ in range(stage.seats["client"]):
        stage.start_load()
    time.sleep(PEACE)
    report.trouble = time.monotonic()
    monkey.rage(report.seconds, every)
    monkey.rest()
    report.calm = time.monotonic()
    report.problems += stage.retire_loads(CALM)
    stage.wait_ready()
    report.answered = time.monotonic()
    ledger = report.ledger = Ledger()
    for author, line in stage.notes():
        ledger.add(line, author)
    _ask_again(stage, ledger, bool({"broker killed", "broker told to stop"} & set(monkey.done)))
    _work_in_calm(stage, report)
    report.problems += ledger.problems(
        [load.name for load in stage.past], monkey.explained, monkey.lost_nobody, monkey.ends
    )
    report.after = _settled(stage, report)
    report.problems += _grown(report)
    report.problems += stage.stop() + stage.complaints()
    report.problems += [f"{pid} outlived its parent: {name}" for pid, name in _orphans()]


def _warm_up(stage: Stage) -> None:
    """Every worker gets every module that all clients share, and the broker sends something large once."""
    with stage.connect() as client:
        client.run(slow_to_compile(9))
        for ms in sorted(set(NAPS)):
            list(client.map(nap(ms), [{"stdin": f"warm-{n}"} for n in range(50)]))


def _ask_again(stage: Stage, ledger: Ledger, forgetful: bool) -> None:
    """Every answer once more, and the first one of jobs whose client did not wait."""
    with stage.connect() as client:
        for entry in list(ledger.jobs.values()):
            if not entry.kind or not (entry.accepted or entry.answers):
                continue
            try:
                result = client.job(entry.job).result(20, check=False)
            except (MinilambdaError, TimeoutError) as error:
                gone = getattr(error, "code", "") in ("not_found", "expired")
                if not (gone and forgetful and not entry.accepted):
                    ledger.errors.append(
                        f"{entry.job} can't be asked for: {type(error).__name__} {error}{_told(entry)}"
                    )
            else:
                ledger.add([time.monotonic(), "answer", entry.job, *told(result)], "at the end")


def _told(entry: Entry) -> str:
    return f" ({entry.kind}, answers so far: {entry.answers})"


def _work_in_calm(stage: Stage, report: Report) -> None:
    """What was so troubled works as if nothing had been."""
    with stage.connect() as client:
        inputs = [{"stdin": f"calm-{n}"} for n in range(100)]
        results = list(client.map(nap(5), inputs, check=False))
    bad = [told(result) for n, result in enumerate(results) if told(result)[:3] != ("completed", "", f"calm-{n}")]
    if bad:
        report.problems.append(f"in the calm after it all, jobs ended like this: {bad[:3]}")
    report.calm_workers = Counter(result.worker for result in results)


def _settled(stage: Stage, report: Report) -> dict[str, Size]:
    """The sizes, or those after some time where there is still more than before.

    The broker closes what it had for the dead, and workers keep a module until they have better code of it.
    """
    end = time.monotonic() + FILES_BACK
    while True:
        sizes = stage.sizes()
        more = [name for name, before in report.before.items() if name in sizes and _more(name, before, sizes[name])]
        if not more or time.monotonic() > end:
            report.files_back = time.monotonic() - report.answered
            return sizes
        time.sleep(0.2)


def _grown(report: Report) -> list[str]:
    problems = []
    kept = len(report.ledger.jobs)
    for name, now in report.after.items():
        before = report.before.get(name)
        if before is None:
            continue
        allowed = KIB_BROKER + KIB_JOB * kept if name == "broker" else KIB_AGENT
        if more := _more(name, before, now):
            problems.append(f"{name} had and has files of these kinds: {more}")
        if now.kib > before.kib + allowed:
            problems.append(f"{name} takes {now.kib} KiB and took {before.kib}; {kept} jobs explain {allowed} more")
    return problems


def _more(name: str, before: Size, now: Size) -> dict[str, tuple[int, int]]:
    """The kinds of files that have become more: how many there were and are."""
    then = dict(before.kinds)
    more = {kind: (then.get(kind, 0), has) for kind, has in now.kinds if has > then.get(kind, 0)}
    if name != "broker":
        more = {kind: found for kind, found in more.items() if not _artifact(kind) or found[1] > MODULES}
    return more


def _artifact(kind: str) -> bool:
    """An agent keeps the artifacts of the modules that its runners have loaded."""
    return "memfd:artifact" in kind or kind.endswith("/cache")


def _orphans(seconds: float = 5.0) -> list[tuple[int, str]]:
    """Processes of the chaos that live on though what started them is gone, after a moment to die in."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = living(descendants(os.getpid()))
        if not left or time.monotonic() > end:
            return [(pid, Path(f"/proc/{pid}/comm").read_text().strip()) for pid, _ in left]
        time.sleep(0.05)
