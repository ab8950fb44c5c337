"""Large bodies, large modules, many inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from tests.cluster import Cluster
from tests.integration.guests import CAT, padded

MIB = 1024 * 1024


def test_eight_mebibytes_go_in_and_come_back(cluster: Cluster) -> None:
    data = os.urandom(8 * MIB)
    with cluster.connect() as client:
        result = client.run(CAT, stdin=data, output_limit="64M")

    assert result.stdout == data and result.attempt == 1


def test_thirty_mebibytes_of_output_pass_while_others_are_served(cluster: Cluster) -> None:
    # given
    data = os.urandom(15 * MIB)
    with cluster.connect() as client, cluster.connect() as other:
        # when
        jobs = [client.submit(CAT, stdin=data, output_limit="64M") for _ in range(2)]
        small = [other.run(CAT, stdin=f"{n}").stdout for n in range(20)]
        # then
        assert small == [f"{n}".encode() for n in range(20)]
        assert all(job.result(30).stdout == data for job in jobs)
        assert [worker.name for worker in client.workers()] == ["worker-1"]


def test_a_module_of_thirty_mebibytes_is_put_and_run(cluster: Cluster) -> None:
    # given
    wasm = padded(30 * MIB)
    seen: list[tuple[int, int]] = []
    with cluster.connect() as client:
        # when
        module = client.upload(wasm, progress=lambda sent, size: seen.append((sent, size)))
        # then
        assert client.run(module).stdout == b"padded\n"
        assert [row.size for row in client.modules() if row.module == module.digest] == [len(wasm)]
    assert [sent for sent, _ in seen] == sorted({sent for sent, _ in seen})
    assert {size for _, size in seen} == {len(wasm)}


def test_a_map_yields_in_order_and_takes_its_inputs_as_it_goes(cluster: Cluster) -> None:
    # given
    taken = yielded = most = 0

    def inputs() -> Iterator[dict[str, Any]]:
        nonlocal taken, most
        for number in range(500):
            taken += 1
            most = max(most, taken - yielded)
            yield {"stdin": f"{number}", "priority": number % 3}

    # when
    with cluster.connect() as client:
        outputs = []
        for result in client.map(CAT, inputs(), window=32):
            yielded += 1
            outputs.append(result.stdout)
    # then
    assert outputs == [f"{number}".encode() for number in range(500)]
    assert 2 < most <= 33


def test_a_map_that_is_left_early_cancels_the_rest(cluster: Cluster) -> None:
    with cluster.connect() as client:
        endless = ({"stdin": f"{number}"} for number in iter(int, 1))
        for result in client.map(CAT, endless):
            assert result.stdout == b"0"
            break
        assert client.run(CAT, stdin="after").stdout == b"after"
