"""Every code with which the broker refuses a request, or ends a job that never left its queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from minilambda import Client
from minilambda.client.job import Job
from minilambda.errors import (
    BadRequest,
    Busy,
    Cancelled,
    Conflict,
    InputTooLarge,
    ModuleTooLarge,
    NotFound,
    NoWorkers,
    QueueTimeout,
    Unreachable,
)
from tests.cluster import Cluster, running_cluster
from tests.integration.guests import HELLO, padded


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker with narrow limits and without a worker."""
    broker = ["--max-module", "4K", "--max-stdin", "1K", "--max-queued", "1"]
    with running_cluster(tmp_path_factory.mktemp("lonely"), broker, workers=[]) as cluster:
        yield cluster


@pytest.fixture
def queued(lonely: Cluster) -> Iterator[tuple[Client, Job]]:
    """A client and its job, which fills the queue."""
    with lonely.connect(busy_timeout=0.1) as client:
        job = client.submit(HELLO)
        yield client, job
        job.cancel()


def test_a_queued_job_is_cancelled(queued: tuple[Client, Job]) -> None:
    _, job = queued
    assert job.cancel().state == "cancelled"
    with pytest.raises(Cancelled) as raised:
        job.result(0)
    assert raised.value.result is not None
    assert (raised.value.result.state, raised.value.result.attempt) == ("cancelled", 0)


def test_a_full_queue_is_busy(queued: tuple[Client, Job]) -> None:
    client, job = queued
    with pytest.raises(Busy) as raised:
        client.run(HELLO)
    assert raised.value.retry_after and raised.value.retry_after > 0
    assert job.status().state == "queued"


def test_an_id_with_other_content_is_a_conflict(queued: tuple[Client, Job]) -> None:
    client, job = queued
    with pytest.raises(Conflict, match=job.id):
        client.run(HELLO, ["other"], job_id=job.id)
    assert client.submit(HELLO, job_id=job.id).status().state == "queued"


def test_a_job_that_waits_too_long_ends(lonely: Cluster) -> None:
    with lonely.connect() as client, pytest.raises(QueueTimeout) as raised:
        client.run(HELLO, queue_timeout=0.1)
    assert raised.value.result is not None and raised.value.result.usage.queued_ms >= 100


REFUSED: dict[type[Exception], Callable[[Client], object]] = {
    NoWorkers: lambda client: client.run(HELLO, if_no_workers="fail"),
    ModuleTooLarge: lambda client: client.run(padded(5_000)),
    InputTooLarge: lambda client: client.run(HELLO, stdin=bytes(1025)),
    NotFound: lambda client: client.job("nobody-made-it").status(),
    BadRequest: lambda client: client.run(HELLO, job_id="not an id"),
}


@pytest.mark.parametrize("error", REFUSED, ids=lambda error: error.code)
def test_a_request_is_refused_with_its_code(lonely: Cluster, error: type[Exception]) -> None:
    with lonely.connect() as client:
        with pytest.raises(error):
            REFUSED[error](client)
        assert client.cluster().queued == 0


def test_a_module_that_nobody_sent_is_not_found(lonely: Cluster) -> None:
    digest = "sha256:" + "0" * 64
    with lonely.connect() as client:
        for refused in (lambda: client.run(digest), lambda: client.job("no-job").result(1)):
            with pytest.raises(NotFound):
                refused()


def test_where_no_broker_listens_nobody_answers() -> None:
    with Client("127.0.0.1:1", connect_timeout=0.2) as client, pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        client.run(HELLO)
