"""The cold-start benchmark's measuring: the tiers of one module, minilambda and wasmtime-py in turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import guests
from cold_runs import WARM_UP, Baseline, Plan, Tier, loop, rounds, run
from cold_stream import Stream
from guests import Guest
from local_cluster import QUIET_S, UPGRADE_S, LocalCluster

from minilambda import Client


class Bench:
    """One worker that is replaced for each run from disk, and wasmtime-py."""

    def __init__(
        self, cluster: LocalCluster, client: Client, folder: Path, memory: Path, plan: Callable[[Guest], Plan]
    ) -> None:
        self._cluster = cluster
        self._client = client
        self._folder = folder
        self._output = memory / "baseline.out"  # where wasmtime-py writes a guest's output
        self._plan = plan
        self._worker = cluster.start_worker(client)

    def measure(self, guest: Guest, say: Callable[[str], None]) -> dict[str, Tier]:
        """The samples of each tier. ``say`` is told what is being done."""
        plan = self._plan(guest)
        # The copy that the last sample of the first tier ran is what the other tiers find compiled.
        path, artifact = self._folder / f"{guest.name}.wasm", self._folder / f"{guest.name}.cwasm"

        def baseline() -> Baseline:
            return Baseline(guest, path, artifact, self._output, self._folder / "baseline.log")

        say(f"{guest.name}: never seen")
        tiers = {"never seen": self._never_seen(guest, path, baseline, plan)}
        say(f"{guest.name}: from disk after a rest, rested, warm")
        tiers |= self._fresh(guest, path, baseline, plan)
        say(f"{guest.name}: from disk with jobs under way")
        tiers |= Stream(self._cluster, self._client, self._worker).measure(guest, path, baseline, plan)
        path.unlink()
        artifact.unlink()
        return tiers

    def _never_seen(self, guest: Guest, path: Path, baseline: Callable[[], Baseline], plan: Plan) -> Tier:
        tier = Tier()
        with baseline() as other:
            for _ in rounds(plan.never_seen, plan.seconds):
                runs = []
                for _ in range(plan.turn):
                    guests.write_unseen_copy(guest, path)
                    self._cluster.settle()
                    runs.append(run(self._client, guest, path, "compiled"))
                tier.add(runs)
                # What a worker compiles again when it has idled for a second meets only a turn that takes so long.
                self._cluster.settle(UPGRADE_S if guest.large else QUIET_S)
                tier.theirs.append([other.compiled() for _ in range(plan.turn)])
        self._cluster.settle(UPGRADE_S)
        return tier

    def _fresh(self, guest: Guest, path: Path, baseline: Callable[[], Baseline], plan: Plan) -> dict[str, Tier]:
        """A new worker in each round: from disk after a rest, warm after the same rest, and warm in a loop."""
        disk, rested, warm = Tier(), Tier(), Tier()
        for _ in rounds(plan.fresh, plan.seconds):
            self._cluster.stop_worker(self._worker, self._client)
            self._worker = self._cluster.spawn_worker(self._cluster.address)
            with baseline() as other:
                self._cluster.await_worker(self._worker, self._client)
                disk.add([run(self._client, guest, path, "disk")])
                self._cluster.settle()
                rested.add([run(self._client, guest, path, "warm")])
                warm.add(loop(self._client, guest, path, plan.warm))
                self._cluster.settle()
                disk.theirs.append([other.loaded()])
                self._cluster.settle()
                rested.theirs.append(other.warm(1))
                warm.theirs.append(other.warm(WARM_UP + plan.warm)[WARM_UP:])
        return {"on disk": disk, "rested": rested, "warm": warm}
