"""Keys over real sockets: roles by hand-written peers, every wrong combination, changes while connected."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from minilambda import Client
from minilambda.broker import authorized
from minilambda.broker.access import BrokerKeys
from minilambda.broker.server import Server
from minilambda.curve import make_pair
from minilambda.errors import Forbidden, KeyRefused, NotFound, Unreachable
from minilambda.keyfiles import write_pair
from minilambda.keys import BadKey, Pair, principal_of
from minilambda.settings import BrokerSettings
from tests.broker_peers import DIGEST, WASM, Net, Peer, Worker, run_fields, until

NAMES = ("broker", "alice", "bob", "worker", "root", "stranger")
PAIRS = {name: make_pair() for name in NAMES}
ROLES = {"alice": "client", "bob": "client", "worker": "worker", "root": "admin"}
WHO = {name: principal_of(pair.public) for name, pair in PAIRS.items()}
REF = ["x", "j", 1]
RESULT = {"state": "completed", "exit_code": 0}
SESSION = {"session": 1, "queue": 0, "seen": 0}

FROM_CLIENTS: dict[str, dict[str, Any]] = {
    "hello": {},
    "run": run_fields("j"),
    "status": {"job": "j"},
    "get_result": {"job": "j"},
    "cancel": {"job": "j"},
    "put": {"module": DIGEST, "size": 10},
    "list_modules": {},
    "list_workers": {},
    "list_jobs": {},
    "run_again": {"job": "k", "of": "j"},
}
FROM_WORKERS: dict[str, dict[str, Any]] = {
    "register": {"worker": "w", "name": "w", "slots": 1},
    "report": SESSION,
    "done": {**SESSION, "ref": REF, "result": RESULT},
    "returned": {**SESSION, "ref": REF},
    "goodbye": {"session": 1},
    "fetch": {"session": 1, "handle": DIGEST, "offset": 0, "size": 1},
    "chunk": {"session": 1, "handle": DIGEST, "offset": 0, "total": 0},
}


def armed(socket: zmq.Socket, own: Pair | None, server: Pair = PAIRS["broker"]) -> zmq.Socket:
    """A bare socket with a key, as an author of another client would do it."""
    if own is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, server.public.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, own.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, own.secret.encode())
    return socket


class KeyedNet(Net):
    """Sockets that have a key from the start."""

    own: Pair | None = None

    def socket(self, kind: int) -> zmq.Socket:
        return armed(super().socket(kind), self.own)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "state" / authorized.FILE
    for name, role in ROLES.items():
        authorize(path, name, role)
    return path


def authorize(path: Path, name: str, role: str) -> None:
    authorized.change(path, lambda known: known.with_key(role, PAIRS[name].public, name))


def revoke(path: Path, name: str) -> None:
    authorized.change(path, lambda known: known.without(name)[0])


CURVE_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)


@contextlib.contextmanager
def stranger(server: Server, greeting: bytes) -> Iterator[None]:
    """Somebody who connects to a broker, says so much, and goes."""
    host, _, port = server.endpoint.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(greeting)
        yield


def serving(keys: BrokerKeys | None, endpoint: str = "tcp://127.0.0.1:0") -> Iterator[Server]:
    made = Server(BrokerSettings(heartbeat=0.5, liveness=2.0), endpoint, keys=keys)
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join()
        made.core.check()
        made.close()


@pytest.fixture
def server(listed: Path) -> Iterator[Server]:
    yield from serving(BrokerKeys(PAIRS["broker"], listed))


@pytest.fixture
def open_server() -> Iterator[Server]:
    yield from serving(None)


@pytest.fixture
def nets() -> Iterator[Callable[[str], Net]]:
    """Sockets with the key of somebody, "" for none."""
    made: list[Net] = []

    def net(name: str) -> Net:
        found = KeyedNet()
        found.own = PAIRS[name] if name else None
        made.append(found)
        return found

    yield net
    for each in made:
        each.close()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    for name, pair in PAIRS.items():
        write_pair(folder, name, pair)
    return folder


@pytest.fixture
def client(server: Server, keys: Path) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def connect(name: str, broker: str = "broker", address: str = server.endpoint) -> Client:
        found = Client(address, key=keys / f"{name}.secret", server_key=PAIRS[broker].public, connect_timeout=20.0)
        made.append(found)
        return found

    yield connect
    for each in made:
        each.close()


# --- roles -------------------------------------------------------------------------------------------


def outcome(peer: Peer, kind: str, fields: dict[str, Any]) -> str:
    """What a message comes to: the code of an error, or the kind of the answer."""
    request = {"request": 3} if kind in FROM_CLIENTS else {}
    peer.send(kind, **request, **fields)
    answer = peer.hear()
    assert answer["type"] != "error" or answer["request"] == request.get("request", 0)
    return answer["code"] if answer["type"] == "error" else answer["type"]


@pytest.mark.parametrize("name", ["alice", "worker", "root"])
def test_each_role_is_refused_every_message_that_is_not_its_own(
    server: Server, nets: Callable[[str], Net], name: str
) -> None:
    peer = Peer(nets(name), server.endpoint, zmq.DEALER)
    refused = FROM_CLIENTS.keys() if name == "worker" else FROM_WORKERS.keys()
    refused = {*refused, "list_workers"} if name == "alice" else {*refused}
    for kind, fields in [*FROM_CLIENTS.items(), *FROM_WORKERS.items()]:
        if kind in refused:
            assert outcome(peer, kind, fields) == "forbidden", kind
    assert len(server.core.workers) == 0 and not server.core.jobs
    assert server.core.rejected["forbidden"] == len(refused)
    for kind in {"hello", "list_jobs", "put"} if name != "worker" else {"register"}:
        fields = FROM_CLIENTS.get(kind) or FROM_WORKERS.get(kind) or {}
        assert outcome(peer, kind, fields) in ("welcome", "jobs", "stored", "registered"), kind


def test_a_principal_is_that_of_the_key_whatever_the_message_says(server: Server, nets: Callable[[str], Net]) -> None:
    for name in ("alice", "root"):
        welcome = Peer(nets(name), server.endpoint).ask("hello", principal=WHO["bob"])
        assert welcome["principal"] == WHO[name]


def test_two_keys_use_the_same_job_id_and_never_meet(server: Server, nets: Callable[[str], Net]) -> None:
    worker = Worker(nets("worker"), server.endpoint)
    alice, bob = Peer(nets("alice"), server.endpoint), Peer(nets("bob"), server.endpoint)
    alice.send("run", {"wasm": WASM}, request=1, **run_fields("j"))
    dispatch = worker.job()
    assert dispatch["ref"] == [WHO["alice"], "j", 1]
    assert bob.ask("get_result", job="j")["code"] == "not_found"
    assert bob.ask("run", **run_fields("j"))["code"] == "not_found"  # nor may it use the module by its hash
    worker.done(dispatch, {"stdout": b"secret"})
    assert alice.hear("result")["stdout"] == b"secret"
    assert bob.ask("get_result", job="j")["code"] == "not_found"
    root = Peer(nets("root"), server.endpoint)
    assert root.ask("get_result", job="j", principal=WHO["alice"])["stdout"] == b"secret"


# --- wrong and missing keys --------------------------------------------------------------------------


def test_a_key_that_is_not_authorized_is_told_so(server: Server, client: Any, caplog: Any) -> None:
    with pytest.raises(KeyRefused, match="refused this key") as caught:
        client("stranger").jobs()
    assert PAIRS["stranger"].public in str(caught.value)
    until(lambda: server.core.rejected.get("key_refused"), "the broker counts it")
    assert f"refused a key that is not authorized: {PAIRS['stranger'].public} from 127.0.0.1" in caplog.text
    assert_no_secret(caplog.text + str(caught.value))


def test_another_broker_than_the_one_named_is_not_believed(server: Server, client: Any, caplog: Any) -> None:
    with pytest.raises(KeyRefused, match="is not the one given"):
        client("alice", broker="bob").jobs()
    until(lambda: "takes this broker for another" in caplog.text, "the broker says so")
    assert_no_secret(caplog.text)


def test_a_client_without_a_key_is_told_that_the_broker_wants_one(server: Server, caplog: Any) -> None:
    caplog.set_level(logging.INFO)  # it may leave before the broker has seen what is wrong
    with Client(server.endpoint, connect_timeout=20.0) as client, pytest.raises(KeyRefused, match="wants keys"):
        client.jobs()
    until(lambda: server.core.rejected.get("handshake_failed"), "the broker counts it")
    assert "this broker wants" in caplog.text


def test_a_client_with_a_key_is_told_that_the_broker_uses_none(open_server: Server, keys: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    found = Client(open_server.endpoint, key=keys / "alice.secret", server_key=keys / "broker.public")
    with found, pytest.raises(KeyRefused, match="uses no keys"):
        found.jobs()
    until(lambda: open_server.core.rejected.get("handshake_failed"), "the broker counts it")
    assert "this broker uses no" in caplog.text


def test_where_no_broker_is_keys_are_not_to_blame(server: Server, client: Any) -> None:
    with socket_that_closes() as address:
        found = Client(address, connect_timeout=1.0)
        with found, pytest.raises(Unreachable):
            found.jobs()


def test_a_flood_of_refused_keys_is_counted_and_not_all_of_it_logged(
    server: Server, nets: Callable[[str], Net], caplog: Any
) -> None:
    net = nets("stranger")
    for _ in range(30):
        net.socket(zmq.DEALER).connect(server.endpoint)
    until(lambda: server.core.rejected.get("key_refused", 0) >= 30, "all are counted")
    assert caplog.text.count("refused a key") <= 6


@pytest.mark.parametrize("greeting", [b"", b"\xff" + bytes(8) + b"\x7f\x03", b"GET / HTTP/1.1\r\n\r\n"])
def test_whoever_goes_away_during_the_handshake_is_counted_and_no_warning(
    open_server: Server, caplog: Any, greeting: bytes
) -> None:
    caplog.set_level(logging.INFO)
    with stranger(open_server, greeting):
        pass
    until(lambda: open_server.core.rejected.get("handshake_failed"), "the broker counts it")
    until(lambda: "did not finish the handshake" in caplog.text, "the broker tells whoever wants to know all")
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_a_storm_of_such_peers_fills_no_log_and_hides_no_wrong_key(open_server: Server, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(30):
        with stranger(open_server, b""):
            pass
    until(lambda: open_server.core.rejected.get("handshake_failed", 0) >= 30, "all are counted")
    assert caplog.text.count("did not finish the handshake") <= 6
    with stranger(open_server, CURVE_GREETING):
        until(lambda: "wants to use keys, and this broker uses none" in caplog.text, "the broker says so")


def test_a_peer_that_the_gate_has_not_let_in_gets_no_answer(server: Server, nets: Callable[[str], Net]) -> None:
    for name in ("stranger", ""):
        peer = Peer(nets(name), server.endpoint, zmq.DEALER)
        peer.send("hello", request=1)
        assert not peer.socket.poll(500)


# --- changes -----------------------------------------------------------------------------------------


def test_a_key_that_is_authorized_while_the_broker_runs_gets_in(server: Server, listed: Path, client: Any) -> None:
    found = client("stranger")
    with pytest.raises(KeyRefused):
        found.jobs()
    authorize(listed, "stranger", "client")
    until(lambda: server.core.access.authority.role(WHO["stranger"]), "the broker has taken note")
    assert found.jobs() == []


def test_a_waiting_client_that_is_revoked_is_cut_and_told(server: Server, listed: Path, client: Any) -> None:
    alice = client("alice")
    alice.upload(WASM)
    failed: list[Exception] = []

    def wait() -> None:
        mine = client("alice")
        try:
            mine.run(WASM, job_id="j")
        except Exception as error:
            failed.append(error)
        finally:
            mine.close()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    until(lambda: any(job.waiters for job in list(server.core.jobs.values())), "the client waits")
    revoke(listed, "alice")
    thread.join(20)
    assert not thread.is_alive() and [type(each) for each in failed] == [KeyRefused]
    job = server.core.jobs[WHO["alice"], "j"]
    assert not job.waiters and job.state == "queued"
    with pytest.raises(KeyRefused):
        alice.jobs()
    root = client("root")
    assert [each.principal for each in root.jobs(principal="*")] == [WHO["alice"]]
    assert root.job("j", WHO["alice"]).cancel().state == "cancelled"


def test_a_revoked_worker_is_cut_and_its_jobs_run_elsewhere(
    server: Server, listed: Path, nets: Callable[[str], Net]
) -> None:
    authorize(listed, "stranger", "worker")
    until(lambda: server.core.access.authority.role(WHO["stranger"]), "the broker has taken note")
    first = Worker(nets("worker"), server.endpoint)
    events = first.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    alice = Peer(nets("alice"), server.endpoint)
    alice.send("run", {"wasm": WASM}, request=1, **run_fields("j"))
    stale = first.job()
    second = Worker(nets("stranger"), server.endpoint, "w2")
    revoke(listed, "worker")
    again = second.job()
    assert again["ref"] == [WHO["alice"], "j", 2]
    assert events.poll(10_000), "its connection is cut"
    first.done(stale, {"stdout": b"too late"})
    second.done(again, {"stdout": b"right"})
    assert alice.hear("result")["stdout"] == b"right"
    first.socket.disable_monitor()
    events.close()


def test_another_role_cuts_a_connection_too(server: Server, listed: Path, nets: Callable[[str], Net]) -> None:
    Worker(nets("worker"), server.endpoint)
    authorize(listed, "worker", "client")
    until(lambda: len(server.core.workers) == 0, "it is no worker any more")
    assert Peer(nets("worker"), server.endpoint).ask("hello")["principal"] == WHO["worker"]


def test_revoking_one_leaves_the_connections_of_all_others_alone(
    server: Server, listed: Path, nets: Callable[[str], Net]
) -> None:
    worker = Worker(nets("worker"), server.endpoint)
    bob, alice = Peer(nets("bob"), server.endpoint), Peer(nets("alice"), server.endpoint)
    assert bob.ask("hello")["type"] == alice.ask("hello")["type"] == "welcome"
    watched = [peer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED) for peer in (worker, bob, alice)]
    revoke(listed, "alice")
    assert watched[2].poll(10_000)
    assert bob.ask("hello")["type"] == "welcome" and len(server.core.workers) == 1
    assert not watched[0].poll(0) and not watched[1].poll(0)
    for peer, events in zip((worker, bob, alice), watched, strict=True):
        peer.socket.disable_monitor()
        events.close()


def test_a_list_that_can_not_be_read_changes_nothing(server: Server, listed: Path, client: Any, caplog: Any) -> None:
    alice = client("alice")
    assert alice.jobs() == []
    listed.write_text("nonsense\n")
    until(lambda: "the keys stay as they were" in caplog.text, "the broker says so")
    assert alice.jobs() == []
    listed.unlink()
    with pytest.raises((KeyRefused, Forbidden)):
        until(lambda: alice.jobs() != [], "no list lets nobody in")


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_broker_does_not_begin_with_a_list_that_others_can_change(listed: Path, mode: int) -> None:
    listed.chmod(mode)
    with pytest.raises(BadKey, match=f"chmod 600 {listed}"):
        next(serving(BrokerKeys(PAIRS["broker"], listed)))


def test_connections_that_come_and_go_leave_no_descriptors(server: Server, client: Any, nets: Any) -> None:
    client("root").jobs()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        net = KeyedNet()
        net.own = PAIRS["alice"]
        assert Peer(net, server.endpoint).ask("hello")["type"] == "welcome"
        net.close()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2, "they are given back")


def test_keys_work_over_ipc_too(listed: Path, tmp_path: Path, nets: Callable[[str], Net]) -> None:
    endpoint = f"ipc://{tmp_path}/s"
    for made in serving(BrokerKeys(PAIRS["broker"], listed), endpoint):
        peer = Peer(nets("alice"), made.endpoint, zmq.DEALER)
        assert peer.ask("hello")["principal"] == WHO["alice"]
        events = peer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        revoke(listed, "alice")
        assert events.poll(10_000), "it is cut"
        peer.socket.disable_monitor()
        events.close()


def test_a_job_of_another_is_not_found_by_a_client_of_the_library(server: Server, client: Any) -> None:
    job = client("alice").submit(WASM)
    with pytest.raises(NotFound):
        client("bob").job(job.id).status()
    with pytest.raises(Forbidden):
        client("bob").job(job.id, WHO["alice"]).cancel()
    with pytest.raises(Forbidden):
        client("alice").workers()
    assert client("root").workers() == []


# --- helpers -----------------------------------------------------------------------------------------


def assert_no_secret(text: str) -> None:
    assert not [name for name, pair in PAIRS.items() if pair.secret in text]


class socket_that_closes:
    """An address where connections are taken and closed at once."""

    def __enter__(self) -> str:
        import socket

        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                self._listener.accept()[0].close()
            except OSError:
                return

    def __exit__(self, *_: object) -> None:
        import socket

        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
