"""The client with standard streams that are closed, full, endless or not there, and with an impatient user."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from minilambda import Client
from tests import wat
from tests.cluster import Cluster, Ended


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    path = tmp_path / "cat.wasm"
    path.write_bytes(wat.wasm(wat.CAT))
    return path


def shell(cluster: Cluster, streams: str, *args: str | Path) -> Ended:
    """Call the client from a shell that makes its streams."""
    command = ["sh", "-c", f'"$@" {streams}', "sh", *cluster.command("client", *map(str, args))]
    env = {**cluster.env, "MINILAMBDA_SERVER": cluster.address}
    done = subprocess.run(command, input=b"in", capture_output=True, env=env, timeout=50, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_a_stderr_that_takes_nothing_does_not_change_the_exit_code(
    cluster: Cluster, tmp_path: Path, streams: str
) -> None:
    for number, (text, code) in enumerate([(wat.printing("x", stream=2, exit_code=3), 3), (wat.DIVIDE, 134)]):
        path = tmp_path / f"{number}.wasm"
        path.write_bytes(wat.wasm(text))
        assert shell(cluster, streams, path).code == code
    assert shell(cluster, streams, tmp_path / "none.wasm").code == 127
    assert shell(cluster, streams, "--bogus").code == 2


@pytest.mark.parametrize("streams", [">&-", ">/dev/full"])
@pytest.mark.parametrize(
    "args", [("--stdin", "-", "cat"), ("--stdin", "-", "--json", "cat"), ("workers",), ("--help",)], ids=" ".join
)
def test_output_that_can_not_be_written_is_125_and_a_sentence(
    cluster: Cluster, cat: Path, streams: str, args: tuple[str, ...]
) -> None:
    done = shell(cluster, streams, *(cat if arg == "cat" else arg for arg in args))
    assert done.code == 125
    assert done.stderr.startswith(b"minilambda-client: The output can't be written: ")
    assert len(done.stderr.splitlines()) == 1


def test_help_is_printed_where_the_locale_has_ascii_only(cluster: Cluster) -> None:
    env = {**cluster.env, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(cluster.command("client", "--help"), capture_output=True, env=env, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"sha256:?" in done.stdout


def test_a_guest_that_writes_nothing_needs_no_stdout(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "silent.wasm"
    path.write_bytes(wat.wasm(wat.printing("", exit_code=5)))
    assert shell(cluster, ">&-", path).code == 5


def test_a_stdin_that_is_closed_is_a_sentence_where_it_is_asked_for(cluster: Cluster, cat: Path) -> None:
    assert (shell(cluster, "<&-", cat).code, shell(cluster, "<&-", cat).stderr) == (0, b"")
    done = shell(cluster, "<&-", "--stdin", "-", cat)
    assert done.code == 126
    assert b"standard input" in done.stderr


@pytest.mark.parametrize("streams", ["", "</dev/zero"])
def test_an_input_without_end_is_read_to_the_limit(cluster: Cluster, cat: Path, streams: str) -> None:
    done = shell(cluster, streams, "--stdin", "-" if streams else "/dev/zero", cat)
    assert done.code == 125
    assert b"input_too_large" in done.stderr


def test_a_module_without_end_is_read_to_the_limit(cluster: Cluster) -> None:
    done = shell(cluster, "", "/dev/zero")
    assert done.code == 125
    assert b"module_too_large" in done.stderr


def test_a_module_may_come_from_a_pipe(cluster: Cluster, cat: Path) -> None:
    done = shell(cluster, f"<{cat}", "/dev/stdin")
    assert (done.code, done.stderr) == (0, b"")
    command = f'cat {cat} | "$@"'
    env = {**cluster.env, "MINILAMBDA_SERVER": cluster.address}
    piped = ["sh", "-c", command, "sh", *cluster.command("client", "/dev/stdin")]
    assert subprocess.run(piped, capture_output=True, env=env, timeout=50, check=False).returncode == 0


def test_servers_need_no_standard_streams(cluster: Cluster, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/broker"
    commands = [
        cluster.command("broker", "--bind", address, "--ephemeral"),
        cluster.command("worker", "--orchestrator", address, "--slots", "1", "--cache-dir", str(tmp_path / "cache")),
    ]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    servers = [subprocess.Popen([*closed, *command], env=cluster.env) for command in commands]
    try:
        with Client(address, connect_timeout=20) as client:
            assert client.run(wat.wasm(wat.HELLO)).stdout == b"hello\n"
        for server in reversed(servers):
            server.terminate()
            assert server.wait(20) == 0
    finally:
        for server in servers:
            server.kill()
            server.wait()


def test_an_interrupt_while_all_is_imported_is_quiet(cluster: Cluster, tmp_path: Path) -> None:
    # given a client that is still importing
    (tmp_path / "docopt.py").write_text("import sys; print('importing', flush=True); sys.stdin.read()")
    env = {**cluster.env, "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        cluster.command("client", "workers"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"importing\n"
    # when
    process.send_signal(signal.SIGINT)
    # then
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 130
