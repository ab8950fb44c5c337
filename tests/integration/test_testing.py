"""``minilambda.testing``, as a user's own project uses it."""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda.testing import cluster
from tests.cluster import ROOT, descendants, living, wait_for
from tests.integration.guests import HELLO

WITH_PLUGIN = ["-p", "minilambda.testing.plugin"]


@pytest.fixture
def project() -> Iterator[Path]:
    """An empty project with a guest, at a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ml-", dir="/tmp") as base:
        folder = Path(base, "project")
        folder.mkdir()
        (folder / "hello.wasm").write_bytes(HELLO)
        Path(base, "tmp").mkdir()
        yield folder


@contextlib.contextmanager
def running_pytest(project: Path, **files: str) -> Iterator[subprocess.Popen[str]]:
    """A run of the project's own tests; what clusters leave behind is found in ``tmp``."""
    for name, text in files.items():
        (project / f"{name}.py").write_text(textwrap.dedent(text))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MINILAMBDA_"))}
    env.update(TMPDIR=str(project.parent / "tmp"), PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
    plugin = [] if installed() else WITH_PLUGIN
    command = [sys.executable, "-m", "pytest", "-s", "-W", "error", "--rootdir", str(project), *plugin]
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=project, env=env, text=True, start_new_session=True, **out) as run:
        try:
            yield run
        finally:
            run.kill()


def installed() -> bool:
    """The plugin is found by its entry point."""
    from importlib.metadata import entry_points

    return "minilambda" in entry_points(group="pytest11").names


def left(project: Path) -> list[str]:
    return [path.name for path in (project.parent / "tmp").iterdir() if path.name.startswith("minilambda-")]


def test_a_projects_own_tests_get_a_cluster(project: Path) -> None:
    with running_pytest(
        project,
        conftest="""
            import pytest
            from minilambda.testing import Cluster

            @pytest.fixture(scope="session")
            def minilambda_options():
                return {"slots": 2}
        """,
        test_mine="""
            import asyncio
            from minilambda import AsyncClient, Executor

            def test_client(minilambda_cluster):
                assert minilambda_cluster.client.run("hello.wasm").stdout == b"hello\\n"
                assert minilambda_cluster.client.workers()[0].slots == 2

            def test_the_same_one(minilambda_cluster):
                assert minilambda_cluster.client.workers()[0].done == 1
                with Executor(minilambda_cluster.address) as executor:
                    assert executor.submit("hello.wasm").result().ok

            def test_asyncio(minilambda_cluster):
                async def main():
                    async with AsyncClient(minilambda_cluster.address) as client:
                        assert (await client.run("hello.wasm")).ok
                asyncio.run(main())

            def test_fails(minilambda_cluster):
                assert False, "on purpose"
        """,
    ) as run:
        output, _ = run.communicate(timeout=50)
    assert "3 passed" in output, output
    assert "1 failed" in output, output
    assert left(project) == []
    assert list((project / ".pytest_cache" / "d" / "minilambda").iterdir())  # compiled modules, for the next run


def test_a_cache_that_others_may_write_to_is_made_private_and_one_that_can_not_be_used_is_not(project: Path) -> None:
    text = """
        def test_client(minilambda_cluster):
            assert minilambda_cluster.client.run("hello.wasm").stdout == b"hello\\n"
    """
    cache = project / ".pytest_cache" / "d" / "minilambda"
    cache.mkdir(parents=True)
    cache.chmod(0o775)  # as pytest makes it with the umask that many systems give their users
    with running_pytest(project, test_mine=text) as run:
        assert "1 passed" in (output := run.communicate(timeout=50)[0]), output
    assert list(cache.iterdir())
    shutil.rmtree(cache)
    cache.touch()
    with running_pytest(project) as run:
        assert "1 passed" in (output := run.communicate(timeout=50)[0]), output


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_run_that_is_ended_from_outside(project: Path, number: signal.Signals) -> None:
    # given
    text = """
        import time

        def test_long(minilambda_cluster):
            minilambda_cluster.client.submit("hello.wasm").result()
            print("begun", flush=True)
            time.sleep(60)
    """
    with running_pytest(project, test_mine=text) as run:
        assert run.stdout is not None
        assert any("begun" in line for line in run.stdout)
        family = descendants(run.pid)
        assert len(left(project)) == 1
        # when
        run.send_signal(number)
        run.communicate(timeout=40)
    # then
    wait_for(lambda: not living(family), "its processes are gone")
    wait_for(lambda: not left(project), "its files are gone")


def test_a_cluster_on_tcp_has_as_many_workers_as_asked_for() -> None:
    with cluster(workers=2, tcp=True) as running:
        assert running.address.startswith("tcp://127.0.0.1:")
        assert sorted(worker.name for worker in running.client.workers()) == ["worker-1", "worker-2"]
        assert running.connect().run(HELLO).ok
        wait_for(lambda: "worker-2 registered" in running.log(), "the worker says so")
        folder = running._folder
    assert not folder.exists()


def test_a_cluster_that_does_not_start_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for options in ({"worker": ["--no-such-option"]}, {"broker": ["--no-such-option"], "tcp": True}):
        with pytest.raises(RuntimeError, match="--no-such-option"), cluster(**options):  # type: ignore[arg-type]
            pass
    assert list(tmp_path.iterdir()) == []


def test_the_plugin_is_an_entry_point_of_the_package() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert "minilambda = minilambda.testing.plugin" in settings["options.entry_points"]["pytest11"]
