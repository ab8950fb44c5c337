"""Cables that are cut, and cables that are slow: real workers behind network namespaces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda import Client
from tests import wat
from tests.chaos.guests import nap
from tests.chaos.network import Network, own_network, why_not
from tests.chaos.stage import Stage, Worker
from tests.cluster import wait_for
from tests.integration.guests import padded

LARGE = 64_000_000  # bytes of one result
MODULE = 100_000_000  # bytes of one module


@pytest.fixture
def network() -> Iterator[Network]:
    why = why_not() if os.geteuid() == 0 else "only root may make network namespaces here"
    if why:
        pytest.skip(f"no network namespaces: {why}")
    with own_network() as made:
        yield made


@pytest.fixture
def stage(network: Network, tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, 0, 3, 0, network)
    made.start_broker()
    try:
        yield made
        assert made.stop() + made.complaints() == []
    finally:
        made.kill()


@pytest.fixture
def client(stage: Stage) -> Iterator[Client]:
    with stage.connect() as connected:
        yield connected


def parted(stage: Stage, worker: Worker, way: str) -> int:
    """Cut the cable of a worker; returns its process id."""
    assert stage.network is not None
    stage.network.cut(worker.number, worker.service.process.pid, way)
    return worker.service.process.pid


@pytest.mark.parametrize(("way", "ms"), [("both", 800), ("from", 800), ("to", 6000)])
def test_a_job_of_a_parted_worker_runs_elsewhere_and_its_late_result_is_dropped(
    stage: Stage, client: Client, way: str, ms: int
) -> None:
    # given
    first = stage.start_worker(0)
    stage.wait_ready()
    job = client.submit(nap(ms), stdin="zombie")
    wait_for(lambda: job.status().state == "running", "the job runs")
    second = stage.start_worker(0)
    # when its guest ends after nobody can hear of it, or after it has given the broker up
    pid = parted(stage, first, way)
    wait_for(lambda: job.status().attempt == 2, "the job is given to the other")
    result = job.result(20)
    assert stage.network is not None
    stage.network.heal(first.number, pid)
    # then
    assert (result.stdout[:6], result.attempt, result.worker) == (b"zombie", 2, second.service.name)
    stage.wait_ready()
    wait_for(lambda: not any(worker.queue for worker in client.workers()), "nobody holds anything")
    assert job.result(0) == result


def test_a_worker_that_vanishes_without_a_fin_costs_no_job(stage: Stage, client: Client) -> None:
    # given
    first = stage.start_worker(0)
    stage.wait_ready()
    job = client.submit(nap(600), stdin="lost")
    wait_for(lambda: job.status().state == "running", "the job runs")
    # when
    parted(stage, first, "both")
    stage.lose_worker(first)
    second = stage.start_worker(0)
    # then
    result = job.result(20)
    assert (result.stdout[:4], result.attempt, result.worker) == (b"lost", 2, second.service.name)
    stage.wait_ready()  # the broker knows the second, and the first no more


def writes(size: int) -> bytes:
    """A command that writes so many bytes of zeros."""
    step = f"(loop $more (br_if $refused (i64.ge_u (global.get $n) (i64.const {size})))"
    text = wat.FLOOD.replace("(loop $more", step).replace("65536", "64000")
    text = text.replace("(br $more)", "(global.set $n (i64.add (global.get $n) (i64.const 64000))) (br $more)")
    return wat.wasm(text.replace("(memory", "(global $n (mut i64) (i64.const 0)) (memory", 1))


@pytest.mark.slow
def test_a_large_result_on_a_slow_cable_is_no_death_and_keeps_nobody_waiting(stage: Stage, client: Client) -> None:
    # given a worker whose cable takes several liveness bounds for the result
    slow = stage.start_worker(0)
    stage.wait_ready()
    assert stage.network is not None
    stage.network.slow(slow.number, slow.service.process.pid, 100)
    job = client.submit(writes(LARGE), output_limit=LARGE)
    wait_for(lambda: job.status().state in ("assigned", "running"), "the worker has the job")
    # when
    stage.start_worker(1)
    stage.wait_ready()
    others = [client.run(nap(0), stdin=f"{n}") for n in range(20)]
    # then all of these came and went while it was on its way
    assert not job.status().done
    assert {other.attempt for other in others} == {1}
    result = job.result(40)
    assert (len(result.stdout), result.attempt, result.worker) == (LARGE, 1, slow.service.name)
    assert "the broker is silent" not in slow.service.printed()
    assert len(client.workers()) == 2


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_large_module_that_all_want_goes_to_each_once_and_keeps_nobody_waiting(stage: Stage, client: Client) -> None:
    # given three workers with caches of their own
    workers = [stage.start_worker(0, cache=f"cache-{n}") for n in range(3)]
    stage.wait_ready()
    list(client.map(nap(0), [{"stdin": "warm"}] * 30))
    assert stage.network is not None
    for worker in workers:
        stage.network.slow(worker.number, worker.service.process.pid, 200)
    module = client.upload(padded(MODULE))
    before = [stage.network.sent(worker.number) for worker in workers]
    # when
    jobs = [client.submit(module) for _ in range(3)]
    others = [client.run(nap(0), stdin=f"{n}") for n in range(20)]
    # then
    assert not any(job.status().done for job in jobs)
    assert {other.attempt for other in others} == {1}
    results = [job.result(60) for job in jobs]
    assert {(result.stdout, result.attempt) for result in results} == {(b"padded\n", 1)}
    assert {result.worker for result in results} == {worker.service.name for worker in workers}
    sent = [stage.network.sent(worker.number) - then for worker, then in zip(workers, before, strict=True)]
    assert all(MODULE < size < 1.2 * MODULE for size in sent), sent
