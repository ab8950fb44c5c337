"""Artifacts on disk reach runners that can open no file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minilambda.worker.artifact_file import WHOLE
from minilambda.worker.handover import Handover
from minilambda.worker.processes import Processes
from tests import wat
from tests.integration.agents import ORDER, Agent, RunnerFinished, name_of, running_agent


def stored(agent: Agent, path: Path, padding: int) -> int:
    """HELLO's artifact in a file as the cache has it: longer than the artifact, and closed to others."""
    done = agent.compile(wat.HELLO)
    fd = agent.processes.take_artifact(done.digest, done.compiler)
    path.write_bytes(os.pread(fd, os.fstat(fd).st_size, 0) + bytes(padding))
    os.close(fd)
    path.chmod(0o400)
    return os.open(path, os.O_RDONLY)


def run(agent: Agent, fd: int) -> RunnerFinished:
    agent.processes.run(0, ORDER._replace(digest=name_of(wat.HELLO)), fd)
    return agent.next(RunnerFinished)


@pytest.mark.parametrize("padding", [100, WHOLE])
def test_a_walled_runner_loads_an_artifact_that_is_handed_over(tmp_path: Path, padding: int) -> None:
    handover = Handover(tmp_path)
    with running_agent() as agent:
        agent.processes = Processes(1, readable=handover.path)
        # given
        agent.start(0)
        fd = stored(agent, tmp_path / "x.artifact", padding)
        # when
        refused = run(agent, fd)
        given = handover.give(fd)
        finished = run(agent, given)
        # then
        assert refused.bad_artifact  # the walls keep the runner from the file itself
        assert finished.outcome.stdout == b"hello\n"
        assert os.readlink(f"/proc/self/fd/{given}").startswith("/memfd:") == (padding < WHOLE)
        assert os.listdir(handover.path) == []
        os.close(given)
    handover.close()


def test_where_links_are_impossible_large_artifacts_are_copied(tmp_path: Path) -> None:
    # given
    (tmp_path / "handover").write_bytes(b"a file is in the way")
    (tmp_path / "large").write_bytes(bytes(range(256)) * (WHOLE // 256 + 1))
    handover = Handover(tmp_path)
    # when
    given = handover.give(os.open(tmp_path / "large", os.O_RDONLY))
    # then
    assert handover.path == ""
    assert os.pread(given, WHOLE * 2, 0) == (tmp_path / "large").read_bytes()
    with pytest.raises(OSError):
        os.pwrite(given, b"x", 0)
    os.close(given)


def test_what_a_killed_worker_left_behind_is_cleared(tmp_path: Path) -> None:
    # given
    (tmp_path / "handover").mkdir()
    (tmp_path / "handover" / "left").write_bytes(b"")
    # when
    handover = Handover(tmp_path)
    # then
    assert os.listdir(handover.path) == []
    handover.close()
