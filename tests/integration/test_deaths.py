"""How the processes under an agent die, and what is left of them: nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from minilambda.worker.events import RunnerDied
from tests import wat
from tests.integration.agents import (
    MAX_WAIT_S,
    Agent,
    compile_order,
    lives,
    running_agent,
    slow_module,
    wait_until_dead,
)

WRITE_THEN_SPIN = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\04\\00\\00\\00")
  (data (i32.const 16) "here")
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
    (loop $again (br $again))))"""


@pytest.fixture
def agent() -> Iterator[Agent]:
    with running_agent() as made:
        yield made


@pytest.mark.parametrize("module", [wat.LOOP, wat.SLEEP], ids=["spinning", "asleep in a host call"])
def test_a_killed_runner_is_gone_and_its_slot_works_again(agent: Agent, module: str) -> None:
    # given
    agent.start(0)
    pid = agent.pid(0)
    agent.begin(0, module)
    # when
    died = agent.kill(0)
    # then
    assert (died.slot, died.how) == (0, "killed by SIGKILL")
    assert not lives(pid)
    agent.spawn(0)
    assert agent.run(0, wat.HELLO).outcome.stdout == b"hello\n"


def test_a_killed_runner_leaves_what_its_guest_had_written(agent: Agent) -> None:
    # given
    agent.start(0)
    agent.begin(0, WRITE_THEN_SPIN)
    agent.wait_for_output(0, 8)
    # when
    died = agent.kill(0)
    # then
    assert (died.stdout, died.stderr) == (b"here", b"here")


def test_a_death_is_reported_once_however_often_it_was_ordered(agent: Agent) -> None:
    # given
    agent.start(0, 1)
    # when
    for _ in range(3):
        agent.processes.kill(0)
    agent.next(RunnerDied)
    agent.processes.kill(0)
    # then
    assert agent.run(1, wat.HELLO).slot == 1
    assert agent.events == []


def test_a_runner_killed_before_it_is_ready_is_reported_dead(agent: Agent) -> None:
    # given
    agent.start()
    # when
    agent.processes.spawn(0)
    agent.processes.kill(0)
    # then
    assert agent.next(RunnerDied).slot == 0
    agent.spawn(0)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_is_reported_with_its_signal(agent: Agent, number: signal.Signals) -> None:
    # given
    agent.start(0)
    pid = agent.pid(0)
    agent.begin(0, wat.SLEEP)
    # when
    deadline = time.monotonic() + MAX_WAIT_S
    while not agent.events and time.monotonic() < deadline:
        # wasmtime's own handler takes the first SIGSEGV, and puts the default back
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        agent.poll(0.05)
    # then
    died = agent.next(RunnerDied)
    assert (died.slot, died.how) == (0, f"killed by {number.name}")


def test_a_runner_stays_when_the_whole_group_is_asked_to_stop(agent: Agent) -> None:
    # given
    agent.start(0)
    # when
    for pid in agent.pids():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
    # then
    assert agent.run(0, wat.HELLO).outcome.stdout == b"hello\n"


def test_a_dead_template_takes_its_children_along_and_a_new_one_serves(agent: Agent) -> None:
    # given
    agent.start(0, 1)
    template, *children = agent.pids()
    agent.begin(0, wat.LOOP)
    # when
    os.kill(template, signal.SIGKILL)
    # then
    assert {agent.next(RunnerDied).slot, agent.next(RunnerDied).slot} == {0, 1}
    wait_until_dead(children)
    agent.spawn(0)
    assert agent.run(0, wat.HELLO).outcome.stdout == b"hello\n"
    assert agent.pids()[0] != template


def test_fifty_deaths_leave_no_descriptor_and_no_process_behind(agent: Agent) -> None:
    # given
    agent.start(0)
    agent.settle(2)  # a runner, and the compiler that rests
    template = agent.pids()[0]

    def held() -> tuple[int, int]:
        own = len(os.listdir("/proc/self/fd"))
        return own, len(os.listdir(f"/proc/{template}/fd")) if os.geteuid() == 0 else 0  # it can't be looked into

    before = held()
    # when
    for _ in range(50):
        pid = agent.pid(0)
        agent.kill(0)
        assert not lives(pid)
        agent.spawn(0)
    # then
    assert held() == before
    assert len(agent.pids()) == 3


AGENT_SCRIPT = """
import sys
from tests import wat
from tests.integration.agents import Agent, compile_order, lives, slow_module
agent = Agent()
agent.start(0, 1)
agent.begin(0, wat.LOOP)
agent.begin(1, wat.SLEEP)
agent.order_compile(compile_order(slow_module()), slow_module())
while len(living := [pid for pid in agent.pids() if lives(pid)]) < 4:
    agent.poll(1)
print(*living, flush=True)
sys.stdin.read()
"""


def test_nothing_outlives_a_killed_agent() -> None:
    # given
    command = [sys.executable, "-c", AGENT_SCRIPT]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) >= 4, "the template, two runners and a compiler"
        assert all(lives(pid) for pid in pids)
        # when
        process.kill()
    # then
    wait_until_dead(pids)


def test_a_runner_that_cannot_be_made_is_reported_dead(agent: Agent) -> None:
    # given
    agent.start(0)
    agent.settle(2)
    held = len(os.listdir("/proc/self/fd"))
    lowest_free = os.dup(0)
    os.close(lowest_free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 2, limits[1]))
    # when
    try:
        agent.processes.spawn(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    # then
    died = agent.next(RunnerDied)
    assert (died.slot, died.how.partition(":")[0]) == (1, "could not be started")
    assert len(os.listdir("/proc/self/fd")) == held
    agent.spawn(1)
    assert agent.run(1, wat.HELLO).outcome.code is None


def test_close_can_be_called_at_any_time_and_again() -> None:
    # given
    before = len(os.listdir("/proc/self/fd"))
    agent = Agent()
    agent.close()
    # when
    agent.start(0)
    agent.begin(0, wat.LOOP)
    agent.processes.spawn(1)
    agent.order_compile(compile_order(slow_module()), slow_module())
    pids = agent.pids()
    agent.close()
    agent.close()
    # then
    assert [pid for pid in pids if lives(pid)] == []
    assert len(os.listdir("/proc/self/fd")) == before
