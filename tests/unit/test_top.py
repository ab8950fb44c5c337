"""What `minilambda top` makes of a broker's answers: texts, tables, changes, one job's story."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from minilambda.client.listings import Cluster, JobInfo, Latency, Moment, Overview, Status, WorkerInfo
from minilambda.client.live import Chunk
from minilambda.client.results import RunResult
from minilambda.messages import ErrorInfo, Usage
from minilambda.top import header, plain, status, story, tables, words
from minilambda.top.sample import Sample
from minilambda.top.watch import EACH, Watch

MODULE = "sha256:" + "5" * 64


def job(name: str = "a-1", state: str = "running", code: str = "", **more: Any) -> JobInfo:
    return JobInfo(name, state, code, 1, 0, 1000, MODULE, "w1", "local", **{"total_ms": 1000.0, **more})


def worker(name: str, **more: Any) -> WorkerInfo:
    found: dict[str, Any] = {"state": "idle", "slots": 2, "queue": 0} | more
    return WorkerInfo(name, f"id-{name}", done=7, seen_ms=3, host="host", pid=1, version="0", **found)


def overview(**more: Any) -> Overview:
    found: dict[str, Any] = {"up_ms": 5000.0, "workers": 2, "queued": 0, "running": 1, "kept": 4, "outcomes": {}} | more
    return Overview("b/1", slots=4, accepted=9, rejected={}, modules=1, store_bytes=4096, **found, tiers=TIERS)


TIERS = (Latency("warm", 10, 1.25, 2.0, 99.5), Latency("disk", 0, 0.0, 0.0, 0.0))


def texts(notes: list[Any]) -> list[str]:
    return [note.text for note in notes]


# --- texts --------------------------------------------------------------------------------------------


@given(st.floats(0, 1e12))
def test_numbers_and_times_never_outgrow_their_columns(value: float) -> None:
    assert len(words.short(value)) <= 6
    assert len(words.millis(value)) <= 8
    assert len(words.age(min(value, 8e9))) <= 6


@given(st.text(max_size=60), st.integers(0, 40), st.booleans())
def test_a_cell_has_just_its_width_whatever_is_in_it(text: str, width: int, right: bool) -> None:
    assert cell_len(words.fit(words.printable(text), width, right=right)) == width


@given(st.text(max_size=200), st.integers(2, 40))
def test_what_a_guest_wrote_can_do_nothing_to_the_terminal(text: str, width: int) -> None:
    for line, _ in words.wrapped([(words.without_escapes(text), "")], width):
        assert line.isprintable() and cell_len(line) <= width


def test_a_line_for_a_terminal_is_read_as_it_would_look_there() -> None:
    assert words.without_escapes("\x1b[31mred\x1b[0m \x1b]0;title\x07plain") == "red plain"
    assert words.without_escapes("10 %\r100 %\r") == "100 %"
    assert words.without_escapes("a\tb\x07") == "a       b?"


def test_charts_show_the_newest_at_the_right_and_the_largest_full() -> None:
    assert words.sparkline([9, 0, 4, 8], 3) == "▁▄█"
    assert words.sparkline([1], 3, least=8) == "  ▁"
    assert words.sparkline([], 2) == "  "
    assert (words.bar(0, 4), words.bar(0.01, 4), words.bar(7, 4)) == ("────", "━───", "━━━━")


def test_counts_are_told_the_largest_first_and_those_that_are_cut_are_counted() -> None:
    assert words.tally({"b": 2, "a": 2, "c": 30, "none": 0}) == "30 c, 2 a, 2 b"
    assert words.tally({"b": 2, "a": 2, "c": 30}, 1) == "30 c, 4 of 2 other kinds"


def test_ids_are_cut_in_the_middle_as_what_tells_them_apart_is_often_the_end() -> None:
    assert words.middle("0123456789abcdef-77", 10) == "012…def-77"


# --- tables -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", tables.TABLES.values(), ids=tables.TABLES)
def test_the_columns_fit_any_terminal_and_the_least_important_go_first(table: tables.Table[Any]) -> None:
    shown: set[str] = set()
    for width in range(20, 260):
        found = tables.layout(table.columns, width, {column.name: 99 for column in table.columns})
        assert sum(room for _, room in found) + tables.gap_of(width) * (len(found) - 1) <= width
        names = {column.name for column, _ in found}
        if width not in (0, 120):  # where the gaps grow
            assert names >= shown
        shown = names
    assert shown == {column.name for column in table.columns}
    assert all(len(column.name) < column.width for column in table.columns)  # the arrow has room


def test_eighty_columns_have_what_one_looks_for_first() -> None:
    found = [column.name for column, _ in tables.layout(tables.JOBS.columns, 77, {"job": 20})]
    assert found == ["job", "state", "code", "worker", "run", "total", "age"]


def test_rows_are_sorted_by_value_and_chosen_by_words() -> None:
    rows = [
        job("a", total_ms=9.0),
        job("b", "failed", "trap", total_ms=100.0),
        job("c", "failed", "trap", total_ms=20.0),
    ]
    by_total = tables.arrange(tables.JOBS, rows, "total", True)
    assert [row.job for row in by_total] == ["b", "c", "a"]
    assert [row.job for row in tables.arrange(tables.JOBS, rows, "job", True, ("failed", "trap"))] == ["c", "b"]


def test_every_cell_of_every_table_can_be_made() -> None:
    for row, table in ((job(), tables.JOBS), (worker("w", slots=0, queue=3), tables.WORKERS)):
        for column in table.columns:
            assert isinstance(tables.cell(column, row, column.width), str)
            assert column.style(row) is not None


def test_what_a_peer_calls_itself_reaches_no_terminal_as_it_is() -> None:
    column = tables.WORKERS.column("name")
    assert tables.cell(column, worker("a\x1b[2Jb"), 20) == "a?[2Jb"


# --- what has changed ---------------------------------------------------------------------------------


def test_workers_that_come_and_go_are_told() -> None:
    watch = Watch()
    first = watch.take(Sample(1, overview(), Cluster([worker("a"), worker("b", state="draining")], 0)))
    assert texts(first) == ["2 workers there"]
    notes = watch.take(Sample(2, overview(), Cluster([worker("c"), worker("d")], 0)))
    assert texts(notes) == [
        "worker a is gone",
        "worker b has left, drained",
        "worker c joined, with 2 slots",
        "worker d joined, with 2 slots",
    ]
    notes = watch.take(Sample(3, overview(), Cluster([worker("c", state="draining"), worker("d", state="lost")], 0)))
    assert texts(notes) == ["worker c drains: it takes nothing new", "worker d is lost"]


def test_many_at_once_are_counted_and_a_list_that_is_cut_makes_nobody_leave() -> None:
    watch = Watch()
    watch.take(Sample(1, overview(workers=0), Cluster([], 0)))
    many = [worker(f"w{number}") for number in range(40)]
    notes = watch.take(Sample(2, overview(workers=40), Cluster(many, 0)))
    assert texts(notes)[EACH:] == ["35 more workers joined"]
    assert not watch.take(Sample(3, overview(workers=40), Cluster(many[:10], 0)))


def test_failed_jobs_are_told_once_with_their_sentence_and_the_others_counted() -> None:
    watch = Watch()
    old = job("old", "failed", "trap")
    assert not watch.take(Sample(1, overview(outcomes={"trap": 1}), jobs=[old]))
    fresh = job("new", "failed", "deadline_exceeded")
    outcomes = {"trap": 3, "deadline_exceeded": 1, "completed": 50, "cancelled": 2}
    notes = watch.take(Sample(2, overview(outcomes=outcomes), jobs=[fresh, old]))
    assert texts(notes) == [
        "job new failed at w1: deadline_exceeded. The guest was stopped at its deadline.",
        "2 more jobs failed: 2 trap",
    ]
    assert not watch.take(Sample(3, overview(outcomes=outcomes), jobs=[fresh, old]))


def test_failures_that_another_list_shows_first_are_no_news() -> None:
    watch = Watch()
    watch.take(Sample(1, overview(), jobs=[]))
    assert not watch.take(Sample(2, overview(), jobs=[job("x", "failed", "trap")], asked="failed"))


def test_a_broker_that_is_away_comes_back_and_is_another_one_is_told_of() -> None:
    watch = Watch()
    watch.take(Sample(1, overview()))
    watch.take(Sample(3, overview(outcomes={"completed": 10}, up_ms=7000.0)))
    assert watch.rate == 5
    assert texts(watch.away(4, "No answer.")) == ["the broker is away: No answer."]
    assert not watch.away(8, "No answer.")
    assert watch.rate is None
    notes = watch.take(Sample(10, overview(up_ms=100.0)))
    assert texts(notes) == ["the broker is back after 6 s", "the broker was restarted; its counts begin anew"]
    watch.take(Sample(11, overview(up_ms=1100.0, outcomes={"completed": 3})))
    assert watch.rate == 3
    watch.away(12, "No answer.")
    notes = watch.take(Sample(20, overview(up_ms=8000.0)))  # longer up than the last one was, but not since then
    assert texts(notes)[1:] == ["the broker was restarted; its counts begin anew"]


# --- the top, the bottom ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [20, 78, 118, 198])
def test_the_head_fits_and_says_the_same_in_every_width(width: int) -> None:
    watch = Watch()
    watch.take(Sample(1, overview()))
    watch.take(Sample(2, overview(outcomes={"completed": 1200, "trap": 3}, queued=1234), greeting="b/1"))
    lines = [line.plain for line in header.head(watch, "tcp://h:1", width, 2.0)]
    assert len(lines) == header.LINES and all(cell_len(line) <= width for line in lines)
    if width >= 78:
        text = "\n".join(lines)
        for expected in ("b/1", "● live", "2 workers", "1,234 queued", "ended/s   1203", "1,200 completed", "3 trap"):
            assert expected in text
        assert "warm 1.25/99.5 ms" in text and "disk" not in text


def test_each_share_of_the_jobs_has_a_unit_that_shows_it() -> None:
    watch = Watch()
    tiers = [Latency("warm", 50, 1.5, 3.0, 12_500.0)]
    watch.take(Sample(1, dataclasses.replace(overview(), tiers=tiers)))
    assert "warm 1.50 ms/12.5 s" in "\n".join(line.plain for line in header.head(watch, "tcp://h:1", 118, 2.0))


def test_the_head_says_since_when_the_broker_is_away_and_what_a_key_may_not_see() -> None:
    watch = Watch()
    watch.away(5, "No broker answered.")
    assert "● away for 7s, trying" in header.head(watch, "tcp://h:1", 78, 12.0)[0].plain
    watch.take(Sample(13, jobs=[job()], refused={"overview": "This key may not."}, principal="k1", own_only=True))
    lines = [line.plain for line in header.head(watch, "tcp://h:1", 78, 13.0)]
    assert lines[1:4] == ["The broker as a whole is not for this key.", "This key may not.", "jobs of k1: 1 running"]


def test_a_list_that_is_cut_says_so() -> None:
    jobs = [job(str(number)) for number in range(400)]
    whole = Sample(1, overview(kept=399), jobs=jobs)
    assert status.extent(whole, "jobs", 400) == "400 jobs"
    assert status.extent(dataclasses.replace(whole, overview=overview(kept=9999)), "jobs", 400) == (
        "the newest 400 of 10,000 jobs"
    )
    assert status.extent(dataclasses.replace(whole, asked="failed"), "jobs", 3) == "3 of the newest 400 jobs"
    few = Sample(1, overview(workers=1000), Cluster([worker("w")], 0))
    assert status.extent(few, "workers", 1) == "the first 1 of 1,000 workers"


def test_the_text_for_scripts_has_every_list_and_no_row_is_cut() -> None:
    watch = Watch()
    rows = [job("a-long-name-of-a-job-that-somebody-gave-it-0001")]
    watch.take(Sample(1, overview(), Cluster([worker("w1")], 0), rows, None, [], refused={"clients": "Not for you."}))
    text = "\n".join(plain.lines(watch, "tcp://h:1"))
    assert rows[0].job in text and "clients: Not for you." in text and "0 functions" in text
    assert plain.as_object(watch, "tcp://h:1")["jobs"][0]["job"] == rows[0].job


# --- one job ------------------------------------------------------------------------------------------


def ended(**more: Any) -> RunResult:
    usage = Usage(queued_ms=10.0, fetch_ms=0.0, compile_ms=20.0, load_ms=5.0, run_ms=60.0, total_ms=100.0)
    return RunResult("failed", "a-1", error=ErrorInfo("trap", "It trapped."), usage=usage, attempt=1, **more)


def test_a_jobs_phases_are_a_bar_of_the_whole_width_and_words() -> None:
    bar, legend = story.phases(story.Known(job(), None, ended()), 50)
    assert bar.plain == "░" * 5 + "▓" * 10 + "▒" * 2 + "█" * 31 + "·" * 2
    for part in ("queued 10 ms", "compile 20 ms", "load 5.00 ms", "run 60 ms", "other 5.00 ms", "total 100 ms"):
        assert part in legend.plain
    assert "fetch" not in legend.plain


def test_a_job_that_runs_has_its_time_so_far_as_run_and_one_that_waits_as_queued() -> None:
    row = job(queued_ms=250.0)
    _, legend = story.phases(story.Known(row, Status("a-1", "running", 1, "w1", False, 2.25)), 40)
    assert legend.plain == "░ queued 250 ms  █ run 2.0 s  total 2.2 s"
    row = job(state="queued", queued_ms=1000.0)
    _, legend = story.phases(story.Known(row, Status("a-1", "queued", 0, "", False, 3.0)), 40)
    assert legend.plain == "░ queued 3.0 s  total 3.0 s"


def test_what_is_said_of_a_job_has_its_failure_in_words() -> None:
    lines = [line.plain for line in story.about(story.Known(job(state="failed", code="trap"), None, ended()), 78)]
    assert lines[0] == "job a-1  failed: trap" and lines[2] == "It trapped."
    told = story.moments(Status("a-1", "failed", 1, "w1", False, 1.0, (Moment(0.0, "accepted"), Moment(0.5, "failed"))))
    assert told == [("     0.000 s  accepted", ""), ("     0.500 s  failed", "red")]


def test_the_end_of_the_output_is_kept_with_its_streams_told_apart() -> None:
    tail = story.Tail()
    tail.take(Chunk("stdout", b"one\ntw", 0, 1))
    tail.take(Chunk("stderr", b"bad\n", 0, 1))
    tail.take(Chunk("stdout", b"o\nthree", 6, 1))
    assert tail.lines() == [("one", ""), ("bad", "yellow"), ("two", ""), ("three", "")]
    assert tail.has_all(ended(stdout=b"one\ntwo\nthree", stderr=b"bad\n"))
    assert not tail.has_all(ended(stdout=b"one\ntwo\nthree and more", stderr=b"bad\n"))
    tail.take(Chunk("stdout", b"anew", 0, 2))
    assert tail.lines()[-2:] == [("— attempt 2, from the beginning —", "yellow"), ("anew", "")]


def test_output_without_end_stays_within_bounds() -> None:
    tail = story.Tail()
    for number in range(60):
        tail.take(Chunk("stdout", b"x" * 10_000 + b"\n" * 100, number * 10_100, 1))
    lines = tail.lines()
    assert len(lines) == story.MAX_LINES and max(len(line) for line, _ in lines) <= story.MAX_LINE
