"""A folder of hostile modules through a real cluster: each ends with its code, and nothing of them is left."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from minilambda import Client
from minilambda.client.results import RunResult
from minilambda.worker.modules import KEPT
from tests import wat
from tests.cluster import Cluster, Service, running_cluster, wait_for
from tests.hostile.expected import EXPECTED, modules, options_of
from tests.integration.guests import HELLO

pytestmark = pytest.mark.timeout(180)

COMPILERS = ("tiered", "cranelift")
FLIPS, CUTS = 80, 40  # of a real module
SOUND = {None, "invalid_module", "trap", "unknown_import", "unknown_export", "out_of_memory", "stack_overflow"}
SOUND |= {"deadline_exceeded", "output_limit"}
"""How a damaged module may end."""


class Ran(NamedTuple):
    """A cluster that has run every hostile module."""

    cluster: Cluster
    client: Client
    compiler: str
    results: dict[str, RunResult]
    descriptors: int  # of the agent, before


@pytest.fixture(scope="module", params=COMPILERS)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("hostile")
    limits = ("--compile-timeout", "6s", "--compile-memory", "1G", "--max-memory", "1G")
    options = [("--slots", "2", "--compiler", request.param, *limits)]
    with running_cluster(folder, workers=options) as cluster, cluster.connect() as client:
        assert client.run(HELLO).stdout == b"hello\n"
        before = cluster.service("worker-1").descriptors()
        jobs = {name: client.submit(wasm, **options_of(name)) for name, wasm in modules().items()}
        results = {name: job.result(120, check=False) for name, job in jobs.items()}
        yield Ran(cluster, client, request.param, results, before)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_hostile_module_ends_with_its_code(ran: Ran, name: str) -> None:
    result, expected = ran.results[name], EXPECTED[name]
    without = ran.compiler == "winch" and expected.winch != ""
    code = expected.winch if without else expected.code
    assert (result.error and result.error.code) == code, result.error
    if code is None:
        assert (result.state, result.exit_code) == ("completed", expected.exit_code)
    elif result.error is not None and not without:
        assert expected.says in result.error.message


def test_every_module_of_the_folder_has_an_expectation() -> None:
    assert modules().keys() == EXPECTED.keys()


def test_what_is_said_of_a_hostile_module_can_be_printed(ran: Ran) -> None:
    for result in ran.results.values():
        if result.error is not None:
            lines = [result.error.message, *(result.error.backtrace or "").splitlines()]
            assert all(line.isprintable() for line in lines), lines


def test_a_host_call_that_needs_more_memory_than_there_is_ends_its_runner_and_nothing_else(ran: Ran) -> None:
    wasm = modules()["two_million_subscriptions"]
    result = ran.client.run(wasm, memory="164M", timeout=30, check=False)  # little more than its own memory
    assert result.error is not None and result.error.code == "runner_crashed"
    assert "SIGABRT" in result.error.message and result.attempt == 1


def test_bytes_that_are_no_text_come_out_as_they_went_in(ran: Ran) -> None:
    result = ran.results["prints_no_utf8"]
    assert (result.stdout, result.stderr) == (b"\xff\xfe\xc3\x28\x00",) * 2


def test_a_damaged_module_is_refused_or_runs(ran: Ran) -> None:
    chance = random.Random(1)
    for real in (HELLO, wat.wasm(wat.add_component())):
        damaged = [real[:at] for at in chance.sample(range(1, len(real)), min(CUTS, len(real) - 1))]
        for _ in range(FLIPS):
            bits = bytearray(real)
            bits[chance.randrange(len(bits))] ^= 1 << chance.randrange(8)
            damaged.append(bytes(bits))
        invoke = {"invoke": "add", "args": ["1", "2"]} if real is not HELLO else {}
        jobs = [ran.client.submit(wasm, timeout=1, memory="64M", output_limit=1000, **invoke) for wasm in damaged]
        for wasm, job in zip(damaged, jobs, strict=True):
            result = job.result(60, check=False)
            code = result.error and result.error.code
            assert code in SOUND | {"bad_arguments"}, (wasm.hex(), result.error)


def test_nothing_is_left_of_them_and_hello_runs(ran: Ran) -> None:
    worker = ran.cluster.service("worker-1")
    assert [result.stdout for result in ran.client.map(HELLO, [[]] * 8)] == [b"hello\n"] * 8
    wait_for(lambda: not worker.pids("ml-compiler"), "the compilers have ended")
    wait_for(lambda: len(worker.pids("ml-runner")) == 2, "there is a runner for each slot, and no other")
    wait_for(lambda: worker.descriptors() <= ran.descriptors + KEPT + 4, "the agent's descriptors come back")
    assert resident(worker) < 200 << 20
    assert "Traceback" not in worker.printed() + ran.cluster.service("broker").printed()
    cache = Path(ran.cluster.folder / "cache")
    wait_for(lambda: not list(cache.rglob("*.tmp")), "what is being written to the cache is written")


def resident(service: Service) -> int:
    """Bytes of a service's memory."""
    return int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
