"""Whole clusters of the real cores on a virtual clock: one seed is one run, with every kind of trouble."""

from __future__ import annotations

import gc
import os

import pytest

from tests.sim.cluster import Cluster, Plan

SEEDS = int(os.environ.get("SEEDS", "5"))
FIRST = int(os.environ.get("SEED", "1"))

PLANS = {
    "calm": Plan(),
    "many workers": Plan(workers=100, jobs=600, seconds=5.0, followed=0.0),
    "crashes": Plan(crashes=12, poison=2),
    "broken connections": Plan(cuts=25, inline=1024),
    "partitions": Plan(silences=12, slow=6),
    "stopped workers": Plan(stops=12),
    "drains and cancels": Plan(drains=10, cancels=40),
    "broker restarts": Plan(restarts=6, jumps=3),
    "broker restarts, slow disk": Plan(restarts=6, sync=0.3),
    "everything": Plan(
        followed=0.5,
        crashes=5,
        cuts=10,
        silences=5,
        slow=5,
        stops=5,
        drains=5,
        cancels=20,
        poison=1,
        restarts=4,
        jumps=2,
        inline=1024,
    ),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.timeout(600)
def test_every_job_ends_once_whatever_happens(name: str) -> None:
    for seed in range(FIRST, FIRST + SEEDS):
        Cluster(seed, PLANS[name]).run()
        gc.collect()  # a cluster is full of cycles, and large


def test_without_trouble_every_job_runs_exactly_once() -> None:
    for seed in range(FIRST, FIRST + SEEDS):
        cluster = Cluster(seed, PLANS["calm"])
        cluster.run()
        assert {cluster.ledger.begun(job) for job in cluster.behaviours} == {1}


def test_a_restarted_broker_costs_no_second_run() -> None:
    for seed in range(FIRST, FIRST + SEEDS):
        cluster = Cluster(seed, PLANS["broker restarts"])
        cluster.run()
        twice = [job for job in cluster.behaviours if cluster.ledger.begun(job) > 1]
        assert not twice, f"seed {seed}: {twice[0]} ran twice\n{cluster.world.story_of(twice[0] + ' ')}"


def test_a_seed_reproduces_its_run() -> None:
    runs = []
    for _ in range(2):
        cluster = Cluster(FIRST, PLANS["everything"])
        cluster.run()
        runs.append((cluster.world.steps, cluster.world.now, list(cluster.world.story)))
    assert runs[0] == runs[1]
