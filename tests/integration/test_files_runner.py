"""The process of a job with files: what its guest can do, which limits hold, and what comes back of it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda.worker.processes import Processes
from tests import wat
from tests import wat_files as w
from tests.hostile.test_escaped_guest import in_its_place
from tests.integration.agents import MAX_WAIT_S, MIB, Agent, running_agent
from tests.integration.files_agent import SLOT, begin, descriptors, end, plant, run

FILES = {"/data/in.txt": b"what was sent", "/lib/pkg/__init__.py": b"", "/top": b"top"}


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with running_agent(slots=1) as made:
        made.start(0)
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = plant(tmp_path / "tree", FILES)
    (made / "tmp").mkdir(mode=0o755)
    return made


def test_a_guest_reads_its_files_and_lists_its_folders(agent: Agent, tree: Path) -> None:
    steps = [
        w.opened(0, w.ROOT, "data/in.txt"),
        w.read(w.Opened(0)),
        w.opened(1, w.ROOT, "data", w.DIRECTORY),
        w.listing(w.Opened(1)),
        w.stat(w.ROOT, "lib/pkg/__init__.py"),
        w.stat(w.ROOT, "absent"),
    ]
    ended = run(agent, w.guest(*steps), tree)
    assert ended.errors == [w.SUCCESS] * 5 + [w.NOENT]
    assert ended.read.startswith(b"what was sent") and ended.read.endswith(b"in.txt")


def test_a_guest_works_in_its_scratch_and_what_it_leaves_is_collected(agent: Agent, tree: Path) -> None:
    steps = [
        w.mkdir(w.TMP, "sub"),
        w.opened(0, w.TMP, "sub/out", w.CREATE | w.EXCLUSIVE, write=True),
        w.write(w.Opened(0), "made here"),
        w.rename(w.TMP, "sub/out", w.TMP, "moved"),
        w.link(w.TMP, "moved", w.TMP, "sub/again"),
        w.symlink("moved", w.TMP, "sub/link"),
        w.touch(w.TMP, "moved"),
        w.opened(1, w.TMP, "gone", w.CREATE, write=True),
        w.unlink(w.TMP, "gone"),
        w.opened(2, w.TMP, "cut", w.CREATE, write=True),
        w.write(w.Opened(2), "0123456789"),
        w.set_size(w.Opened(2), 4),
        w.rmdir(w.TMP, "sub"),
    ]
    ended = run(agent, w.guest(*steps), tree, scratch=MIB, collect=["/tmp", "/tmp/absent"])
    assert ended.errors == [w.SUCCESS] * 12 + [w.NOTEMPTY]
    assert ended.files == {
        "/tmp/moved": b"made here",
        "/tmp/sub/again": b"made here",
        "/tmp/cut": b"0123",
        "/tmp/absent": None,
    }


def test_without_a_scratch_there_is_only_the_root(agent: Agent, tree: Path) -> None:
    ended = run(agent, w.guest(w.stat(w.ROOT, "top"), w.stat(w.TMP, "x")), tree)
    assert ended.errors == [w.SUCCESS, w.BADF]


def test_two_jobs_never_see_what_the_other_has_written(agent: Agent, tree: Path) -> None:
    leave = w.guest(w.opened(0, w.TMP, "left", w.CREATE | w.EXCLUSIVE, write=True))
    for _ in range(2):
        assert run(agent, leave, tree, scratch=MIB).errors == [w.SUCCESS]


def test_a_component_has_the_same_files(agent: Agent, tree: Path) -> None:
    """Its preopened folders are counted: the list that it gets has two of them, of 12 bytes each."""
    ended = run(agent, PREOPENS, tree, scratch=MIB, component=True, invoke="count")
    assert ended.finished is not None
    assert (ended.finished.outcome.code, ended.finished.outcome.value) == (None, b"\x02"), ended.finished.outcome


PREOPENS = f"""(component
  (import "wasi:filesystem/types@0.2.0" (instance $types (export "descriptor" (type (sub resource)))))
  (alias export $types "descriptor" (type $descriptor))
  (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
    (alias outer 1 $descriptor (type $inner)) (export "descriptor" (type $d (eq $inner)))
    (export "get-directories" (func (result (list (tuple (own $d) string)))))))
  (core module $memory (memory (export "memory") 4) {wat.REALLOC})
  (core instance $m (instantiate $memory))
  (core func $get (canon lower (func $preopens "get-directories")
    (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
  (core module $main (import "wasi" "get" (func $get (param i32))) (import "m" "memory" (memory 1))
    (func (export "count") (result i32) (call $get (i32.const 64)) (i32.load (i32.const 68))))
  (core instance $i (instantiate $main (with "wasi" (instance (export "get" (func $get)))) (with "m" (instance $m))))
  (func (export "count") (result u32) (canon lift (core func $i "count"))))"""


# --- limits ---


def test_a_scratch_holds_what_was_asked_for_and_then_it_is_full(agent: Agent, tree: Path) -> None:
    ended = run(agent, w.FILL, tree, scratch=3 * MIB, collect=["/tmp/full"])
    assert ended.exit_code == w.NOSPC
    assert len(ended.files["/tmp/full"] or b"") == 3 * MIB


def test_a_scratch_holds_so_many_files_and_no_more(agent: Agent, tree: Path) -> None:
    ended = run(agent, w.MANY, tree, scratch=MIB, collect=["/tmp"])
    assert ended.exit_code == w.NOSPC
    assert 1000 < len(ended.files) < 1024


@pytest.mark.parametrize("scratch", [0, 64 * MIB])
def test_the_limit_on_the_output_holds_whatever_the_scratch(agent: Agent, tree: Path, scratch: int) -> None:
    ended = run(agent, wat.FLOOD, tree, scratch=scratch, output_bytes=1000)
    assert ended.finished is not None
    assert (ended.finished.outcome.code, len(ended.finished.outcome.stdout)) == ("output_limit", 1000)


def test_output_within_its_limit_arrives_whole_beside_a_scratch(agent: Agent, tree: Path) -> None:
    data = os.urandom(2 * MIB)
    ended = run(agent, wat.CAT, tree, scratch=MIB, stdin=data, output_bytes=2 * MIB)
    assert ended.finished is not None
    assert (ended.finished.outcome.code, ended.finished.outcome.stdout == data) == (None, True)


def test_a_killed_guest_shows_its_output_beside_a_scratch(agent: Agent, tree: Path) -> None:
    text = w.guest(w.opened(0, w.TMP, "out", w.CREATE, write=True), w.write(w.Opened(0), "so far"), after=SPIN)
    begin(agent, text, tree, scratch=MIB, collect=["/tmp"])
    wait_for_output(agent, 2)
    agent.processes.kill(SLOT)
    ended = end(agent)
    assert (ended.finished, ended.died.stdout, ended.files) == (None, b"\0\0", {"/tmp/out": b"so far"})


def wait_for_output(agent: Agent, size: int) -> None:
    """The outputs are known once the template has told of them."""
    deadline = time.monotonic() + MAX_WAIT_S
    while agent.processes.look(SLOT).size < size:
        assert time.monotonic() < deadline, "the guest wrote too little"
        agent.poll(0.01)


SPIN = "(loop $again (br $again))"


@pytest.mark.parametrize(
    ("after", "fields", "code"),
    [
        ("unreachable", {}, "trap"),
        (SPIN, {"timeout_ms": 200}, "deadline_exceeded"),
        ("(call $proc_exit (i32.const 3))", {}, None),
    ],
)
def test_files_are_collected_however_the_guest_ends(
    agent: Agent, tree: Path, after: str, fields: dict[str, int], code: str | None
) -> None:
    text = w.guest(w.opened(0, w.TMP, "out", w.CREATE, write=True), w.write(w.Opened(0), "so far"), after=after)
    ended = run(agent, text, tree, scratch=MIB, collect=["/tmp"], **fields)
    assert ended.finished is not None
    assert (ended.finished.outcome.code, ended.files) == (code, {"/tmp/out": b"so far"})


# --- the process ---


def test_every_wall_around_it_is_raised(agent: Agent, tree: Path) -> None:
    ended = run(agent, wat.HELLO, tree, scratch=MIB)
    optional = ("user ", "network ", "mounts ", "mounting ", "ipc ", "hostname ")  # as the machine allows
    raised = [line for line in ended.walls if not line.startswith(optional)]
    assert {line.partition(" ")[2] for line in raised} == {"raised"}
    assert {"root", "files", "calls", "privileges"} < {line.partition(" ")[0] for line in raised}


def test_nothing_is_left_of_it(agent: Agent, tree: Path) -> None:
    # given
    run(agent, wat.HELLO, tree, scratch=MIB, collect=["/tmp"])
    template = agent.pids()[0]

    def held() -> tuple[int, int, str]:
        own = descriptors()
        theirs = len(os.listdir(f"/proc/{template}/fd")) if os.geteuid() == 0 else 0  # it can't be looked into
        return own, theirs, Path("/proc/self/mountinfo").read_text()

    before = held()
    # when
    for _ in range(3):
        run(agent, wat.HELLO, tree, scratch=MIB, collect=["/tmp"])
    # then
    assert held() == before


def test_ordinary_runners_have_nothing_of_it(agent: Agent, tree: Path) -> None:
    run(agent, wat.HELLO, tree, scratch=MIB)
    assert agent.run(0, wat.PREOPENED).outcome.exit_code == w.BADF
    assert "root raised" not in agent.processes.walls


def test_a_tree_that_is_not_there_is_no_fault_of_the_platform(agent: Agent, tree: Path) -> None:
    ended = run(agent, wat.HELLO, tree / "absent")
    assert (ended.finished, ended.died.unsupported) == (None, False)
    assert "No such file" in ended.died.how


def test_where_nobody_may_mount_the_job_is_told_that(monkeypatch: pytest.MonkeyPatch, tree: Path) -> None:
    monkeypatch.setattr("minilambda.worker.launch.subprocess.Popen", in_its_place("unable"))
    with running_agent(slots=1) as agent:
        agent.start(0)
        ended = run(agent, wat.HELLO, tree, scratch=MIB)
        assert (ended.finished, ended.died.unsupported) == (None, True)
        assert "Operation not permitted" in ended.died.how
        assert agent.run(0, wat.HELLO).outcome.stdout == b"hello\n"
        assert "mounting absent: [Errno 1] Operation not permitted" in agent.processes.walls


def test_who_requires_walls_does_not_require_that_there_can_be_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("minilambda.worker.launch.subprocess.Popen", in_its_place("unable"))
    with running_agent(slots=1) as agent, caplog.at_level(logging.WARNING, "minilambda.worker"):
        agent.processes = Processes(1, required=True)
        agent.start(0)
    assert "jobs with files can't run here, mounting: " in caplog.text
