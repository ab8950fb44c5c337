"""A broker process for each test, to be treated badly; afterwards it must end well and leave nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker_peers import Net
from tests.cluster import Cluster


@pytest.fixture
def broker_alone(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        made.start_broker("--heartbeat", "0.4s", "--liveness", "2s", "--ephemeral")
        yield made
        assert "Traceback" not in made.service("broker").printed()
        made.stop()
    finally:
        made.kill()


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    made.close()


@pytest.fixture
def address(broker_alone: Cluster) -> str:
    return f"tcp://{broker_alone.address}"
