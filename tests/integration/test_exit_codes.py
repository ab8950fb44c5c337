"""What `minilambda-client` exits with, and what it leaves of a job that is interrupted."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests import wat
from tests.cluster import Cluster, wait_for

GREEDY = '(module (memory 2000) (func (export "_start")))'

ENDS: list[tuple[str, str, tuple[str, ...], int, str | None]] = [
    ("success", wat.HELLO, (), 0, None),
    ("the guest's own code", wat.printing("", exit_code=42), (), 42, None),
    ("the guest's 124", wat.printing("", exit_code=124), (), 124, None),
    ("a code of nine bits", wat.printing("", exit_code=256), (), 255, None),
    ("deadline", wat.LOOP, ("--timeout", "200ms"), 124, "deadline_exceeded"),
    ("output limit", wat.FLOOD, ("--output-limit", "1K"), 125, "output_limit"),
    ("bad arguments", wat.ADD, ("--invoke", "add"), 125, "bad_arguments"),
    ("no wasm", "", (), 126, "invalid_module"),
    ("unknown import", wat.MISSING, (), 126, "unknown_import"),
    ("unknown export", wat.ADD, ("--invoke", "subtract"), 126, "unknown_export"),
    ("trap", wat.DIVIDE, (), 134, "trap"),
    ("stack overflow", wat.RECURSE, (), 134, "stack_overflow"),
    ("memory", GREEDY, ("--memory", "16M"), 137, "out_of_memory"),
]


@pytest.mark.parametrize(("text", "options", "exit_code", "code"), [end[1:] for end in ENDS], ids=[e[0] for e in ENDS])
def test_the_exit_code_says_how_the_job_ended(
    cluster: Cluster, tmp_path: Path, text: str, options: tuple[str, ...], exit_code: int, code: str | None
) -> None:
    # given
    path = tmp_path / "guest.wasm"
    path.write_bytes(wat.wasm(text) if text else b"no wasm")
    # when
    ended = cluster.run(path, options=options)
    # then
    assert ended.code == exit_code, ended
    assert ended.stderr.startswith(b"" if code is None else f"minilambda-client: {code}: ".encode())
    assert (ended.stderr == b"") == (code is None)


def test_a_file_that_is_not_there_is_127_and_a_directory_126(cluster: Cluster, tmp_path: Path) -> None:
    for path, code in ((tmp_path / "none.wasm", 127), (tmp_path, 126)):
        ended = cluster.run(path)
        assert (ended.code, ended.stdout) == (code, b"")
        assert str(path).encode() in ended.stderr


def test_a_broker_that_is_not_there_is_125(cluster: Cluster) -> None:
    ended = cluster.client("--server", "127.0.0.1:1", "--connect-timeout", "200ms", "workers")
    assert (ended.code, ended.stdout) == (125, b"")
    assert b"unreachable" in ended.stderr and b"127.0.0.1:1" in ended.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["interrupted", "terminated"]
)
def test_a_client_that_is_stopped_cancels_its_job(
    cluster: Cluster, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    # given
    path = tmp_path / "sleep.wasm"
    path.write_bytes(wat.wasm(wat.SLEEP))
    name = f"stopped-{number}"
    command = cluster.command("client", "--server", cluster.address, "--job", name, str(path))
    with cluster.connect() as client, subprocess.Popen(command, stderr=subprocess.PIPE, env=cluster.env) as process:
        job = client.job(name)
        wait_for(lambda: any(worker.queue for worker in client.workers()), "the job has arrived")
        wait_for(lambda: job.status().state == "running", "the guest runs")
        worker = cluster.service(job.status().worker)
        runners = set(worker.pids("ml-runner"))
        # when
        process.send_signal(number)
        # then
        process.communicate(timeout=20)
        assert process.returncode == code
        wait_for(lambda: job.status().state == "cancelled", "the job is cancelled", 5)
        wait_for(lambda: runners - set(worker.pids("ml-runner")), "the guest's runner is gone", 5)
