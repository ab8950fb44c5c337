"""The commands against a real broker and a real worker."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minilambda import Client, errors
from tests import wat
from tests.cluster import Cluster, descendants, living, wait_for

Guest = Callable[..., Path]


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    """Writes a module to a file."""

    def write(text: str, name: str = "guest.wasm") -> Path:
        path = tmp_path / name
        path.write_bytes(wat.wasm(text))
        return path

    return write


def test_a_guest_writes_raw_bytes_and_exits_with_its_own_code(cluster: Cluster, guest: Guest) -> None:
    done = cluster.run(guest(wat.CAT), stdin=b"\x00\xff\r\n")
    assert (done.code, done.stdout, done.stderr) == (0, b"\x00\xff\r\n", b"")
    done = cluster.run(guest(wat.printing("oops\n", stream=2, exit_code=42)))
    assert (done.code, done.stdout, done.stderr) == (42, b"", b"oops\n")


def test_arguments_need_no_dashes_before_them(cluster: Cluster, guest: Guest) -> None:
    done = cluster.client(guest(wat.ARGS), "--json", "-x")
    assert done.code == 0
    assert b"--json" in done.stdout
    assert b"-x" in done.stdout


def test_a_function_prints_its_value(cluster: Cluster, guest: Guest) -> None:
    done = cluster.run(guest(wat.ADD), "2", "-3", options=("--invoke", "add"))
    assert (done.code, done.stdout) == (0, b"-1\n")
    assert cluster.run_json(guest(wat.ADD), "2", "-3", options=("--invoke", "add"))["value"] == -1


@pytest.mark.parametrize(
    ("text", "options", "exit_code", "code"),
    [
        (wat.LOOP, ("--timeout", "200ms"), 124, "deadline_exceeded"),
        (wat.SLEEP, ("--timeout", "200ms"), 124, "deadline_exceeded"),
        (wat.DIVIDE, (), 134, "trap"),
        (wat.RECURSE, (), 134, "stack_overflow"),
        (wat.MISSING, (), 126, "unknown_import"),
        (wat.ADD, ("--invoke", "nope"), 126, "unknown_export"),
        (wat.ADD, ("--invoke", "add"), 125, "bad_arguments"),
        (wat.FLOOD, ("--output-limit", "1000"), 125, "output_limit"),
        ('(module (memory 100) (func (export "_start")))', ("--memory", "1M"), 137, "out_of_memory"),
    ],
)
def test_a_failure_is_an_exit_code_and_a_sentence(
    cluster: Cluster, guest: Guest, text: str, options: tuple[str, ...], exit_code: int, code: str
) -> None:
    done = cluster.run(guest(text), options=options)
    assert done.code == exit_code, done
    assert re.search(rf"^minilambda-client: {code}: \S.*\.$", done.stderr.decode(), re.M), done.stderr
    found = cluster.run(guest(text), options=("--json", *options))
    assert (found.code, found.json["state"], found.json["error"]["code"]) == (exit_code, "failed", code)


def test_a_trap_shows_its_backtrace(cluster: Cluster, guest: Guest) -> None:
    assert "quotient" in cluster.run(guest(wat.DIVIDE)).stderr.decode()
    assert "quotient" in cluster.run_json(guest(wat.DIVIDE))["error"]["backtrace"]


def test_what_is_no_wasm_is_126_and_what_is_no_file_127(cluster: Cluster, tmp_path: Path) -> None:
    junk = tmp_path / "junk.wasm"
    junk.write_bytes(b"not wasm")
    assert cluster.run(junk).code == 126
    assert cluster.run(tmp_path / "absent.wasm").code == 127
    junk.write_bytes(b"")
    assert cluster.run(junk).code == 126


def test_a_detached_job_is_asked_for_by_its_id(cluster: Cluster, guest: Guest) -> None:
    started = cluster.client("--detach", "--stdin", "-", guest(wat.CAT), stdin=b"later")
    job = started.stdout.decode().strip()
    assert (started.code, started.stderr) == (0, b"")
    done = cluster.client("result", job)
    assert (done.code, done.stdout) == (0, b"later")
    assert b"completed" in cluster.client("status", job).stdout
    assert cluster.client("status", job, "--json").json["state"] == "completed"
    assert cluster.client("--json", "result", job).json["stdout"] == "later"


def test_a_job_can_be_cancelled(cluster: Cluster, guest: Guest) -> None:
    job = cluster.client("--detach", "--timeout", "30", guest(wat.LOOP)).stdout.decode().strip()
    waiting = cluster.client("result", "--wait", "100ms", job)
    assert waiting.code == 125
    assert b"not_finished" in waiting.stderr
    assert cluster.client("cancel", job).code == 0
    assert cluster.client("result", job, "--json").json["state"] == "cancelled"


def test_the_status_of_a_failed_job_says_why(cluster: Cluster, guest: Guest) -> None:
    job = cluster.client("--detach", guest(wat.DIVIDE)).stdout.decode().strip()
    assert cluster.client("result", job).code == 134
    assert b"failed: trap" in cluster.client("status", job).stdout
    assert cluster.client("status", job, "--json").json["error"]["code"] == "trap"


def test_modules_and_workers_are_listed(cluster: Cluster, guest: Guest) -> None:
    cluster.run(guest(wat.HELLO))
    assert b"sha256:" in cluster.client("modules").stdout
    assert all(row["module"].startswith("sha256:") for row in json.loads(cluster.client("modules", "--json").stdout))
    assert b"worker-1" in cluster.client("workers").stdout
    assert [row["name"] for row in json.loads(cluster.client("--json", "workers").stdout)] == ["worker-1"]


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupt_cancels_the_job(cluster: Cluster, guest: Guest, number: signal.Signals, exit_code: int) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("ignored here, as nohup does it")
    job = f"interrupted-{exit_code}"
    options = ("--server", cluster.address, "--timeout", "60", "--job", job)
    process = subprocess.Popen(cluster.command("client", *options, str(guest(wat.LOOP))), stderr=subprocess.PIPE)
    with Client(cluster.address) as client:

        def running() -> bool:
            try:
                return client.job(job).status().state == "running"
            except errors.NotFound:
                return False

        wait_for(running, "the job runs")
        process.send_signal(number)
        assert process.communicate(timeout=20)[1] == b""
        assert process.returncode == exit_code
        with pytest.raises(errors.Cancelled):
            client.job(job).result(timeout=20)


def test_a_reader_that_goes_away_ends_it_quietly(cluster: Cluster, guest: Guest) -> None:
    command = cluster.command("client", "--server", cluster.address, "--stdin", "-", str(guest(wat.CAT)))
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    assert process.communicate(b"x" * 1_000_000, timeout=20)[1] == b""
    assert process.returncode == 0


def test_a_terminal_is_told_what_a_long_job_does(cluster: Cluster, guest: Guest) -> None:
    ours, theirs = pty.openpty()
    options = ("--server", cluster.address, "--timeout", "2500ms", str(guest(wat.LOOP)))
    env = {**cluster.env, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(cluster.command("client", *options), stderr=theirs, stdout=subprocess.DEVNULL, env=env)
    os.close(theirs)
    seen, end = b"", time.monotonic() + 30
    while time.monotonic() < end:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                seen += os.read(ours, 4096)
            except OSError:
                break
    os.close(ours)
    assert process.wait(10) == 124
    assert b"running on worker-1" in seen
    assert b"deadline_exceeded" in seen


def up(cluster: Cluster, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, cluster.command("client")[1].replace("-client", ""), "up", "--bind", "127.0.0.1:0"]
    env = {**cluster.env, "PYTHONUNBUFFERED": "1"}
    cache = ("--cache-dir", str(cluster.folder / "cache"))
    return subprocess.Popen([*command, *cache, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env)


def registered(process: subprocess.Popen[bytes], workers: int) -> str:
    """The address, once so many workers have registered."""
    assert process.stdout is not None
    address, lines = "", []
    while workers:
        line = process.stdout.readline().decode()
        assert line, lines
        lines.append(line)
        address = found[1] if (found := re.search(r"listening on (\S+)", line)) else address
        workers -= "registered with" in line
    return address


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_runs_everything_and_leaves_nothing(cluster: Cluster, number: signal.Signals) -> None:
    process = up(cluster, "--workers", "2", "--slots", "1")
    with Client(registered(process, 2)) as client:
        assert client.run(wat.wasm(wat.HELLO)).stdout == b"hello\n"
        assert sorted(worker.name for worker in client.workers()) == ["worker-1", "worker-2"]
    family = descendants(process.pid)
    assert len(family) >= 3
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert not living(family)


def test_up_starts_a_worker_again_and_dies_with_all_of_its_own(cluster: Cluster) -> None:
    process = up(cluster, "--workers", "1")
    with Client(registered(process, 1)) as client:
        os.kill(client.workers()[0].pid, signal.SIGKILL)
        registered(process, 1)
        assert client.run(wat.wasm(wat.HELLO)).stdout == b"hello\n"
    family = descendants(process.pid)
    process.kill()
    process.communicate(timeout=20)
    wait_for(lambda: not living(family), f"the processes of up are gone: {family}")


def test_up_starts_the_broker_again_at_the_same_address(cluster: Cluster) -> None:
    process = up(cluster, "--workers", "1")
    address = registered(process, 1)
    broker = next(
        pid for pid, _ in descendants(process.pid) if "cli.broker" in Path(f"/proc/{pid}/cmdline").read_text()
    )
    with Client(address) as client:
        assert client.run(wat.wasm(wat.HELLO)).stdout == b"hello\n"
        os.kill(broker, signal.SIGKILL)
        assert registered(process, 1) == address
        assert client.run(wat.wasm(wat.HELLO)).stdout == b"hello\n"
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_up_hands_the_options_of_brokers_and_workers_on_that_are_set_by_variables(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prometheus_client")
    for name, value in {"COMPILER": "winch", "METRICS": "0", "KEY": "another broker's"}.items():
        monkeypatch.setitem(cluster.env, f"MINILAMBDA_{name}", value)
    process = up(cluster, "--workers", "1")
    try:
        assert process.stdout is not None
        said = [line.decode() for line in itertools.takewhile(lambda line: b"registered" not in line, process.stdout)]
        address = next(found[1] for line in said if (found := re.search(r"listening on (\S+)", line)))
        with Client(address) as client:
            assert client.run(wat.wasm(wat.HELLO)).usage.compiler == "winch"
        process.terminate()
        said.append(process.communicate(timeout=20)[0].decode())
        assert process.returncode == 0
        assert re.findall(r"minilambda-(\w+) serves metrics", " ".join(said)) == ["broker"]
    finally:
        process.kill()


def test_up_does_not_start_workers_again_and_again_that_do_not_understand_their_options(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cluster.env, "MINILAMBDA_COMPILER", "gcc")
    process = up(cluster, "--workers", "2")
    try:
        said = process.communicate(timeout=20)[0]
        assert process.returncode == 2
        assert b"minilambda-worker: MINILAMBDA_COMPILER: 'gcc' is not one of" in said
        assert b"started again" not in said
    finally:
        process.kill()


def test_a_worker_without_a_broker_says_so_once_and_registers_when_there_is_one(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        cluster.start_broker("--ephemeral").kill()
        cluster.services.clear()
        worker = cluster.start_worker("--slots", "1")
        worker.wait_printed(re.compile(f"no broker answers at tcp://{cluster.address}, trying on"))
        cluster.restart_broker("--ephemeral")
        worker.wait_printed(re.compile(f"registered with tcp://{cluster.address}, 1 slot$", re.M))
        assert worker.printed().count("trying on") == 1
        cluster.stop()
    finally:
        cluster.kill()


def test_a_second_broker_on_the_same_address_says_so(cluster: Cluster) -> None:
    command = cluster.command("broker", "--bind", cluster.address)
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"minilambda-broker: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_broker_that_others_reach_has_to_be_asked_for(cluster: Cluster) -> None:
    command = cluster.command("broker", "--bind", "0.0.0.0:0")
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert done.returncode in (1, 2)
    assert b"--insecure" in done.stderr


def test_a_state_that_is_none_is_not_taken_for_good_news(cluster: Cluster) -> None:
    assert b"'poisned' is no state" in cluster.client("jobs", "--state", "poisned").stdout
    assert b"is no state" not in cluster.client("jobs", "--state", "poisoned").stdout
