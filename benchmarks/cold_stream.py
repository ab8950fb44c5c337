"""The cold-start benchmark's measuring of a stream of jobs that is under way when a new worker takes the next one.

That is what a cold start is in a cluster that is in use: client and broker are busy, the processors are awake, and only
the worker has not run the module yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cold_runs import WARM_UP, Baseline, Plan, Tier, loop, rounds, run
from guests import EXAMPLES, Guest
from harness import Sample
from local_cluster import ClusterFailed, LocalCluster

from minilambda import Client, Job, RunResult

WAITS = EXAMPLES / "upper.wasm"  # a guest that waits for its standard input, and needs no processor meanwhile


class Stream:
    """A worker that has been at work, and one that is new in each round.

    Both are idle but for the stream, so its jobs stay where the module is warm. Then a job that only waits takes one
    slot of the old worker, and the next job of the stream goes to the new one, which has more room.
    """

    def __init__(self, cluster: LocalCluster, client: Client, old: str) -> None:
        """``old`` is the only worker that is there, and stays."""
        self._cluster = cluster
        self._client = client
        self._old = old

    def measure(self, guest: Guest, path: Path, baseline: Callable[[], Baseline], plan: Plan) -> dict[str, Tier]:
        """The first run of each new worker, and the runs on it that follow at once."""
        first, after = Tier(), Tier()
        self._client.run(WAITS)  # compiled and known to the old worker before there is another one
        with baseline() as hot:
            for _ in rounds(plan.fresh, plan.seconds):
                new = self._cluster.spawn_worker(self._cluster.address)
                with baseline() as other:
                    self._cluster.await_worker(new, self._client)
                    self._round(guest, path, plan, new, first, after)
                    self._cluster.stop_worker(new, self._client)
                    self._cluster.settle()
                    hot.warm(WARM_UP + plan.warm)
                    first.theirs.append([other.loaded()])
                    after.theirs.append(other.warm(WARM_UP + plan.warm)[WARM_UP:])
        return {"under way": first, "… then warm": after}

    def _round(self, guest: Guest, path: Path, plan: Plan, new: str, first: Tier, after: Tier) -> None:
        _check(loop(self._client, guest, path, plan.warm), self._old)
        waiting = self._client.submit(WAITS, interactive=True)
        self._until_it_runs(waiting)
        one = run(self._client, guest, path, "disk")
        runs = loop(self._client, guest, path, plan.warm)
        _check([one, *runs], new)
        first.add([one])
        after.add(runs)
        waiting.close_stdin()
        if waiting.result().worker != self._old:
            raise ClusterFailed("The job that waits was not where it was to be.")

    def _until_it_runs(self, job: Job) -> None:
        """Client and broker keep talking meanwhile, as they do in a stream."""
        while job.status().state != "running":
            pass


def _check(runs: Sequence[tuple[Sample, RunResult]], worker: str) -> None:
    if any(result.worker != worker or result.attempt != 1 for _, result in runs):
        raise ClusterFailed(f"A run of the stream was to be the first attempt, on {worker}.")
