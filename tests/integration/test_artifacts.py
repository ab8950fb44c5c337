"""The artifacts on disk: shared between workers, checked before use, and never a reason for a job to fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster import Cluster, running_cluster, wait_for
from tests.integration.guests import HELLO, slow_to_compile

ONE_COMPILER = ("--compiler", "cranelift")  # so that a module has one artifact


def artifacts(cluster: Cluster) -> list[Path]:
    return sorted((cluster.folder / "cache").rglob("*.artifact"))


def test_workers_that_share_a_cache_compile_a_module_once(tmp_path: Path) -> None:
    # given
    with (
        running_cluster(tmp_path, workers=[("--slots", "2", *ONE_COMPILER)] * 2) as cluster,
        cluster.connect() as client,
    ):
        # when twenty first runs come at once
        results = list(client.map(slow_to_compile(60), [[]] * 20))
        # then
        assert {result.worker for result in results} == {"worker-1", "worker-2"}
        assert len({result.worker for result in results if result.tier == "compiled"}) == 1
        assert len({result.worker for result in results if result.usage.compile_ms > 0}) == 1
        assert len(artifacts(cluster)) == 1


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [flip, lambda data: data[: len(data) // 2], lambda data: b"", lambda data: bytes(len(data))],
    ids=["a flipped byte", "cut in half", "empty", "zeros"],
)
def test_a_damaged_artifact_is_noticed_and_compiled_again(tmp_path: Path, damage: type[bytes]) -> None:
    with running_cluster(tmp_path, workers=[("--slots", "1", *ONE_COMPILER)]) as cluster, cluster.connect() as client:
        # given
        assert client.run(HELLO).tier == "compiled"
        cluster.retire(cluster.service("worker-1"))
        (path,) = artifacts(cluster)
        whole = path.read_bytes()
        path.unlink()
        path.write_bytes(damage(whole))
        # when
        cluster.start_worker("--slots", "1", *ONE_COMPILER)
        result = client.run(HELLO)
        # then
        assert (result.stdout, result.tier, result.attempt) == (b"hello\n", "compiled", 1)
        wait_for(lambda: [each.stat().st_size for each in artifacts(cluster)] == [len(whole)], "it is stored anew")
        cluster.retire(cluster.service("worker-2"))
        cluster.start_worker("--slots", "1", *ONE_COMPILER)
        assert client.run(HELLO).tier == "disk"


@pytest.mark.parametrize("place", ["a file", "no directory can be made here"])
def test_a_worker_without_a_cache_runs_jobs_and_says_what_is_wrong(tmp_path: Path, place: str) -> None:
    # given
    directory = tmp_path / "file" if place == "a file" else Path("/proc/minilambda")
    (tmp_path / "file").touch()
    options = ("--slots", "1", "--cache-dir", str(directory))
    with running_cluster(tmp_path / "cluster", workers=[options]) as cluster, cluster.connect() as client:
        # when
        tiers = [client.run(HELLO).tier for _ in range(2)]
        # then
        assert tiers == ["compiled", "warm"]
        said = cluster.service("worker-1").wait_printed(re.compile(r"cache directory .* is of no use: .*"))[0]
        assert str(directory) in said
