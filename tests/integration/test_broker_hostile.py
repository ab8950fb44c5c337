"""A real broker with hostile peers, on every kind of address, and as a process that gets signals."""

from __future__ import annotations

import os
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from minilambda.broker.run import run_broker
from minilambda.broker.server import Server
from minilambda.notation import BadSetting, endpoint
from minilambda.settings import BrokerSettings
from tests.broker_peers import (
    FRAME,
    PATIENCE_MS,
    VERSION,
    WASM,
    Net,
    Peer,
    Worker,
    frames,
    run_fields,
)

# --- hostile peers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([b"junk"], "bad_request"),
        ([msgpack.packb({"v": 9, "type": "hello", "request": 1})], "unsupported_version"),
        ([b""], "bad_request"),
        ([b"\xc1"], "bad_request"),
        ([b"\x91" * 1000], "bad_request"),
        ([b"\x81\xa4type" + b"\x91" * 1020 + b"\xc0"], "bad_request"),
        ([b"\xdd\xff\xff\xff\xff"], "bad_request"),
        ([b"\x00" * FRAME], "bad_request"),
        ([msgpack.packb({"v": VERSION, "type": "hello", "request": 1})] + [b"x"] * 500, "bad_request"),
        ([msgpack.packb({"v": VERSION, "type": "dispatch", "request": 1})], "bad_request"),
        (frames("cancel", request=1, job="unknown"), "not_found"),
        (frames("run", {"wasm": b"evil"}, request=1, **run_fields("j")), "bad_request"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_garbage_is_answered_and_the_broker_lives(peer: Any, parts: list[bytes], code: str) -> None:
    client = peer()
    client.socket.send_multipart(parts)
    answer = client.hear()
    assert (answer["type"], answer["code"]) == ("error", code)
    assert peer().ask("hello")["type"] == "welcome"


def test_garbage_is_counted_by_kind(peer: Any, server: Server) -> None:
    dealer = peer(zmq.DEALER)
    dealer.socket.send_multipart([b"no", b"empty", b"frame"])
    dealer.socket.send_multipart([b"x"] * 50)
    dealer.socket.send_multipart([b"", b"junk"])
    dealer.socket.send_multipart([b"", msgpack.packb({"v": 3})])
    dealer.send("goodbye", session=1)
    dealer.hear("register_again")
    assert server.core.rejected == {"no_envelope": 2, "bad_request": 1, "unsupported_version": 1, "unknown_session": 1}


@pytest.mark.parametrize(
    "junk", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\xff\0\0\0\0\0\0\0\x01\x7f\x03", bytes(5000)]
)
def test_a_stranger_who_speaks_no_zeromq_is_no_trouble(peer: Any, server: Server, junk: bytes) -> None:
    host, port = server.endpoint.removeprefix("tcp://").split(":")
    with sockets.create_connection((host, int(port))) as stranger:
        stranger.sendall(junk)
        assert peer().ask("hello")["type"] == "welcome"


def test_a_frame_that_is_too_large_costs_the_sender_its_connection_and_nobody_else(peer: Any) -> None:
    peer(zmq.DEALER).socket.send_multipart([b"", bytes(FRAME + 1000)])
    assert peer().ask("hello")["type"] == "welcome"


def test_a_squatted_routing_id_does_nothing(net: Net, server: Server, peer: Any) -> None:
    for number in range(20):
        squatter = net.socket(zmq.DEALER)
        squatter.setsockopt(zmq.ROUTING_ID, b"\x01\0\0\0" + bytes([number]))
        squatter.connect(server.endpoint)
    twins = [net.socket(zmq.DEALER) for _ in range(2)]
    for twin in twins:
        twin.setsockopt(zmq.ROUTING_ID, b"the same")
        twin.connect(server.endpoint)
        twin.send_multipart([b"", *frames("hello", request=1)])
    assert twins[0].poll(PATIENCE_MS) or twins[1].poll(PATIENCE_MS)
    assert peer().ask("hello")["type"] == "welcome"


def test_a_client_that_does_not_read_keeps_nobody_waiting(peer: Any, worker: Any) -> None:
    agent, lazy, client = worker(), peer(zmq.DEALER, RCVHWM=1), peer()
    client.send("run", {"wasm": WASM}, request=1, **run_fields("j"))
    agent.done(agent.job(), {"stdout": bytes(200_000)})
    client.hear("result")
    for number in range(2000):
        lazy.send("get_result", request=number, job="j")
    assert client.ask("hello")["type"] == "welcome"
    assert len(client.ask("get_result", job="j")["stdout"]) == 200_000


def test_an_exception_in_the_core_is_logged_and_answered(
    peer: Any, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.core.modules, "owned", lambda principal: 1 / 0)
    answer = peer().ask("list_modules")
    assert (answer["type"], answer["code"], answer["request"]) == ("error", "internal", 1)
    assert "ZeroDivisionError" in caplog.text
    assert server.core.rejected == {"internal": 1}
    assert peer().ask("hello")["type"] == "welcome"


# --- addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "[::1]:0", "ipc"])
def test_every_kind_of_local_address_can_be_bound(net: Net, tmp_path: Path, address: str) -> None:
    where = endpoint(f"ipc://{tmp_path}/broker" if address == "ipc" else address)
    server = Server(BrokerSettings(), where)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        assert not server.endpoint.endswith(":0")
        client = Peer(net, server.endpoint, IPV6=int("[" in where))
        assert client.ask("hello")["type"] == "welcome"
    finally:
        server.stop()
        thread.join()
        server.close()


def test_a_stale_ipc_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "broker"
    with sockets.socket(sockets.AF_UNIX) as stale:
        stale.bind(str(path))
    first = Server(BrokerSettings(), f"ipc://{path}")
    with pytest.raises(BadSetting, match="another process listens"):
        Server(BrokerSettings(), f"ipc://{path}")
    first.close()
    path.write_text("precious")
    with pytest.raises(BadSetting, match="no socket"):
        Server(BrokerSettings(), f"ipc://{path}")
    assert path.read_text() == "precious"


def test_an_address_that_is_taken_is_a_sentence(server: Server) -> None:
    with pytest.raises(BadSetting, match=r"can't be bound: Address already in use\."):
        Server(BrokerSettings(), server.endpoint)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "*:0", "[::]:0"])
