"""A large module on its way while the broker or the worker is lost: the rest goes on, and the job runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from minilambda.client.calls import PIECE
from tests.cluster import running_cluster, wait_for
from tests.integration.guests import padded

QUICK = ("--heartbeat", "0.4s", "--liveness", "1.5s")
SIZE = 30 * 1024 * 1024


@pytest.mark.parametrize("durable", [False, True])
def test_an_upload_goes_on_at_a_broker_that_was_started_anew(tmp_path: Path, durable: bool) -> None:
    state = ("--state-dir", str(tmp_path / "state")) if durable else ("--ephemeral",)
    with running_cluster(tmp_path, (*QUICK, *state)) as cluster, cluster.connect() as client:
        # given
        sent: list[int] = []

        def lose_the_broker(offset: int, size: int) -> None:
            sent.append(offset)
            if len(sent) == 10:
                cluster.lose(cluster.service("broker"))
                cluster.restart_broker(*QUICK, *state)
                cluster.services.insert(0, cluster.services.pop())  # the last to be stopped, as the first one was

        # when
        module = client.upload(padded(SIZE), progress=lose_the_broker)
        # then what the first broker had is lost, and the rest was not sent in vain
        assert sent.count(0) == 2 and len(sent) <= -(-SIZE // PIECE) + 1 + 12
        assert client.run(module).stdout == b"padded\n"


def test_a_worker_that_is_lost_while_it_fetches_holds_up_nobody(tmp_path: Path) -> None:
    with running_cluster(tmp_path, QUICK) as cluster, cluster.connect() as client:
        # given
        module = client.upload(padded(SIZE))
        job = client.submit(module, retries=1)
        wait_for(lambda: client.workers()[0].queue == 1, "the job is at the worker")
        # when
        cluster.lose(cluster.service("worker-1"))
        cluster.start_worker()
        # then
        result = job.result(30)
        assert (result.stdout, result.worker) == (b"padded\n", "worker-2")
