"""A real broker on real sockets. Its peers are bare pyzmq and msgpack: they share no code with it."""

from __future__ import annotations

import hashlib
import os
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from minilambda.broker.server import Server, run_broker
from minilambda.settings import BadSetting, BrokerSettings, endpoint

PROTOCOL = b"minilambda/1"
WASM = b"\0asm any bytes"
DIGEST = "sha256:" + hashlib.sha256(WASM).hexdigest()
LARGE = bytes(range(256)) * 4096  # 1 MiB
FRAME = 256 * 1024
PATIENCE_MS = 10_000

Header = dict[str, Any]


def frames(kind: str, bodies: dict[str, bytes] | None = None, **fields: Any) -> list[bytes]:
    bodies = {name: data for name, data in (bodies or {}).items() if data}
    header = {"type": kind, **fields, "bodies": [(name, len(data)) for name, data in bodies.items()]}
    cut = [data[at : at + FRAME] for data in bodies.values() for at in range(0, len(data), FRAME)]
    return [PROTOCOL, msgpack.packb(header), *cut]


def parse(parts: list[bytes]) -> Header:
    """The header, its bodies in place."""
    assert parts[0] == PROTOCOL
    header, rest = msgpack.unpackb(parts[1]), parts[2:]
    for name, size in header.pop("bodies", ()):
        data = b""
        while len(data) < size:
            data += rest.pop(0)
        assert len(data) == size
        header[name] = data
    assert rest == []
    return header


