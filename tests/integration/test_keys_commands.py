"""Keys as people use them: the commands, with real brokers, workers and clients."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda.keys import key_bytes
from tests import wat
from tests.cluster import Cluster, Ended, Service, wait_for

NAMES = ("broker", "worker", "alice", "root", "stranger")
LISTENING = re.compile(r"listening on tcp://0\.0\.0\.0:([1-9]\d*)")
REGISTERED = re.compile(r"registered with")


class Keyed:
    """A cluster whose processes have keys, and whose homes are directories of the test."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(folder)
        self.folder = folder
        self.keys = folder / "home" / ".config" / "minilambda" / "keys"
        self.state = folder / "home" / ".local" / "state" / "minilambda" / "broker"
        self.publics = {name: self.call("", "keygen", name).stdout.decode().strip() for name in NAMES}
        for name, role in (("worker", "worker"), ("alice", "client"), ("root", "admin")):
            assert self.call("", "authorize", name, "--role", role).code == 0

    def call(self, which: str, *args: str, **env: str) -> Ended:
        """`bin/minilambda`, or with ``which`` one of the others."""
        command = self.cluster.command(which, *args)
        command[1] = command[1].removesuffix("-")
        more = {**self.cluster.env, **env}
        done = subprocess.run(command, capture_output=True, env=more, timeout=50, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)

    def start_broker(self, *options: str) -> Service:
        broker = self.cluster._start("broker", "--bind", "0.0.0.0:0", "--key", "broker", *options)
        self.cluster.address = "127.0.0.1:" + broker.wait_printed(LISTENING)[1]
        return broker

    def start_worker(self, name: str = "worker") -> Service:
        return self.cluster.start_worker("--slots", "1", "--key", name, "--server-key", self.publics["broker"])

    def client(self, name: str, *args: str) -> Ended:
        place = ("--server", self.cluster.address, "--server-key", "broker", "--key", name)
        return self.call("client", *place, *args)

    def secrets(self) -> dict[str, str]:
        texts = {name: (self.keys / f"{name}.secret").read_text() for name in NAMES}
        return {name: re.findall(r"^secret (\S+)$", text, re.M)[0] for name, text in texts.items()}


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Keyed]:
    made = Keyed(tmp_path)
    try:
        yield made
        made.cluster.stop()
    finally:
        made.cluster.kill()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes_below(folder: Path) -> dict[str, int]:
    return {path.name: mode(path) for path in folder.rglob("*") if path.is_file()}


def test_keygen_makes_files_with_safe_modes_and_never_overwrites(keyed: Keyed) -> None:
    before = {path.name: path.read_text() for path in keyed.keys.iterdir()}
    assert mode(keyed.keys) == 0o700
    assert modes_below(keyed.keys) == {
        f"{n}.{end}": m for n in NAMES for end, m in (("secret", 0o600), ("public", 0o644))
    }
    done = keyed.call("", "keygen", "alice")
    assert done.code == 1 and b"alice.secret exists, and is not overwritten" in done.stderr and not done.stdout
    assert {path.name: path.read_text() for path in keyed.keys.iterdir()} == before
    assert all(len(key_bytes(public)) == 32 for public in keyed.publics.values())
    assert keyed.call("", "keygen", "../x").code == 2


def test_the_list_is_kept_for_its_owner_and_shown(keyed: Keyed) -> None:
    listed = keyed.call("", "authorize", "--list")
    rows = [line.split() for line in listed.stdout.decode().splitlines()[1:]]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        (role, name, keyed.publics[name])
        for role, name in (("worker", "worker"), ("client", "alice"), ("admin", "root"))
    ]
    assert modes_below(keyed.state) == {"authorized-keys": 0o600} and mode(keyed.state) == 0o700
    again = keyed.call("", "authorize", keyed.publics["alice"], "--role", "king")
    assert again.code == 1 and b"'king' is not a role" in again.stderr
    gone = keyed.call("", "revoke", "nobody")
    assert gone.code == 1 and b"No key of that name" in gone.stderr
    apart = keyed.folder / "apart"
    assert keyed.call("", "authorize", keyed.publics["alice"], "--role", "client", "--keys", str(apart)).code == 0
    assert modes_below(apart) == {"authorized-keys": 0o600}


def test_a_broker_that_others_reach_does_not_start_without_keys_and_says_what_to_do(keyed: Keyed) -> None:
    done = keyed.call("broker", "--bind", "0.0.0.0:18080")
    assert done.code == 1
    assert b"`minilambda keygen broker`, then `minilambda-broker --bind 0.0.0.0:18080 --key broker`" in done.stderr
    service = keyed.cluster._start("broker", "--bind", "0.0.0.0:0", "--insecure")
    service.wait_printed(LISTENING)
    assert re.search(r"WARNING: ANYONE who reaches tcp://0.0.0.0:0 can run code", service.printed())


