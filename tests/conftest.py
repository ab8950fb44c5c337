"""Fixtures that every kind of test may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.cluster import Cluster

# How long an example takes says more of the machine than of the code.
settings.register_profile("without a clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("without a clock")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One broker and one worker of two slots as real processes; at the end they must leave nothing behind."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        running.start_broker()
        running.start_worker("--slots", "2")
        running.wait_workers(1)  # one that is stopped before it listens to signals does not exit as it should
        yield running
        running.stop()
    finally:
        running.kill()
