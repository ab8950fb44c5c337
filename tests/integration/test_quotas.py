"""Clients whose broker lets each have few jobs that wait: they go on as their jobs end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from minilambda import AsyncClient, Client, Executor, errors
from tests import wat
from tests.cluster import Cluster, running_cluster
from tests.integration.guests import SLEEP

CAT = wat.wasm(wat.CAT)
WORDS = [f"{number}".encode() for number in range(60)]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One slot, and two jobs of a client that may wait."""
    folder = tmp_path_factory.mktemp("strict")
    with running_cluster(folder, ["--ephemeral", "--quota-queued", "2"], [["--slots", "1"]]) as cluster:
        yield cluster


def test_a_map_of_more_inputs_than_the_quota_goes_on_as_places_come_free(strict: Cluster) -> None:
    with Client(strict.address) as client:
        assert [result.stdout for result in client.map(CAT, WORDS)] == WORDS


def test_a_map_with_asyncio_and_an_executor_go_on_too(strict: Cluster) -> None:
    async def main() -> list[bytes]:
        async with AsyncClient(strict.address) as client:
            return [result.stdout async for result in client.map(CAT, WORDS)]

    assert asyncio.run(main()) == WORDS
    with Executor(strict.address) as executor:
        assert [result.stdout for result in executor.map(CAT, WORDS)] == WORDS


def test_a_client_with_less_patience_than_the_broker_asks_for_is_told_of_the_quota(strict: Cluster) -> None:
    with Client(strict.address, busy_timeout=0.5) as client:
        jobs = []
        try:
            with pytest.raises(errors.QuotaExceeded, match="of this client wait already"):
                jobs.extend(client.submit(SLEEP, timeout=60) for _ in range(20))
        finally:
            for job in jobs:
                job.cancel()
