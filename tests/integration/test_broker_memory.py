"""The broker's memory stays within the bound that `docs/reliability.md` states for its settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.broker_peers import WASM, Net, Peer, Worker, run_fields

MIB = 2**20
QUEUED, RESULTS = 24 * MIB, 16 * MIB
BODY = bytes(32 * 1024)
SLACK = 32 * MIB
"""What the allocator, libzmq's buffers and the first use of everything take beside the bound, bytes."""

PROGRAM = f"""
import sys
from minilambda.broker.run import run_broker
from minilambda.settings import BrokerSettings
settings = BrokerSettings(max_queued_bytes={QUEUED}, results_bytes={RESULTS}, max_queued=100_000)
sys.exit(run_broker(settings, "tcp://127.0.0.1:0", lambda address: print(address, flush=True)))
"""


@pytest.fixture
def broker() -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        yield started
        started.kill()


def resident(process: subprocess.Popen[str]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_a_flood_of_jobs_and_results_stays_within_the_bound(net: Net, broker: subprocess.Popen[str]) -> None:
    # given
    assert broker.stdout is not None
    address = broker.stdout.readline().strip()
    client = Peer(net, address)
    assert client.ask("run", {"wasm": WASM}, detach=True, **run_fields("first"))["type"] == "accepted"
    before = resident(broker)
    # when: far more is offered than may be queued
    accepted = 0
    for number in range(2000):
        answer = client.ask("run", {"stdin": BODY}, detach=True, **run_fields(f"j{number}"))
        accepted += answer["type"] == "accepted"
    full = resident(broker)
    # and all that was taken ends with as much output
    worker = Worker(net, address, slots=16)
    for _ in range(accepted + 1):
        worker.done(worker.job(), {"stdout": BODY}, queue=15)
    assert worker.socket.poll(0) or client.ask("status", job="first")["type"] in ("state", "error")
    # then
    assert 500 < accepted < 1000
    assert full - before < QUEUED + SLACK
    assert resident(broker) - before < QUEUED + RESULTS + SLACK


def test_a_flood_of_connections_is_forgotten(net: Net, broker: subprocess.Popen[str]) -> None:
    assert broker.stdout is not None
    address = broker.stdout.readline().strip()
    assert Peer(net, address).ask("hello")["type"] == "welcome"
    before = resident(broker)
    for _ in range(300):
        peer = Peer(net, address, zmq.DEALER)
        peer.send("hello", request=1)
        peer.hear("welcome")
        peer.socket.close()
    assert resident(broker) - before < SLACK