class Net:
    """The sockets of one test, all closed at its end."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._sockets: list[zmq.Socket] = []

    def socket(self, kind: int) -> zmq.Socket:
        made = self._context.socket(kind)
        made.setsockopt(zmq.LINGER, 0)
        self._sockets.append(made)
        return made

    def close(self) -> None:
        for made in self._sockets:
            made.close()
        self._context.term()


class Peer:
    """A socket with a deadline for every answer."""

    def __init__(self, net: Net, address: str, kind: int = zmq.REQ, **options: int) -> None:
        self.socket = net.socket(kind)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.delimiter = [] if kind == zmq.REQ else [b""]
        self.socket.connect(address)

    def send(self, kind: str, bodies: dict[str, bytes] | None = None, **fields: Any) -> None:
        self.socket.send_multipart([*self.delimiter, *frames(kind, bodies, **fields)])

    def hear(self, kind: str | None = None) -> Header:
        """The next message, or the next one of a kind."""
        while True:
            assert self.socket.poll(PATIENCE_MS), f"no {kind or 'answer'}"
            header = parse(self.socket.recv_multipart()[len(self.delimiter) :])
            if kind in (None, header["type"]):
                return header

    def ask(self, kind: str, bodies: dict[str, bytes] | None = None, **fields: Any) -> Header:
        self.send(kind, bodies, request=1, **fields)
        return self.hear()


class Worker(Peer):
    """A DEALER that registers and does as it is told."""

    def __init__(self, net: Net, address: str, name: str = "w", slots: int = 2, **fields: Any) -> None:
        super().__init__(net, address, zmq.DEALER)
        self.name, self.slots, self.seen = name, slots, 0
        self.register(**fields)

    def register(self, **fields: Any) -> None:
        self.send("register", worker=self.name, name=self.name, slots=self.slots, **fields)
        self.session, self.seen = self.hear("registered")["session"], 0

    def job(self) -> Header:
        dispatch = self.hear("dispatch")
        self.seen = dispatch["sequence"]
        return dispatch

    def done(self, dispatch: Header, bodies: dict[str, bytes] | None = None, queue: int = 0, **fields: Any) -> None:
        rest = {
            "session": self.session,
            "queue": queue,
            "seen": self.seen,
            "result": {"state": "completed", "exit_code": 0},
        }
        self.send("done", bodies, ref=dispatch["ref"], **(rest | fields))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(BrokerSettings(heartbeat=0.5, liveness=2.0), "tcp://127.0.0.1:0")
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.stop()
    thread.join()
    made.core.check()
    made.close()


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    made.close()


@pytest.fixture
def peer(net: Net, server: Server) -> Callable[..., Peer]:
    return lambda *args, **options: Peer(net, server.endpoint, *args, **options)


@pytest.fixture
def worker(net: Net, server: Server) -> Callable[..., Worker]:
    return lambda *args, **options: Worker(net, server.endpoint, *args, **options)


def run_fields(job: str, **spec: Any) -> Header:
    return {"job": job, "spec": {"module": DIGEST, **spec}}


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE_MS / 1000
    while not condition():
        assert time.monotonic() < end, what
        threading.Event().wait(0.01)


# --- the exchange ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"REQ_RELAXED": 1, "REQ_CORRELATE": 1}], ids=["REQ", "REQ relaxed"])
def test_a_req_socket_runs_a_job(peer: Any, worker: Any, options: dict) -> None:
    agent, client = worker(), peer(**options)
    client.send("run", {"wasm": WASM, "stdin": b"in"}, request=7, **run_fields("j", args=["a"]))
    dispatch = agent.job()
    assert (dispatch["wasm"], dispatch["stdin"], dispatch["spec"]["args"]) == (WASM, b"in", ["a"])
    agent.done(dispatch, {"stdout": b"out", "stderr": b"err"})
    answer = client.hear()
    assert (answer["type"], answer["request"], answer["job"]) == ("result", 7, "j")
    assert (answer["stdout"], answer["stderr"], answer["result"]["state"]) == (b"out", b"err", "completed")
    assert agent.hear()["ref"] == dispatch["ref"]


def test_a_relaxed_req_that_asks_again_gets_the_answer_to_its_last_request(peer: Any, worker: Any) -> None:
    agent, client = worker(), peer(REQ_RELAXED=1, REQ_CORRELATE=1)
    client.send("run", {"wasm": WASM}, request=1, **run_fields("j"))
    dispatch = agent.job()
    client.send("run", {"wasm": WASM}, request=2, **run_fields("j"))
    assert client_status(peer, "j") == "assigned"
    agent.done(dispatch)
    assert client.hear()["request"] == 2


def client_status(peer: Any, job: str) -> str:
    return peer().ask("status", job=job)["state"]


def test_a_dealer_pipelines_many_jobs(peer: Any, worker: Any) -> None:
    agent, client = worker(), peer(zmq.DEALER)
    client.send("run", {"wasm": WASM}, request=0, **run_fields("j0"))
    for number in range(1, 50):
        client.send("run", {"stdin": b"%d" % number}, request=number, **run_fields(f"j{number}"))
    held = []
    for number in range(50):
        held.append(agent.job())
        agent.done(held.pop(0), {"stdout": b"out of %d" % number})
    answers = {(answer := client.hear())["request"]: answer["stdout"] for _ in range(50)}
    assert answers == {number: b"out of %d" % number for number in range(50)}


def test_large_bodies_cross_in_pieces_both_ways(peer: Any, worker: Any) -> None:
    agent, client = worker(), peer()
    digest = "sha256:" + hashlib.sha256(LARGE).hexdigest()
    for offset in range(0, len(LARGE), FRAME):
        piece = {"data": LARGE[offset : offset + FRAME]}
        stored = client.ask("put", piece, module=digest, size=len(LARGE), offset=offset)
        assert stored["received"] == offset + FRAME
    assert stored["complete"] is True
    client.send("run", {"stdin": LARGE[::-1]}, request=1, job="j", spec={"module": digest})
    dispatch = agent.job()
    assert dispatch["withheld"] == {"stdin": len(LARGE)}
    for handle, data in ((digest, LARGE), ("j/1/stdin/local", LARGE[::-1])):
        got = b""
        while len(got) < len(data):
            agent.send("fetch", session=agent.session, handle=handle, offset=len(got), size=FRAME)
            got += agent.hear("chunk")["data"]
        assert got == data
    agent.done(dispatch, withheld={"stdout": len(LARGE)})
    sent = 0
    while sent < len(LARGE):
        fetch = agent.hear("fetch")
        piece = LARGE[fetch["offset"] : fetch["offset"] + fetch["size"]]
        fields = {"session": agent.session, "handle": fetch["handle"], "offset": fetch["offset"], "total": len(LARGE)}
        agent.send("chunk", {"data": piece}, **fields)
        sent += len(piece)
    assert client.hear()["stdout"] == LARGE


def test_hello_and_the_lists_are_answered(peer: Any, worker: Any) -> None:
    agent, client = worker("anna", 3), peer()
    assert client.ask("hello")["versions"] == [1]
    (row,) = client.ask("list_workers")["workers"]
    assert (row["name"], row["slots"], row["state"]) == ("anna", 3, "idle")
    assert client.ask("list_modules")["modules"] == []
    assert agent.session > 0


# --- workers come and go -----------------------------------------------------------------------------


def test_the_jobs_of_a_worker_that_falls_silent_run_elsewhere(peer: Any, worker: Any) -> None:
    dead, client = worker("dead"), peer()
    client.send("run", {"wasm": WASM}, request=1, **run_fields("j"))
    assert dead.job()["ref"] == ["local", "j", 1]
    alive = worker("alive")
    stop = threading.Event()

    def report() -> None:
        while not stop.wait(0.2):
            alive.send("report", session=alive.session, queue=0, seen=0)

    thread = threading.Thread(target=report)
    thread.start()
    until(lambda: client_status(peer, "j") != "assigned" or row_names(peer) == ["alive"], "the silent worker is lost")
    stop.set()
    thread.join()
    dispatch = alive.job()
    assert dispatch["ref"] == ["local", "j", 2]
    alive.done(dispatch)
    assert client.hear()["result"]["worker"] == "alive"


def row_names(peer: Any) -> list[str]:
    return [row["name"] for row in peer().ask("list_workers")["workers"]]


def test_a_worker_whose_connection_broke_comes_back_with_its_job(peer: Any, worker: Any) -> None:
    first, client = worker("w"), peer()
    client.send("run", {"wasm": WASM}, request=1, **run_fields("j", retries=0))
    dispatch = first.job()
    first.socket.close()
    second = worker("w", held=[dispatch["ref"]])
    second.done(dispatch)
    assert client.hear()["result"]["state"] == "completed"


def test_a_worker_that_the_broker_does_not_know_is_told_to_register_again(peer: Any) -> None:
    stranger = peer(zmq.DEALER)
    stranger.send("report", session=5, queue=0, seen=0)
    assert stranger.hear()["type"] == "register_again"


# --- hostile peers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([b"junk"], "bad_request"),
        ([b"minilambda/9", msgpack.packb({"type": "hello", "request": 1})], "unsupported_version"),
        ([PROTOCOL], "bad_request"),
        ([PROTOCOL, b"\xc1"], "bad_request"),
        ([PROTOCOL, b"\x91" * 1000], "bad_request"),
        ([PROTOCOL, b"\x81\xa4type" + b"\x91" * 1020 + b"\xc0"], "bad_request"),
        ([PROTOCOL, b"\xdd\xff\xff\xff\xff"], "bad_request"),
        ([PROTOCOL, b"\x00" * FRAME], "bad_request"),
        ([PROTOCOL, msgpack.packb({"type": "hello", "request": 1})] + [b"x"] * 500, "bad_request"),
        ([PROTOCOL, msgpack.packb({"type": "dispatch", "request": 1})], "bad_request"),
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
    dealer.socket.send_multipart([b"", b"minilambda/3", b"\x80"])
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
    peer(zmq.DEALER).socket.send_multipart([b"", PROTOCOL, bytes(FRAME + 1000)])
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
from minilambda.broker.server import run_broker
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
    assert process.stderr.read() == ""


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