def test_jobs_run_with_keys_between_machines_and_changes_take_effect_at_once(keyed: Keyed) -> None:
    broker, worker = keyed.start_broker(), keyed.start_worker()
    worker.wait_printed(REGISTERED)
    hello = keyed.folder / "hello.wasm"
    hello.write_bytes(wat.wasm(wat.HELLO))
    assert keyed.client("alice", str(hello)).stdout == b"Hello, World!\n" or keyed.client("alice", str(hello)).code == 0
    assert keyed.client("root", "workers").code == 0
    refused = keyed.client("alice", "workers")
    assert refused.code == 125 and b"forbidden: " in refused.stderr
    refused = keyed.client("stranger", "jobs")
    assert refused.code == 125 and b"key_refused: " in refused.stderr and b"refused this key" in refused.stderr
    assert keyed.call("", "authorize", "stranger", "--role", "client").code == 0
    wait_for(lambda: keyed.client("stranger", "jobs").code == 0, "the new key gets in")
    assert keyed.call("", "revoke", "worker").code == 0
    worker.wait_printed(re.compile("refused this key"))
    assert keyed.call("", "authorize", "worker", "--role", "worker").code == 0
    wait_for(lambda: len(REGISTERED.findall(worker.printed())) == 2, "the worker is back")
    assert "refused a key that is not authorized: " + keyed.publics["stranger"] in broker.printed()
    assert_no_secrets(keyed)


def test_a_worker_with_the_wrong_key_says_which_and_goes_on_trying(keyed: Keyed) -> None:
    broker = keyed.start_broker()
    as_client = keyed.start_worker("alice")
    as_client.wait_printed(re.compile(r"role client, which may not send 'register'"))
    options = ("--key", "worker", "--server-key", "stranger")
    other = keyed.cluster.start_worker("--slots", "1", *options)
    other.wait_printed(re.compile("The key of the broker at .* is not the one given"))
    without = keyed.cluster.start_worker("--slots", "1")
    without.wait_printed(re.compile("wants keys; give --key and --server-key"))
    assert keyed.call("", "authorize", "alice", "--role", "worker").code == 0
    as_client.wait_printed(REGISTERED)
    assert "takes this broker for another" in broker.printed()


def test_a_hang_up_makes_the_broker_look_at_once_and_does_not_end_it(keyed: Keyed) -> None:
    broker = keyed.start_broker()
    assert keyed.call("", "revoke", "alice").code == 0
    broker.signal(signal.SIGHUP)
    wait_for(lambda: keyed.client("alice", "jobs").code == 125, "the key is refused")
    assert keyed.client("root", "jobs").code == 0


def test_a_loose_or_misplaced_secret_is_refused_and_never_shown(keyed: Keyed) -> None:
    path = keyed.keys / "alice.secret"
    secret = keyed.secrets()["alice"]
    path.chmod(0o644)
    for which in ("broker", "worker", "client"):
        more = ("jobs",) if which == "client" else ()
        peer = () if which == "broker" else ("--server-key", "broker")
        done = keyed.call(which, "--key", "alice", *peer, *more)
        assert done.code == 2 and f"chmod 600 {path}".encode() in done.stderr, which
        done = keyed.call(which, "--key", secret, *peer, *more)
        assert done.code == 2 and secret.encode() not in done.stderr + done.stdout, which
    done = keyed.call("client", "jobs", MINILAMBDA_KEY=str(path), MINILAMBDA_SERVER_KEY="broker")
    assert done.code == 2 and b"chmod 600" in done.stderr
    path.chmod(0o600)
    done = keyed.call("client", "--key", "alice", "jobs")
    assert done.code == 2 and b"no server key" in done.stderr


def test_what_a_user_has_set_for_another_broker_is_not_for_the_children_of_up(keyed: Keyed) -> None:
    keys = {"MINILAMBDA_KEY": "alice", "MINILAMBDA_SERVER_KEY": "broker"}
    keyed.cluster.env.update(keys)
    command = [*keyed.cluster.command("", "up", "--bind", "127.0.0.1:0", "--slots", "1")]
    command[1] = command[1].removesuffix("-")
    service = Service("up", command, keyed.cluster.env, keyed.folder / "logs")
    keyed.cluster.services.append(service)
    service.wait_printed(REGISTERED)


def assert_no_secrets(keyed: Keyed) -> None:
    """No secret is in a log, in a command line or environment that others can see, or in a file but its own."""
    secrets = {secret.encode() for secret in keyed.secrets().values()}
    places = [path for path in keyed.folder.rglob("*") if path.is_file() and path.suffix != ".secret"]
    assert len(places) > 5
    for service in keyed.cluster.services:
        places += [Path(f"/proc/{service.process.pid}/{what}") for what in ("cmdline", "environ")]
    for path in places:
        data = path.read_bytes()
        assert not [secret for secret in secrets if secret in data], path
    loose = [path for path in keyed.state.rglob("*") if path.is_file() and mode(path) & 0o022]
    assert not loose and mode(keyed.state) == 0o700 and os.path.getsize(keyed.state / "authorized-keys")
