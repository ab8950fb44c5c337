"""The processes under an agent: real runners and real guests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgpack
import pytest

from minilambda.worker.channel import MAX_PACKET
from minilambda.worker.events import RunnerFinished
from tests import wat
from tests.integration.agents import (
    BIG_VALUE,
    MIB,
    ORDER,
    Agent,
    memfd,
    running_agent,
)


@pytest.fixture
def agent() -> Iterator[Agent]:
    with running_agent() as made:
        yield made


def test_two_slots_run_guests(agent: Agent) -> None:
    # given
    agent.start(0, 1)
    for slot in (0, 1):
        # when
        finished = agent.run(slot, wat.HELLO)
        # then
        outcome = finished.outcome
        assert (finished.slot, outcome.code, outcome.exit_code, outcome.stdout) == (slot, None, 0, b"hello\n")


def test_two_slots_run_at_once(agent: Agent) -> None:
    # given
    agent.start(0, 1)
    agent.begin(0, wat.LOOP)
    # when
    finished = agent.run(1, wat.HELLO)
    # then
    assert (finished.slot, finished.outcome.code) == (1, None)


def test_a_module_that_the_runner_holds_needs_no_artifact(agent: Agent) -> None:
    # given
    agent.start(0)
    agent.run(0, wat.HELLO)
    # when
    outcome = agent.run(0, wat.HELLO, load=False).outcome
    # then
    assert (outcome.code, outcome.stdout, outcome.load_ms) == (None, b"hello\n", 0.0)


@pytest.mark.parametrize("size", [0, MAX_PACKET, 5 * MIB])
def test_input_and_output_of_every_size_pass_whole(agent: Agent, size: int) -> None:
    # given
    agent.start(0)
    stdin = os.urandom(size)
    # when
    outcome = agent.run(0, wat.CAT, stdin=stdin).outcome
    # then
    assert (outcome.code, outcome.stdout == stdin) == (None, True)


def test_each_run_has_its_own_order_where_the_ones_before_were_the_same(agent: Agent) -> None:
    # given
    agent.start(0)
    agent.run(0, wat.CAT)
    # when
    told = [agent.run(0, wat.CAT, load=False, stdin=stdin).outcome.stdout for stdin in (b"a", b"a", b"b", b"", b"a")]
    # then
    assert told == [b"a", b"a", b"b", b"", b"a"]


def test_a_value_larger_than_a_packet_passes_whole(agent: Agent) -> None:
    # given
    agent.start(0)
    # when
    outcome = agent.run(0, BIG_VALUE, component=True, invoke="big").outcome
    # then
    assert (outcome.code, outcome.message) == (None, "")
    assert outcome.value is not None
    assert len(msgpack.unpackb(outcome.value)) == 200_000


def test_output_beyond_the_limit_is_cut_and_said(agent: Agent) -> None:
    # given
    agent.start(0)
    # when
    outcome = agent.run(0, wat.FLOOD, output_bytes=1000).outcome
    # then
    assert (outcome.code, len(outcome.stdout)) == ("output_limit", 1000)


def test_a_run_never_shows_the_output_of_the_one_before(agent: Agent) -> None:
    # given
    agent.start(0)
    assert agent.run(0, wat.HELLO).outcome.stdout == b"hello\n"
    # when
    outcome = agent.run(0, wat.MISSING).outcome
    # then
    assert (outcome.code, outcome.stdout, outcome.stderr) == ("unknown_import", b"", b"")


def test_the_runner_works_on_after_every_failure_of_a_guest(agent: Agent) -> None:
    # given
    agent.start(0)
    failing = {
        "deadline_exceeded": (wat.LOOP, {"timeout_ms": 50}),
        "trap": (wat.DIVIDE, {}),
        "stack_overflow": (wat.RECURSE, {}),
        "unknown_export": (wat.ADD, {"invoke": "subtract"}),
    }
    for code, (module, fields) in failing.items():
        # when
        assert agent.run(0, module, **fields).outcome.code == code
        # then
        assert agent.run(0, wat.HELLO).outcome.stdout == b"hello\n"


def test_an_artifact_that_does_not_load_is_told_from_a_failure_of_the_guest(agent: Agent) -> None:
    # given
    agent.start(0)
    fd = memfd(b"not an artifact")
    # when
    agent.processes.run(0, ORDER, fd)
    os.close(fd)
    finished = agent.next(RunnerFinished)
    # then
    assert (finished.bad_artifact, finished.outcome.code) == (True, "internal")
    assert not agent.run(0, wat.HELLO).bad_artifact


def test_every_wall_around_a_runner_is_raised(agent: Agent) -> None:
    # given
    agent.start(0)
    # when
    with open(f"/proc/{agent.pid(0)}/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file)
    # then
    optional = ("user ", "network ", "mounts ", "mounting ", "ipc ", "hostname ")  # as the machine allows
    raised = [line for line in agent.processes.walls if not line.startswith(optional)]
    assert {line.partition(" ")[2] for line in raised} == {"raised"}
    assert {"files", "tcp", "signals", "calls", "privileges"} < {line.partition(" ")[0] for line in raised}
    assert (status["Name"], status["NoNewPrivs"], status["Umask"]) == ("ml-runner", "1", "0077")


def test_the_agents_environment_stays_with_the_agent(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setenv("SECRET", "hunter2")
    # when
    agent.start(0)
    environ = f"/proc/{agent.pids()[0]}/environ"
    # then
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):  # the template can't be looked into
            os.open(environ, os.O_RDONLY)
        return
    with open(environ, "rb") as file:
        assert b"hunter2" not in file.read()


def test_a_runner_holds_no_descriptor_but_its_own(agent: Agent) -> None:
    # given
    agent.start(0)
    agent.run(0, wat.HELLO)
    fds = f"/proc/{agent.pid(0)}/fd"
    if os.geteuid() != 0:
        # then
        with pytest.raises(PermissionError):  # the wall against its siblings keeps us out too
            os.listdir(fds)
        return
    # when
    targets = {os.readlink(f"{fds}/{name}").split(" ")[0].split("[")[0] for name in os.listdir(fds)}
    # then
    own = {"/dev/null", "socket:", "/memfd:stdout", "/memfd:stderr", "/memfd:spill"}
    of_wasmtime = {"anon_inode:", "/memfd:artifact"}  # its event loop, and the module that is loaded
    assert own <= targets <= own | of_wasmtime | {f"/proc/{agent.pid(0)}/statm"}


RANDOM = """(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\10\\00\\00\\00\\20\\00\\00\\00")
  (func (export "_start")
    (drop (call $random (i32.const 16) (i32.const 32)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""


def test_no_two_runs_of_any_runner_see_the_same_random_bytes(agent: Agent) -> None:
    # given
    agent.start(0, 1)
    # when
    seen = [agent.run(slot, RANDOM).outcome.stdout for slot in (0, 1, 0, 1)]
    # then
    assert [len(data) for data in seen] == [32] * 4
    assert len(set(seen)) == 4


def test_a_killed_run_shows_nothing_of_the_one_before(agent: Agent) -> None:
    # given
    agent.start(0)
    assert agent.run(0, wat.CAT, stdin=b"x" * 4000).outcome.stdout == b"x" * 4000
    # when
    agent.begin(0, wat.CAT, stdin=b"y" * 5_000_000)
    died = agent.kill(0)
    # then
    assert set(died.stdout) <= {ord("y")}


def test_a_second_runner_for_a_slot_is_refused(agent: Agent) -> None:
    # given
    agent.start(0)
    # when / then
    for slot in (0, 2, -1):
        with pytest.raises(ValueError, match="not free"):
            agent.processes.spawn(slot)