def test_an_address_beyond_this_machine_is_refused(address: str) -> None:
    with pytest.raises(BadSetting, match="--insecure"):
        run_broker(BrokerSettings(), endpoint(address))


# --- as a process ------------------------------------------------------------------------------------

PROGRAM = """
import sys
from minilambda.broker.run import run_broker
from minilambda.settings import BrokerSettings
def bound(address):
    print(address, flush=True)
settings = BrokerSettings(heartbeat=0.2, liveness=1.0)
sys.exit(run_broker(settings, sys.argv[1], bound, insecure=len(sys.argv) > 2))
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-W", "error", "-c", PROGRAM, "tcp://0.0.0.0:0", "insecure"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as started:
        yield started
        started.kill()


def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip().replace("0.0.0.0", "127.0.0.1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_broker_cleanly(net: Net, process: Any, number: int) -> None:
    client = Peer(net, address_of(process))
    assert client.ask("hello")["type"] == "welcome"
    process.send_signal(number)
    assert process.wait(10) == 0
    warning, *rest = process.stderr.read().splitlines()
    assert "--insecure was given" in warning and rest == []


def test_a_broker_that_was_stopped_for_long_loses_no_worker_that_kept_reporting(net: Net, process: Any) -> None:
    address = address_of(process)
    agent, client = Worker(net, address), Peer(net, address)
    client.send("run", {"wasm": WASM}, request=1, **run_fields("j", retries=0))
    dispatch = agent.job()
    process.send_signal(signal.SIGSTOP)
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        agent.send("report", session=agent.session, queue=1, seen=1)
        threading.Event().wait(0.1)
    process.send_signal(signal.SIGCONT)
    agent.hear("beat")
    agent.done(dispatch)
    assert client.hear()["result"]["state"] == "completed"
