"""What a worker does about walls that can't be raised."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from minilambda.errors import MinilambdaError
from minilambda.worker import walls
from minilambda.worker.processes import Processes
from minilambda.worker.wall_report import WallReport
from tests import wat
from tests.cluster import Cluster
from tests.hostile.escaped_template import LAME
from tests.hostile.test_escaped_guest import in_its_place
from tests.integration.agents import running_agent


def test_a_wall_that_can_not_be_raised_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    monkeypatch.setattr("minilambda.worker.launch.subprocess.Popen", in_its_place("lame"))
    told: list[str] = []
    with running_agent() as agent, caplog.at_level(logging.WARNING, "minilambda.worker"):
        agent.processes = Processes(2, tell=told.append)
        # when
        agent.start(0, 1)
        # then
        assert told == ["all but files"] * 2
        said = [record.getMessage() for record in caplog.records]
        assert said == ["a wall around guests can't be raised here: files: the kernel has no Landlock"]


def test_a_cgroup_that_is_not_delegated_is_reported_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    report = WallReport(required=False, tell=lambda text: None)
    with caplog.at_level(logging.WARNING, "minilambda.worker"):
        for _ in range(2):
            report.note([], own=["cgroup absent: not delegated"])
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("a wall around guests can't be raised here: cgroup: not delegated; to have it, start")
    assert "Delegate=yes" in said and "docs/deployment.md" in said


def test_a_cgroup_that_this_machine_can_not_have_is_reported_without(caplog: pytest.LogCaptureFixture) -> None:
    report = WallReport(required=False, tell=lambda text: None)
    with caplog.at_level(logging.WARNING, "minilambda.worker"):
        report.note([], own=["cgroup absent: there is no cgroup of version 2 here"])
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith("there is no cgroup of version 2 here")


def test_a_worker_that_requires_its_walls_does_not_serve_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr("minilambda.worker.launch.subprocess.Popen", in_its_place("lame"))
    with running_agent() as agent:
        agent.processes = Processes(1, required=True)
        # when
        with pytest.raises(MinilambdaError) as raised:
            agent.start(0)
        # then
        assert raised.value.message == walls.lacking([LAME])


def test_workers_tell_of_their_walls_and_serve_or_refuse(tmp_path: Path) -> None:
    # given
    (tmp_path / "hello.wasm").write_bytes(wat.wasm(wat.HELLO))
    cluster = Cluster(tmp_path)
    try:
        cluster.start_broker()
        worker = cluster.start_worker("--fresh-runner")
        cluster.wait_workers(1)
        # when
        ended = [cluster.run(tmp_path / "hello.wasm").stdout for _ in range(3)]
        (line,) = json.loads(cluster.client("workers", "--json").stdout)
        # then
        assert ended == [b"hello\n"] * 3
        assert line["walls"].startswith("all")
        assert ("can't be raised" in worker.printed()) == (line["walls"] != "all")
        if line["walls"] in ("all", "all but cgroup"):  # nobody requires what is not delegated
            cluster.start_worker("--walls", "required")
            cluster.wait_workers(2)
    finally:
        cluster.stop()
