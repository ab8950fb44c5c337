"""Processors that stay awake around a job: who holds the device, and what happens to those who may not have it."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from minilambda.awake import ANY, DEVICE, Awake
from tests.cluster import ROOT, Cluster, descendants, living, running_cluster, wait_for
from tests.integration.guests import sleeping

HELLO = ROOT / "examples" / "hello.wasm"

HIDE = f"mount --bind {DEVICE} {DEVICE} && mount -o remount,bind,nodev {DEVICE}"
"""From then on not even root can open the device, in a mount namespace of its own."""


def may_have_device() -> bool:
    awake = Awake.wanted(None)
    if awake is not None:
        awake.close()
    return awake is not None


def with_mount(mount: str, command: list[str]) -> list[str]:
    """The command where something else is mounted than for all others."""
    apart = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run([*apart, mount], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    return [*apart, f'{mount} && exec "$@"', "sh", *command]


def without_device(command: list[str]) -> list[str]:
    """The command for somebody who can't open the device, whoever runs the tests."""
    return with_mount(HIDE, command) if may_have_device() else command


class Deprived(Cluster):
    """A cluster whose services can't open the device."""

    def command(self, which: str, *args: str) -> list[str]:
        command = super().command(which, *args)
        return command if which == "client" else without_device(command)


class Watched(Cluster):
    """A cluster whose services write to a file of their own in place of the device."""

    def command(self, which: str, *args: str) -> list[str]:
        command = super().command(which, *args)
        if which == "client":
            return command
        self._file(which).touch()
        return with_mount(f"mount --bind {self._file(which)} {DEVICE}", command)

    def asked(self, which: str) -> list[bool]:
        """What it has asked for so far, in order: whether processors are to stay awake."""
        return [latency != ANY for (latency,) in struct.iter_unpack("=i", self._file(which).read_bytes())]

    def _file(self, which: str) -> Path:
        return self.folder / f"{which}-latency"


def holds_device(pid: int) -> bool:
    return any(os.path.realpath(each) == str(DEVICE) for each in Path(f"/proc/{pid}/fd").iterdir())


def test_broker_and_agent_hold_the_device_where_they_may_and_nothing_below_them_does(cluster: Cluster) -> None:
    # given a worker that has run something
    assert cluster.run(HELLO).code == 0
    # then
    broker, worker = (cluster.service(name).process.pid for name in ("broker", "worker-1"))
    assert [holds_device(pid) for pid in (broker, worker)] == [may_have_device()] * 2
    below = [pid for pid, _ in living(descendants(worker))]
    assert len(below) >= 3 and not any(map(holds_device, below))


def test_with_0_nobody_holds_the_device(tmp_path: Path) -> None:
    off = "--awake=0"
    with running_cluster(tmp_path, [off], [[off]]) as cluster:
        assert cluster.run(HELLO).code == 0
        assert not any(holds_device(each.process.pid) for each in cluster.services)


def test_a_broker_and_a_worker_that_may_not_have_the_device_serve_and_say_nothing_of_it(tmp_path: Path) -> None:
    # given
    cluster = Deprived(tmp_path)
    try:
        cluster.start_broker()
        cluster.start_worker()
        cluster.wait_workers(1)
        # when
        done = cluster.run(HELLO)
        # then
        assert (done.code, done.stdout) == (0, b"Hello, WebAssembly\n")
        assert not any(holds_device(each.process.pid) or "awake" in each.printed() for each in cluster.services)
        cluster.stop()
    finally:
        cluster.kill()


@pytest.mark.skipif(not may_have_device(), reason="this kernel or this user has nothing to keep awake")
def test_processors_stay_awake_for_steps_of_jobs_and_not_for_guests_that_run_or_people_who_look_on(
    tmp_path: Path,
) -> None:
    # given
    cluster = Watched(tmp_path)
    try:
        cluster.start_broker()
        cluster.start_worker()
        cluster.wait_workers(1)  # which has the client ask the broker for them
        assert cluster.asked("broker") == []
        # when
        with cluster.connect() as client:
            job = client.submit(sleeping(60_000))
            wait_for(lambda: job.status().state == "running", "the job runs")
            # then both have let processors sleep again, although it still does
            for which in ("broker", "worker"):
                wait_for(lambda which=which: cluster.asked(which)[-1:] == [False], f"the {which} lets them sleep")
                asked = cluster.asked(which)
                assert asked == [number % 2 == 0 for number in range(len(asked))]
            before = len(cluster.asked("worker"))
            assert job.status().state == "running"
            # when it ends
            job.cancel()
            # then
            wait_for(lambda: cluster.asked("worker")[before:][-1:] == [False], "the worker has done so once more")
        cluster.stop()
    finally:
        cluster.kill()


@pytest.mark.parametrize("which", ["broker", "worker"])
def test_who_asks_for_the_device_and_may_not_have_it_is_told(tmp_path: Path, which: str) -> None:
    # given
    cluster = Deprived(tmp_path)
    options = ["--bind=127.0.0.1:0", "--ephemeral"] if which == "broker" else [f"--cache-dir={tmp_path}/cache"]
    command = cluster.command(which, *options, "--awake=1ms")
    # when
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=cluster.env, check=False)
    # then
    assert done.returncode == 1
    assert done.stderr.startswith(f"minilambda-{which}: --awake: "), done.stderr
    assert done.stderr.count("\n") == 1
