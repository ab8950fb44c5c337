"""Measure what a job costs the broker with ten thousand workers, and with a million jobs in its queue."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import command
import harness
import scale_broker
from harness import Answer, Table
from local_cluster import ClusterFailed
from report import micros, ratio, size

USAGE = """Measure what a job costs the broker with many workers and with a long queue, and how it comes back.

Usage:
  scale.py [--quick] [--only=<parts>] [--json=<path>]
  scale.py (-h | --help)

Options:
  --quick         Up to 1,000 workers at the real broker, 100,000 jobs in the queue; under a minute.
                  Without it: up to 10,000 workers and 1,000,000 jobs, about five minutes, 1 GB of memory.
  --only=<parts>  Some of workers, queue, broker, restart, with commas between.
  --json=<path>   Write machine and figures to this file.
  -h --help       Show this.

  workers  the broker's core and codec alone, without a socket: all work of a job, by number of workers
  queue    the same, by number of jobs in the queue; memory of each
  broker   a real broker with simulated workers, each with a connection of its own, that do each job at once
  restart  the broker is killed and started again at once: how long until all workers are registered?
"""

MOST = 1.3  # times the cost of a job with few workers or a short queue
JOB_BYTES = 1500  # of a queued job, at most
COMEBACK = 2.0  # times the time in proportion to the number of workers
NOT_MEASURED = [
    "a network: simulated workers, client and broker are on this machine and share its processors",
    "guests: the simulated workers answer at once, so the broker is the only one that works",
    "in workers and queue, the socket: receiving and sending cost the same for each message, in the IO thread too",
    "the journal: jobs are those of waiting clients, which are not written down; in restart, registrations are",
    "large inputs and outputs, which move between few peers at a time",
]


def core(**order: Any) -> dict[str, Any]:
    """Ask ``scale_core.py``, in a new process. Raises ``ClusterFailed``."""
    script = Path(__file__).with_name("scale_core.py")
    done = subprocess.run([sys.executable, str(script), json.dumps(order)], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise ClusterFailed(f"scale_core.py ended with {done.returncode}; see its traceback above.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- the parts: figures, a table, answers ------------------------------------------------------------

Part = tuple[Any, Table, list[Answer]]


def workers(quick: bool) -> Part:
    rows = core(ask="workers", sizes=[10, 100, 1000, 10_000], turns=200 if quick else 1500)["rows"]
    table = Table(
        "All work of the broker's core and codec for one job, by workers (processor time)",
        ("workers", "jobs", "median", "mean", "times 10", "cold", "times 10", "a report"),
        [
            (
                _count(row["workers"]),
                _count(row["jobs"]),
                micros(row["us"]),
                micros(row["mean_us"]),
                ratio(row["times"]),
                micros(row["cold_us"]),
                ratio(row["cold_times"]),
                micros(row["report_us"]),
            )
            for row in rows
        ],
        "A job: its request and its result decoded, accepted, placed, dispatched, ended, answered, forgotten; timers. "
        "Workers of 1 to 8 slots are 60 % busy with jobs of 20 modules; ends come at random; 25,000 results are kept. "
        "cold: other work has used the processor's caches before each message, as it does where there is no loop. "
        "Each worker has had each module before. times 10: median of pairs of turns, one of 10 right before the other.",
    )
    answers = []
    for key, times, how in (("us", "times", "in a loop"), ("cold_us", "cold_times", "caches cold")):
        few, many = rows[0][key], rows[-1][key]
        question = f"core and codec per job, {how}, 10,000 workers against 10"
        figure = f"{micros(many)} with 10,000, {micros(few)} with 10"
        answers.append(harness.at_most(question, figure, rows[-1][times], MOST))
    return rows, table, answers


def queue(quick: bool) -> Part:
    sizes = [1000, 100_000] if quick else [1000, 100_000, 1_000_000]
    turns = 400 if quick else 2000
    rows = [core(ask="queue", size=each, turns=turns, own=False) for each in sizes]
    own = core(ask="queue", size=100_000, turns=10, own=True)["bytes_per_job"]
    few, many = rows[0], rows[-1]
    table = Table(
        "All work of the broker's core and codec for one job, by jobs in the queue (processor time)",
        ("queued", "accepted, first to last", "longest", "in and out", "mean", "memory each"),
        [
            (
                _count(row["queued"]),
                micros(row["accept_us"]),
                f"{row['longest_ms']:.1f} ms",
                micros(row["us"]),
                micros(row["mean_us"]),
                size(row["bytes_per_job"]),
            )
            for row in rows
        ],
        "accepted: mean while the queue is filled; longest: one message then, Python's own housekeeping included. "
        "in and out: one job comes in at the end, one ends and the next is dispatched. memory: resident. Each job has "
        f"a waiting client, an id of 32 characters, no input; one with arguments and limits of its own: {size(own)}.",
    )
    question, each = f"{_count(sizes[-1])} queued against 1,000", max(row["bytes_per_job"] for row in rows)
    answers = [
        harness.at_most(f"a job in and out, {question}", micros(many["us"]), many["us"] / few["us"], MOST),
        harness.at_most(f"accepting a job, {question}", *_against(many, few, "accept_us"), MOST),
        Answer("memory of a queued job", size(each), None, f"≤ {size(JOB_BYTES)}", each <= JOB_BYTES),
        Answer("memory of a queued job with arguments and limits of its own", size(own)),
    ]
    return {"rows": rows, "bytes_per_job_with_arguments": own}, table, answers


def broker(quick: bool) -> Part:
    sizes = [10, 1000] if quick else [10, 100, 1000, 10_000]
    rows = [scale_broker.work(each, 4000 if quick else 20_000) for each in (*sizes, sizes[0])]
    rows[0]["us"] = round(statistics.fmean((rows[0]["us"], rows.pop()["us"])), 1)  # before and after the others
    for row in rows:
        row["alive_share"] = scale_broker.alive(row["workers"], 2.0 if quick else 5.0)
    few, many = rows[0]["us"], rows[-1]["us"]
    table = Table(
        "A real broker and its simulated workers (the broker's processor time)",
        ("workers", "a job", "main", "IO", "times 10", "jobs/s", "all idle, of a core", "memory each"),
        [
            (
                _count(row["workers"]),
                micros(row["us"]),
                micros(row["main_us"]),
                micros(row["io_us"]),
                ratio(row["us"] / few),
                _count(row["jobs_per_s"]),
                f"{row['alive_share']:.1%}",
                size(row["connection_bytes"]),
            )
            for row in rows
        ],
        "One client keeps 64 jobs under way; workers report once a minute then: jobs alone are in it. all idle: "
        "reports once a second, and nothing else. memory: of a connection and its worker. jobs/s: all on one machine.",
    )
    most = _count(sizes[-1])
    figure = f"{micros(many)} with {most}, {micros(few)} with 10"
    answers = [
        harness.at_most(f"a real broker's work per job, {most} connected against 10", figure, many / few, MOST),
        Answer(f"{most} idle workers that report once a second", f"{rows[-1]['alive_share']:.0%} of a core"),
    ]
    return rows, table, answers


def restart(quick: bool) -> Part:
    sizes = [100, 1000] if quick else [100, 1000, 10_000]
    rows = [scale_broker.restart(each, 1 if quick else 3) for each in sizes]
    back = [statistics.median(row["back_s"]) for row in rows]
    table = Table(
        "A broker with a journal is killed and started again at the same address at once",
        ("workers", "first registration", "all back after", "broker's processor time", "registrations each"),
        [
            (
                _count(row["workers"]),
                f"{row['first_s']:.2f} s",
                f"{seconds:.2f} s",
                f"{statistics.median(row['broker_cpu_s']):.2f} s",
                f"{row['sessions_each']:.3f}",
            )
            for row, seconds in zip(rows, back, strict=True)
        ],
        "From the moment when the new broker listens. First registration: from the start of the simulated workers. "
        "The pauses before a worker connects again, up to 2 s and drawn at random, are in it, and so is the processor "
        "time of the simulated workers: with 10,000 of them most of it, where they share two cores with the broker.",
    )
    answers = []
    for row, seconds in zip(rows[1:], back[1:], strict=True):
        times = row["workers"] // sizes[0]
        question = f"{_count(row['workers'])} workers back after a restart, against {times} times 100"
        figure = f"{seconds:.2f} s, 100 in {back[0]:.2f} s"
        answers.append(harness.at_most(question, figure, seconds / (times * back[0]), COMEBACK))
    return rows, table, answers


def _against(many: dict[str, Any], few: dict[str, Any], key: str) -> tuple[str, float]:
    return micros(many[key]), many[key] / few[key]


def _count(number: float) -> str:
    return f"{number:,.0f}"


PARTS = {"workers": workers, "queue": queue, "broker": broker, "restart": restart}


def measure(args: dict[str, Any]) -> dict[str, Any]:
    """Run the parts that were asked for; the document."""
    begun, described, quick = time.monotonic(), harness.machine(), args["--quick"]
    chosen = list(PARTS) if args["--only"] is None else [name.strip() for name in args["--only"].split(",")]
    if unknown := [name for name in chosen if name not in PARTS]:
        raise ValueError(f"--only: there is no {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    if {"broker", "restart"} & set(chosen):
        scale_broker.allow_files(4_000 if quick else 12_000)
    results: dict[str, Any] = {}
    tables: list[Table] = []
    answers: list[Answer] = []
    with command.console.status("starting") as status:
        for name in chosen:
            status.update(f"scale: {name}")
            results[name], table, found = PARTS[name](quick)
            tables.append(table)
            answers += found
    return harness.document(
        "scale",
        quick,
        begun,
        described,
        answers=answers,
        tables=tables,
        not_measured=NOT_MEASURED,
        results=results,
    )


if __name__ == "__main__":
    command.main(USAGE, measure)
