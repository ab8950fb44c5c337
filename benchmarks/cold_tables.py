"""The figures of the cold-start benchmark as tables and answers."""

from __future__ import annotations

import statistics
from typing import Any

import harness
from harness import Answer, Table
from report import milliseconds, ratio, size

PHASES = {
    "client": "client and broker: hash and upload of a new module, request, reply",
    "hops": "broker, worker and runner: messages between them, output, bookkeeping",
    "wait": "in a queue, and for a compiler process",
    "fetch": "the module's bytes, broker to worker",
    "compile": "wasm to machine code",
    "load": "artifact into the runner",
    "run": "the guest, instantiation included",
}
"""What each phase is. All but the first two are what ``usage`` of the result says."""

NOT_MEASURED = [
    "a network: all processes are on this machine, over its loopback interface",
    "contention: one job at a time, nothing else is in the queue",
    "the start of a broker, a worker, a client or a Python interpreter",
    "a cold page cache: artifacts on disk were written minutes ago and are in memory",
    "large inputs and outputs, and throughput",
]

DISK_OVER_WARM_MS = 1.0  # a small module from disk may take so much longer than warm
DISK_TO_WARM = 1.15  # a large one so many times as long
NEVER_SEEN_TO_BARE = {"hello-c": 0.5, "py-component": 0.4, "cpython": 0.4}  # over the bare Cranelift compile
Rows = list[dict[str, Any]]


def tables(results: Rows, absent: list[str], compilers: Rows | str) -> list[Table]:
    """All that is shown."""
    return [_latencies(results, absent), _breakdown(results), _compilers(compilers)]


def answers(results: Rows, absent: list[str]) -> list[Answer]:
    """What the figures say to the questions. Two figures are compared round by round; the answer is the median."""
    rows = {(row["module"], row["tier"]): row for row in results}
    found: list[Answer] = []
    for name in dict.fromkeys(row["module"] for row in results):
        found += [
            _from_disk(rows[name, "under way"], rows[name, "… then warm"], "jobs under way", "warm"),
            _from_disk(rows[name, "on disk"], rows[name, "rested"], "after a rest", "warm after the same rest"),
            _from_disk(rows[name, "on disk"], rows[name, "warm"], "after a rest", "warm in a loop"),
            _from_nothing(rows[name, "never seen"]),
        ]
    return found + [Answer(f"cold start of {name}", "not measured: run `make guests`") for name in absent]


def _from_disk(disk: dict[str, Any], warm: dict[str, Any], when: str, other: str) -> Answer:
    pairs = [*zip(disk["minilambda"]["rounds_ms"], warm["minilambda"]["rounds_ms"], strict=True)]
    question = f"artifact on disk, fresh worker, {when}: {disk['title']}"
    cold, hot = (milliseconds(row["minilambda"]["median_ms"]) for row in (disk, warm))
    figure = f"{cold} ms, {other} {hot} ms"
    ratio = statistics.median(cold / hot for cold, hot in pairs)
    if disk["large"]:
        return harness.at_most(question, figure, ratio, DISK_TO_WARM)
    over = statistics.median(cold - hot for cold, hot in pairs)
    limit = f"≤ {other} + {DISK_OVER_WARM_MS:g} ms"
    return Answer(question, f"{figure}: {over:+.2f} ms", round(ratio, 3), limit, over <= DISK_OVER_WARM_MS)


def _from_nothing(seen: dict[str, Any]) -> Answer:
    ours, theirs = seen["minilambda"], seen["wasmtime_py"]
    question = f"never seen, against the bare Cranelift compile: {seen['title']}, {size(seen['wasm_bytes'])}"
    bare = theirs["compile_rounds_ms"]
    figure = f"{milliseconds(ours['median_ms'])} ms / {milliseconds(statistics.median(bare))} ms"
    ratio = statistics.median(mine / other for mine, other in zip(ours["rounds_ms"], bare, strict=True))
    limit = NEVER_SEEN_TO_BARE.get(seen["module"])
    if limit is None:
        return Answer(question, figure, round(ratio, 3))
    return harness.at_most(question, figure, ratio, limit)


def _latencies(results: Rows, absent: list[str]) -> Table:
    columns = ("module", "tier", "code by", "samples", "median", "p99", "best")
    rows = []
    for row in results:
        first = row["tier"] == "never seen"
        rows.append(
            [
                f"{row['title']}, {size(row['wasm_bytes'])}" if first else "",
                row["tier"],
                ", ".join(row["compilers"]),
                str(row["minilambda"]["count"]),
                *_figures(row["minilambda"]),
                *_figures(row["wasmtime_py"]),
                ratio(row["ratio"]),
            ]
        )
    theirs = ("wasmtime-py median", "p99", "best", "ratio")
    rows += [[f"{name}: not there, run `make guests`", *[""] * 10] for name in absent]
    note = (
        "p99 in parentheses: under 100 samples, so it is the largest of them. best: the run that the rest of the "
        "machine disturbed least. ratio: of the medians. wasmtime-py: engine and linker are made once, output goes to "
        "a file in memory, no limits, no sandbox around it. Outputs are checked, and so is the tier. on disk, rested: "
        "all processes have slept for a tenth of a second before the run, so its code and data are in no near cache "
        "of the processors; warm: they have not. under way: jobs have run one after another, on another worker, up "
        "to a moment before. Medians are those of all samples; the answers compare within each round, and are the "
        "medians of that."
    )
    return Table("What a client waits, end to end (milliseconds)", (*columns, *theirs), rows, note, 3)


def _figures(side: dict[str, Any]) -> tuple[str, str, str]:
    """Median, p99 and best. With under 100 samples the p99 is the largest of them, which the parentheses say."""
    tail = milliseconds(side["p99_ms"])
    return (
        milliseconds(side["median_ms"]),
        tail if side["count"] >= 100 else f"({tail})",
        milliseconds(side["min_ms"]),
    )


def _breakdown(results: Rows) -> Table:
    rows = []
    for row in results:
        for label, key in (("minilambda", "minilambda"), ("wasmtime-py", "wasmtime_py")):
            first = row["tier"] == "never seen" and key == "minilambda"
            spent = row[key]["phases_ms"]
            cells = [milliseconds(spent[name]) if spent.get(name) else "-" for name in PHASES]
            rows.append([row["module"] if first else "", row["tier"] if key == "minilambda" else "", label, *cells])
    note = "\n".join(f"{name:8} {meaning}" for name, meaning in PHASES.items())
    title = "Where it goes, in a run around the median (milliseconds)"
    return Table(title, ("module", "tier", "", *PHASES), rows, note, 3)


def _compilers(found: Rows | str) -> Table:
    columns = ("module", "compiler", "samples", "median", "bare Cranelift compile", "ratio")
    title = "Never seen, by the worker's --compiler (milliseconds)"
    if isinstance(found, str):
        return Table(title, columns, [[found, *[""] * 5]], "", 2)
    rows = []
    for row in found:
        figures = (
            [str(row["count"]), milliseconds(row["median_ms"]), milliseconds(row["bare_ms"]), ratio(row["ratio"])]
            if "count" in row
            else ["refused", "", milliseconds(row["bare_ms"]), ""]
        )
        rows.append([row["title"] if row["compiler"] == "tiered" else "", row["compiler"], *figures])
    note = (
        "Upload, compile, load and run by minilambda, over nothing but compiling by wasmtime-py in a warm process. "
        "ratio: the median of those of neighbouring turns."
    )
    return Table(title, columns, rows, note, 2)
