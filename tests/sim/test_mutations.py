"""The simulation must notice when a promise breaks: each test breaks one on purpose."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from minilambda.broker.client_side import ClientSide
from minilambda.broker.core import Core
from minilambda.broker.jobs import InvariantError, Job
from minilambda.broker.live import Follower
from minilambda.broker.placement import Placement
from minilambda.broker.promises import Promises
from minilambda.worker.core import Core as WorkerCore
from tests.sim.cluster import Cluster, Plan

SEEDS = 12
"""Runs in which a broken promise must show, at the latest."""

Break = Callable[[pytest.MonkeyPatch], None]


def without_fencing(patch: pytest.MonkeyPatch) -> None:
    """The attempt number stays 1, so nothing tells an old attempt from the present one."""
    dispatch = Placement.dispatch

    def same_number(self: Placement, job: Job, *rest: Any) -> None:
        job.attempt = 0
        dispatch(self, job, *rest)

    patch.setattr(Placement, "dispatch", same_number)


def without_dedup(patch: pytest.MonkeyPatch) -> None:
    """A job that is sent again is another job."""
    run = ClientSide._run

    def forgetful(self: ClientSide, route: Any, principal: str, message: Any, now: float) -> None:
        self._core.jobs.pop((principal, message.job), None)
        run(self, route, principal, message, now)

    patch.setattr(ClientSide, "_run", forgetful)


def without_requeue(patch: pytest.MonkeyPatch) -> None:
    """A job that lost its worker is left where it was."""
    patch.setattr(Core, "lose", lambda self, job, now: None)


def without_waiting_for_the_disk(patch: pytest.MonkeyPatch) -> None:
    """Acknowledgements go out before the disk has what they promise."""
    note = Promises.note

    def hasty(self: Promises, record: Any) -> int:
        note(self, record)
        return 0

    patch.setattr(Promises, "note", hasty)


def without_keeping_results(patch: pytest.MonkeyPatch) -> None:
    """A worker forgets its results when the broker is gone."""
    lost = WorkerCore._lost

    def forgetful(self: WorkerCore, now: float, soon: bool) -> None:
        self.finished._by_ref.clear()
        self.finished._safe.clear()
        lost(self, now, soon)

    patch.setattr(WorkerCore, "_lost", forgetful)


def without_beginning_again(patch: pytest.MonkeyPatch) -> None:
    """Who follows a job that runs again is told only what comes behind the output of the attempt before."""
    patch.setattr(Follower, "turn_to", lambda self, attempt: setattr(self, "attempt", attempt))


def only_once(cluster: Cluster) -> None:
    """Where nothing but the broker is restarted, no job runs twice."""
    cluster.run()
    twice = [job for job in cluster.behaviours if cluster.ledger.begun(job) > 1]
    assert not twice, f"{twice[0]} ran twice"


TROUBLE = Plan(crashes=8, silences=6, stops=6, cuts=10)
FOLLOWED = Plan(crashes=8, followed=1.0)
RESTARTS = Plan(restarts=6)
SLOW_DISK = Plan(restarts=6, sync=0.3)
BROKEN: dict[str, tuple[Break, Plan, Callable[[Cluster], None]]] = {
    "fencing": (without_fencing, TROUBLE, Cluster.run),
    "dedup": (without_dedup, TROUBLE, Cluster.run),
    "requeue": (without_requeue, TROUBLE, Cluster.run),
    "the order of the disk": (without_waiting_for_the_disk, SLOW_DISK, Cluster.run),
    "followers of a new attempt": (without_beginning_again, FOLLOWED, Cluster.run),
    "kept results": (without_keeping_results, RESTARTS, only_once),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.timeout(300)
def test_the_simulation_notices_a_broken_promise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, plan, run = BROKEN[name]
    broken(monkeypatch)
    for seed in range(1, SEEDS + 1):
        gc.collect()
        try:
            run(Cluster(seed, plan))
        except (AssertionError, InvariantError, KeyError):
            return
    pytest.fail(f"{SEEDS} runs without {name}, and nothing was noticed")
