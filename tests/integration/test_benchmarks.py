"""The benchmarks' own parts: the ends that speak by hand, helper processes, peers that are missing, the page."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks, which find each other by plain names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_client_and_worker_by_hand_take_jobs_through_a_real_broker(bench: Any, tmp_path: Path) -> None:
    stages, local = bench("hop_stages"), bench("local_cluster")
    stages.WARM_UP = 1
    with local.LocalCluster(tmp_path, 1) as cluster:
        times = stages.broker_alone(5, cluster)
    assert [len(times[way]) for way in ("there", "back")] == [5, 5]


def test_a_broker_by_hand_gets_results_from_a_real_worker(bench: Any, tmp_path: Path) -> None:
    stages = bench("hop_stages")
    stages.WARM_UP, stages.SLOTS = 1, 1
    times = stages.worker_alone(3, tmp_path)
    assert len(times["whole"]) == 3
    assert all(0 < guest < whole for guest, whole in zip(times["guest"], times["whole"], strict=True))


def test_a_helper_leaves_no_process_behind(bench: Any, tmp_path: Path) -> None:
    lines, procs = bench("lines"), bench("procs")
    script = (
        "import subprocess, sys; from lines import serve; "
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE, start_new_session=True); "
        "serve(child.pid, {'exit': lambda: __import__('os')._exit(3)})"
    )
    env = {"PYTHONPATH": str(BENCHMARKS)}
    with lines.Lines([sys.executable, "-c", script], tmp_path / "log", env=env) as helper:
        child = helper.ready
        assert child in helper.pids()
        with pytest.raises(lines.HelperFailed, match="ended"):
            helper.order(do="exit")
    _gone(procs, child)


def _gone(procs: Any, pid: int) -> None:
    deadline = time.monotonic() + 5
    while (fields := procs.stat(Path(f"/proc/{pid}"))) and fields[0] != "Z":
        assert time.monotonic() < deadline, f"process {pid} lives"
        threading.Event().wait(0.01)


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is not None, reason="this Python has the peer that is to be missing"
)
def test_a_missing_peer_is_reported_and_not_fatal(bench: Any, tmp_path: Path) -> None:
    peers = bench("peers")
    ray = next(system for system in peers.SYSTEMS if system.name == "ray")
    figures = peers.Figures(ray)
    with peers.ExitStack() as stack:
        peers.Bench(peers.Plan(1, 1, 1, 1, False), sys.executable, tmp_path, stack).turn(figures)
    assert "No module named 'ray'" in figures.failure
    ours = peers.Figures(peers.OURS, "", [[500.0, 700.0]], [1000.0], [400.0])
    found = {"minilambda": ours, "ray": figures}
    table = peers._table(found, peers.Plan(1, 1, 1, 1, False), 7)
    assert "not measured" in table.rows[1][0]
    assert any("No module named 'ray'" in answer.figure for answer in peers._answers(found))


def test_every_peer_has_its_turns_and_a_seed_gives_the_same_order(bench: Any) -> None:
    peers = bench("peers")
    plan = peers.Plan.of(True, False)
    turns = peers.schedule(peers.SYSTEMS, plan, seed=3)
    assert turns == peers.schedule(peers.SYSTEMS, plan, seed=3)
    assert turns != peers.schedule(peers.SYSTEMS, plan, seed=4)
    for system in peers.SYSTEMS:
        assert turns.count(system) == (plan.light_turns if system.light else plan.heavy_turns)


@pytest.mark.parametrize(("found", "most", "least"), [(0.5, True, True), (0.49, True, False), (0.51, False, True)])
def test_a_target_is_met_from_its_limit_on(bench: Any, found: float, most: bool, least: bool) -> None:
    harness = bench("harness")
    assert harness.at_most("?", "", found, 0.5).met is most
    assert harness.at_least("?", "", found, 0.5).met is least


def test_each_tier_of_a_cold_start_is_what_its_name_says_and_has_its_rounds(bench: Any, tmp_path: Path) -> None:
    tiers, runs, local = bench("cold_tiers"), bench("cold_runs"), bench("local_cluster")
    (hello,) = bench("guests").chosen("hello", True)
    plan = runs.Plan(never_seen=1, turn=2, fresh=1, warm=3, compilers=1, seconds=60.0)
    with local.LocalCluster(tmp_path, 2) as cluster, local.Client(f"tcp://{cluster.address}") as client:
        measured = tiers.Bench(cluster, client, tmp_path, tmp_path, lambda guest: plan).measure(
            hello, lambda what: None
        )
    samples = {"never seen": [2], "on disk": [1], "rested": [1], "warm": [3], "under way": [1], "… then warm": [3]}
    for side in ("ours", "theirs"):
        assert {name: [*map(len, getattr(tier, side))] for name, tier in measured.items()} == samples


def test_a_cold_start_is_compared_with_what_was_measured_in_the_same_round(bench: Any) -> None:
    # given a machine that is slow in every other round, and a tier that was measured once more in a good one
    tables = bench("cold_tables")
    found = {"never seen": [8.0, 80.0], "on disk": [3.0, 30.0, 3.0], "rested": [2.5, 29.5, 2.5]}
    found |= {"warm": [2.0, 12.0, 2.0], "under way": [2.0, 20.0, 20.0], "… then warm": [1.5, 19.5, 19.5]}
    rows = [_cold_row(name, rounds) for name, rounds in found.items()]
    # when
    answers = tables.answers(rows, ["cpython"])
    # then
    assert [answer.figure.rpartition(": ")[2] for answer in answers[:3]] == ["+0.50 ms", "+0.50 ms", "+1.00 ms"]
    assert [answer.met for answer in answers] == [True, True, True, None, None]
    assert answers[3].ratio == 0.5


def _cold_row(name: str, rounds: list[float]) -> Any:
    ours = {"median_ms": sorted(rounds)[len(rounds) // 2], "rounds_ms": rounds}
    theirs = {"compile_rounds_ms": [2 * each for each in rounds]}
    about = {"module": "hello", "title": "hello", "wasm_bytes": 166, "large": False, "tier": name}
    return {**about, "minilambda": ours, "wasmtime_py": theirs}


def test_the_page_takes_new_figures_and_keeps_the_rest(bench: Any) -> None:
    page, harness = bench("page"), bench("harness")
    answers = [harness.at_most("how slow", "7 | 8", 3.0, 2)]
    tables = [harness.Table("times", ("what", "time"), [["a", "1 ms"]], "a note")]
    machine = {**harness.machine(), "cpu": "a processor"}
    made = harness.document(
        "hops", True, 0.0, machine, answers=answers, tables=tables, not_measured=["networks"], results={}
    )
    text = (
        "before\n<!-- figures: answers -->\nold\n<!-- end -->\nbetween\n<!-- figures: hops -->\nold\n<!-- end -->\n"
        "<!-- figures: memory -->\nkept\n<!-- end -->\nafter\n"
    )
    filled = page.filled(text, {"hops": made})
    assert "old" not in filled
    assert "| how slow | 7 \\| 8 | 3.00 × | ≤ 2 × | not met |" in filled
    assert "| a | 1 ms |" in filled and "- networks" in filled
    assert all(each in filled for each in ("before\n", "between\n", "kept\n", "after\n"))
    assert page.filled(filled, {"hops": made}) == filled


def test_the_performance_page_has_a_place_for_each_benchmark(bench: Any) -> None:
    page, scripts = bench("page"), bench("bench").SCRIPTS
    text = (ROOT / "docs" / "performance.md").read_text()
    assert [name for name, _ in page.PLACE.findall(text)][2:] == list(_in_order(text, scripts))
    assert all((BENCHMARKS / f"{name}.py").exists() for name in scripts)


def _in_order(text: str, names: Any) -> list[str]:
    return sorted(names, key=lambda name: text.index(f"<!-- figures: {name} -->"))


def test_threads_and_their_time_are_found(bench: Any) -> None:
    procs = bench("procs")
    spent = procs.spent(os.getpid())
    assert spent[os.getpid(), "main"] > 0
    assert procs.process_us(os.getpid()) > 0
    assert procs.private_bytes(os.getpid()) > 1_000_000
