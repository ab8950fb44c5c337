"""The client follows jobs and feeds them, on pipes and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import IO

import pytest

from minilambda import Client
from tests import wat
from tests.cluster import Cluster, wait_for


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.connect() as made:
        yield made


@pytest.fixture(scope="module")
def converse(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("guests") / "converse.wasm"
    path.write_bytes(wat.wasm(wat.CONVERSE))
    return str(path)


@contextmanager
def running(cluster: Cluster, *args: str, **streams: int | IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The client, with pipes for its streams where no others are given."""
    env = {**cluster.env, "MINILAMBDA_SERVER": cluster.address, "TERM": "xterm"}
    given = {name: streams.get(name, subprocess.PIPE) for name in ("stdin", "stdout", "stderr")}
    process = subprocess.Popen(cluster.command("client", *args), env=env, **given)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(descriptor: int, end: bytes, seconds: float = 30.0) -> bytes:
    """What comes by a descriptor, to ``end``."""
    seen, deadline = b"", time.monotonic() + seconds
    while not seen.endswith(end):
        assert select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0], seen
        piece = os.read(descriptor, 4096)
        assert piece, seen
        seen += piece
    return seen


def say(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def out(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return process.stdout.fileno()


def test_what_is_typed_reaches_the_guest_and_its_answer_is_shown_at_once(cluster: Cluster, converse: str) -> None:
    with running(cluster, "--interactive", converse) as process:
        assert read_until(out(process), b"\n") == b"ready\n"
        say(process, b"\x00\xff one\n")
        assert read_until(out(process), b"\n") == b"\x00\xff one\n"
        say(process, b"two")
        assert process.communicate(timeout=30) == (b"two", b"bye\n")
        assert process.returncode == 0


def test_followed_output_as_json_is_a_line_each_and_then_the_result(cluster: Cluster, converse: str) -> None:
    done = cluster.client("--follow", "--json", "--stdin", "-", converse, stdin=b"body")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert "".join(each["data"] for each in lines[:-1] if each["stream"] == "stdout") == "ready\nbody"
    assert lines[-2]["stream"] == "stderr"
    assert (lines[-1]["state"], lines[-1]["stdout"], lines[-1]["stderr"]) == ("completed", "ready\nbody", "bye\n")
    assert {each["job_id"] for each in lines} == {lines[-1]["job_id"]}


def test_followed_exit_codes_and_failures_are_those_of_any_run(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "guest.wasm"
    path.write_bytes(wat.wasm(wat.printing("oops\n", stream=2, exit_code=42)))
    done = cluster.client("--follow", path)
    assert (done.code, done.stdout, done.stderr) == (42, b"", b"oops\n")
    path.write_bytes(wat.wasm(wat.DIVIDE))
    done = cluster.client("--follow", path)
    assert done.code == 134
    assert done.stderr.count(b"minilambda-client: trap: ") == 1
    path.write_bytes(wat.wasm(wat.ADD))
    assert cluster.client("-f", "--invoke", "add", path, "--", "2", "3").stdout == b"5\n"


def test_logs_show_what_there_is_and_on_request_what_comes(cluster: Cluster, client: Client, converse: str) -> None:
    # given
    job = client.submit(converse, interactive=True)
    assert next(job.output()).data == b"ready\n"
    # when
    done = cluster.client("logs", job.id)
    assert (done.code, done.stdout, done.stderr) == (0, b"ready\n", b"")
    with running(cluster, "logs", job.id, "--follow") as process:
        assert read_until(out(process), b"\n") == b"ready\n"
        job.write(b"more\n")
        assert read_until(out(process), b"\n") == b"more\n"
        job.close_stdin()
        # then
        assert process.communicate(timeout=30) == (b"", b"bye\n")
        assert process.returncode == 0
    done = cluster.client("logs", "--json", job.id)
    assert [json.loads(line)["data"] for line in done.stdout.splitlines()] == ["ready\nmore\n", "bye\n"]


def test_logs_of_an_unknown_job_are_an_error(cluster: Cluster) -> None:
    done = cluster.client("logs", "nobody")
    assert done.code == 125
    assert b"not_found" in done.stderr


def test_a_terminal_shows_output_as_it_is_written(cluster: Cluster, client: Client, converse: str) -> None:
    # given a terminal, and no --follow
    ours, theirs = pty.openpty()
    job = f"terminal-{os.getpid()}"
    with running(cluster, "--job", job, "--timeout", "40", converse_forever(converse), stdout=theirs) as process:
        os.close(theirs)
        # then
        assert read_until(ours, b"\n") == b"ready\r\n"
        assert not client.job(job).status().done
        # when
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    os.close(ours)
    wait_for(lambda: client.job(job).status().state == "cancelled", "the job is cancelled")


@pytest.mark.parametrize("where", ["all of it on the terminal", "its errors elsewhere"])
def test_an_interrupted_conversation_leaves_the_shell_a_line_of_its_own(
    cluster: Cluster, converse: str, where: str
) -> None:
    # given: a guest that has shown its prompt
    ours, theirs = pty.openpty()
    stderr = theirs if where == "all of it on the terminal" else subprocess.PIPE
    options = ("--interactive", "--timeout", "40", converse)
    with running(cluster, *options, stdin=theirs, stdout=theirs, stderr=stderr) as process:
        os.close(theirs)
        assert read_until(ours, b"\n") == b"ready\r\n"
        # when
        process.send_signal(signal.SIGINT)
        # then
        assert read_until(ours, b"\n") == b"\r\n"
        assert process.wait(20) == 130
    os.close(ours)


def converse_forever(converse: str) -> str:
    """The same guest, which then waits for ever."""
    path = Path(converse).with_name("forever.wasm")
    path.write_bytes(
        wat.wasm(wat.CONVERSE.replace("(block $end (loop $more", "(loop $stay (br $stay)) (block $end (loop $more"))
    )
    return str(path)


@pytest.mark.parametrize("ended", ["interrupted", "unread"])
def test_a_client_that_is_gone_takes_its_job_along(cluster: Cluster, client: Client, converse: str, ended: str) -> None:
    job = f"{ended}-{os.getpid()}"
    with running(cluster, "--interactive", "--job", job, converse) as process:
        assert read_until(out(process), b"\n") == b"ready\n"
        if ended == "interrupted":
            process.send_signal(signal.SIGINT)
        else:
            assert process.stdout is not None
            process.stdout.close()
            say(process, b"nobody reads this\n")
        assert process.wait(20) == {"interrupted": 130, "unread": 141}[ended]
    wait_for(lambda: client.job(job).status().state == "cancelled", "the job is cancelled")


def test_logs_that_nobody_reads_leave_the_job_alone(cluster: Cluster, client: Client, converse: str) -> None:
    job = client.submit(converse, interactive=True)
    with running(cluster, "logs", "-f", job.id) as process:
        assert read_until(out(process), b"\n") == b"ready\n"
        assert process.stdout is not None
        process.stdout.close()
        job.write(b"more")
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert not job.status().done
    job.cancel()


def test_output_that_can_not_be_written_is_125_also_where_it_is_followed(cluster: Cluster, converse: str) -> None:
    with open("/dev/full", "wb") as full, running(cluster, "--follow", converse, stdout=full) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 125
    assert errors.startswith(b"minilambda-client: The output can't be written: ")
