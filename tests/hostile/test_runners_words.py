"""What a runner or a compiler that was taken over can say to the agent: nothing that harms it."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from minilambda.worker import codec
from minilambda.worker.events import CompileFinished, RunnerDied, RunnerFinished, RunnerReady
from minilambda.worker.handles import CompilerHandle, RunnerHandle
from tests.integration.agents import (
    MAX_WAIT_S,
    ORDER,
    compile_order,
    memfd,
)

READY = codec.pack("ready", ["wall raised"])
OUTCOME = codec.pack("done", None, "", 0, None, None, None, 0.0, 0.0, 0.0, 0, b"", b"")


class Victim:
    """A handle whose process is a harmless one, and whose channel is driven by the test."""

    def __init__(self, handle: RunnerHandle | CompilerHandle) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self.handle = handle
        handle.started(self.process.pid, os.pidfd_open(self.process.pid))

    def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.handle.far_end.send(b"\0" + payload)

    def end(self) -> int:
        """How the process ended, which it must."""
        return self.process.wait(MAX_WAIT_S)

    def close(self) -> None:
        self.handle.close()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


@pytest.fixture
def runner() -> Iterator[Victim]:
    victim = Victim(RunnerHandle(1, 0))
    yield victim
    victim.close()


def test_a_runner_that_speaks_well_lives(runner: Victim) -> None:
    # given
    assert isinstance(runner.handle, RunnerHandle)
    runner.say(READY)
    assert runner.handle.hear() == [RunnerReady(0)]
    runner.handle.run(ORDER, None)
    # when
    runner.say(OUTCOME)
    # then
    assert [type(event) for event in runner.handle.hear()] == [RunnerFinished]
    assert runner.process.poll() is None


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1nonsense",
        OUTCOME,
        READY + b"x",
        codec.pack("ready"),
        codec.pack("ready", [1]),
        codec.pack("ready", "x"),
        codec.pack("fault", 1),
        codec.pack("fault", "x" * 10_000),
        codec.pack("unheard of"),
    ],
    ids=str,
)
def test_a_runner_that_begins_with_nonsense_is_killed(runner: Victim, payload: bytes) -> None:
    # when
    runner.say(payload)
    # then
    assert runner.handle.hear() == []
    assert runner.end() == -signal.SIGKILL
    (died,) = runner.handle.died("killed by SIGKILL")
    assert isinstance(died, RunnerDied)
    assert died.how.startswith("killed by SIGKILL: ")


@pytest.mark.parametrize(
    "payload",
    [
        READY,
        codec.pack("done"),
        codec.pack("done", "cancelled", "", 0, None, None, None, 0.0, 0.0, 0.0, 0, b"", b""),
        codec.pack("done", None, "", 0, None, None, None, 0.0, 0.0, 0.0, 0, b"", None),
        codec.pack("done", None, "", 0, None, None, None, 0.0, 0.0, 0.0, 0, "text", b""),
        codec.pack("done", None, "", 0, None, None, None, True, 0.0, 0.0, 0, b"", b""),
        codec.pack("done", None, "", 0, None, None, None, float("nan"), 0.0, 0.0, 0, b"", b""),
        codec.pack("bad_artifact"),
        codec.pack("compiled", False, 1, 1.0),
    ],
    ids=str,
)
def test_a_runner_that_answers_an_order_with_nonsense_is_killed(runner: Victim, payload: bytes) -> None:
    # given
    assert isinstance(runner.handle, RunnerHandle)
    runner.say(READY)
    runner.handle.hear()
    runner.handle.run(ORDER, None)
    # when
    runner.say(payload)
    # then
    assert runner.handle.hear() == []
    assert runner.end() == -signal.SIGKILL


def test_a_runner_that_goes_on_after_its_outcome_is_killed_and_the_outcome_counts(runner: Victim) -> None:
    # given
    assert isinstance(runner.handle, RunnerHandle)
    runner.say(READY)
    runner.handle.hear()
    runner.handle.run(ORDER, None)
    # when
    runner.say(*[OUTCOME] * 20)
    # then
    assert [type(event) for event in runner.handle.hear()] == [RunnerFinished]
    assert runner.handle.hear() == []
    assert runner.end() == -signal.SIGKILL


def test_a_runner_that_hangs_up_is_killed(runner: Victim) -> None:
    # when
    runner.handle.far_end.close()
    # then
    assert runner.handle.hear() == []
    assert runner.end() == -signal.SIGKILL


def test_what_a_runner_said_before_it_died_counts_though_its_channel_is_still_open(runner: Victim) -> None:
    # given
    assert isinstance(runner.handle, RunnerHandle)
    runner.say(READY)
    runner.handle.hear()
    runner.handle.run(ORDER, None)
    # when
    runner.say(OUTCOME, codec.pack("fault", "out of luck"))
    # then
    assert [type(event) for event in runner.handle.last_words()] == [RunnerFinished]
    assert runner.handle.died("exited with 70") == [RunnerDied(0, "exited with 70: out of luck", b"", b"")]


def test_a_runner_that_announces_more_than_it_may_send_is_killed(runner: Victim) -> None:
    # when
    runner.handle.far_end.send(b"\1" + (1 << 30).to_bytes(8, "little"))
    # then
    assert runner.handle.hear() == []
    assert runner.end() == -signal.SIGKILL


def compiling() -> CompilerHandle:
    """A compiler that has its order."""
    handle, wasm = CompilerHandle(1), memfd(b"")
    handle.give(compile_order(b""), wasm)
    os.close(wasm)
    return handle


def test_a_compiler_that_speaks_before_it_has_an_order_is_killed() -> None:
    # given
    compiler = Victim(CompilerHandle(1))
    # when
    compiler.say(codec.pack("compiled", False, 4, 1.0))
    # then
    assert compiler.handle.hear() == []
    assert compiler.end() == -signal.SIGKILL
    assert compiler.handle.died("killed by SIGKILL") == []
    compiler.close()


def test_an_artifact_of_another_size_than_announced_is_refused() -> None:
    # given
    compiler = Victim(compiling())
    # when
    compiler.say(codec.pack("compiled", False, 10, 1.0))
    # then
    assert compiler.handle.hear() == []
    assert compiler.end() == -signal.SIGKILL
    (finished,) = compiler.handle.died("killed by SIGKILL")
    assert isinstance(finished, CompileFinished)
    assert finished.code == "internal"
    compiler.close()


def compiling_in_background() -> CompilerHandle:
    """A compiler that has an order that nobody waits for."""
    handle, wasm = CompilerHandle(1), memfd(b"")
    handle.give(replace(compile_order(b""), background=True), wasm)
    os.close(wasm)
    return handle


@pytest.mark.parametrize(
    ("handle", "result"),
    [(compiling, codec.pack("invalid", "It is not.")), (compiling_in_background, codec.pack("compiled", True, 4, 1.0))],
    ids=["no artifact", "in background"],
)
def test_a_compiler_that_stays_after_its_result_is_killed(handle: Callable[[], CompilerHandle], result: bytes) -> None:
    # given
    made = handle()
    os.write(made.artifact_fd, b"wasm")
    compiler = Victim(made)
    # when
    compiler.say(result)
    # then
    assert [type(event) for event in made.hear()] == [CompileFinished]
    assert compiler.end() == -signal.SIGKILL
    assert made.died("killed by SIGKILL") == [], "the result has been reported"
    compiler.close()


def test_an_artifact_that_its_compiler_can_still_change_is_not_used_before_that_is_dead() -> None:
    # given
    handle = compiling()
    artifact = handle.artifact_fd
    os.ftruncate(artifact, 4)
    compiler = Victim(handle)
    with mmap.mmap(artifact, 4):
        # when
        compiler.say(codec.pack("compiled", False, 4, 1.0))
        # then
        assert handle.hear() == []
        assert compiler.end() == -signal.SIGKILL
    (finished,) = handle.died("killed by SIGKILL")
    assert isinstance(finished, CompileFinished)
    assert finished.code is None
    with pytest.raises(PermissionError):
        os.pwrite(artifact, b"evil", 0)
    compiler.close()
