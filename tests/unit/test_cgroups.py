"""The cgroups under an agent, in a tree of plain files. In it a cgroup that has had limits can't be removed until its
files are gone, just as a real one can't until its last process is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minilambda.errors import MinilambdaError
from minilambda.settings import Limits, WorkerSettings
from minilambda.worker.cgroups import COMPILER_ROOM, RUNNER_ROOM, Cgroups, limits_of, own_directory
from minilambda.worker.walls import enter_cgroup

GIB = 1 << 30
LIMITS = {
    "runner": {"memory.max": "1000", "memory.oom.group": "1", "pids.max": "10"},
    "compiler": {"memory.max": "2000", "pids.max": "20"},
}
MOUNTED = "31 2 0:28 / /sys/fs/cgroup rw - tmpfs x rw\n41 31 0:38 {root} /mnt/cg rw,relatime shared:4 - cgroup2 x rw\n"


def tree(top: Path, controllers: str = "cpu memory pids", processes: str = "") -> Path:
    """A cgroup that is delegated to this process."""
    for name, text in {
        "cgroup.events": "populated 1\n",
        "cgroup.controllers": f"{controllers}\n",
        "cgroup.subtree_control": "",
        "cgroup.procs": f"{os.getpid()}\n{processes}",
    }.items():
        (top / name).write_text(text)
    return top


def let_go(group: Path) -> None:
    """The kernel has nothing more in a cgroup."""
    for file in group.iterdir():
        file.unlink()


def contents(group: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in group.iterdir()}


def place(cgroups: Cgroups, kind: str, number: int) -> None:
    """This process goes where it would go if it were the one that was forked."""
    for fd in cgroups.make(kind, number):
        enter_cgroup(fd)


@pytest.mark.parametrize(
    ("cgroup", "root", "found"),
    [
        ("0::/a/b", "/", "/mnt/cg/a/b"),
        ("8:pids:/x\n0::/", "/", "/mnt/cg"),
        ("0::/a/b", "/a", "/mnt/cg/b"),
        ("0::/a/b", "/other", None),
        ("8:pids:/x", "/", None),
    ],
)
def test_the_own_cgroup_is_found_by_its_mount(cgroup: str, root: str, found: str | None) -> None:
    # when
    directory = own_directory(f"{cgroup}\n", MOUNTED.format(root=root))
    # then
    assert directory == (None if found is None else Path(found))


def test_the_limits_have_room_for_the_largest_job_and_compilation() -> None:
    # given
    settings = WorkerSettings(ceiling=Limits(60.0, 3 * GIB, 64 << 20), compile_memory_bytes=2 * GIB)
    # when
    limits = limits_of(settings)
    # then
    assert int(limits["runner"]["memory.max"]) == 3 * GIB + RUNNER_ROOM
    assert int(limits["compiler"]["memory.max"]) >= 2 * GIB + COMPILER_ROOM
    assert all(limit["memory.swap.max"] == "0" and limit["memory.oom.group"] == "1" for limit in limits.values())


def test_a_process_gets_a_cgroup_with_its_limits_that_goes_with_it(tmp_path: Path) -> None:
    # given
    top, cgroups = tree(tmp_path), Cgroups(LIMITS, required=True)
    # when
    cgroups.claim(top)
    place(cgroups, "runner", 3)
    # then
    assert cgroups.report == ()
    assert contents(top / "agent") == {"cgroup.procs": str(os.getpid())}
    assert (top / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert contents(top / "runner-3") == {**LIMITS["runner"], "cgroup.procs": "0"}
    # when
    busy = cgroups.ended(3)
    let_go(top / "runner-3")
    place(cgroups, "compiler", 4)  # by the way, what could not be removed at once is
    # then
    assert not busy
    assert not (top / "runner-3").exists()
    assert contents(top / "compiler-4") == {**LIMITS["compiler"], "cgroup.procs": "0"}


def test_the_agent_leaves_nothing(tmp_path: Path) -> None:
    # given
    top, cgroups = tree(tmp_path), Cgroups(LIMITS)
    cgroups.claim(top)
    place(cgroups, "runner", 1)
    # when
    for group in (top / "runner-1", top / "agent"):
        let_go(group)
    cgroups.leave(5.0)
    # then
    assert [entry.name for entry in top.iterdir() if entry.is_dir()] == []
    assert (top / "cgroup.subtree_control").read_text().startswith("-memory -pids")
    assert (top / "cgroup.procs").read_text().startswith(str(os.getpid()))


def test_what_a_dead_agent_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    # given
    top = tree(tmp_path)
    for name in ("runner-7", "compiler-8", "agent", "runner-x", "others"):
        (top / name).mkdir()
    # when
    Cgroups(LIMITS).claim(top)
    # then
    assert sorted(entry.name for entry in top.iterdir() if entry.is_dir()) == ["agent", "others", "runner-x"]


@pytest.mark.parametrize(("events", "starved"), [("oom 1\noom_kill 2\n", True), ("oom 1\noom_kill 0\n", False)])
def test_a_death_for_want_of_memory_is_known(tmp_path: Path, events: str, starved: bool) -> None:
    # given
    top, cgroups = tree(tmp_path), Cgroups(LIMITS)
    cgroups.claim(top)
    place(cgroups, "runner", 1)
    # when
    (top / "runner-1" / "memory.events").write_text(events)
    # then
    assert cgroups.ended(1) is starved
    assert cgroups.ended(1) is False


@pytest.mark.parametrize("why", ["root", "controllers", "others", "agent", "none"])
def test_what_is_not_delegated_is_left_alone_and_not_required(tmp_path: Path, why: str) -> None:
    # given
    top: Path | None = tree(tmp_path, "cpu io" if why == "controllers" else "memory", "1\n" if why == "others" else "")
    if why == "root":
        (tmp_path / "cgroup.events").unlink()
    if why == "agent":
        (tmp_path / "agent").mkdir()
        (tmp_path / "agent" / "cgroup.procs").write_text("1\n")
    before = {path.name for path in tmp_path.iterdir()}
    cgroups = Cgroups(LIMITS, required=True)
    # when
    cgroups.claim(None if why == "none" else top)
    place(cgroups, "runner", 1)
    cgroups.ended(1)
    cgroups.leave(0.0)
    # then
    assert len(cgroups.report) == 1
    assert cgroups.report[0].startswith("cgroup absent: ")
    assert {path.name for path in tmp_path.iterdir()} == before


def test_what_is_delegated_in_part_is_used_and_said(tmp_path: Path) -> None:
    # given
    top, cgroups = tree(tmp_path, "pids"), Cgroups(LIMITS, required=True)
    # when
    cgroups.claim(top)
    place(cgroups, "runner", 1)
    # then
    assert cgroups.report == ("cgroup_memory absent: not delegated",)
    assert contents(top / "runner-1") == {"pids.max": "10", "cgroup.procs": "0"}


@pytest.mark.parametrize("required", [False, True])
def test_a_cgroup_that_is_delegated_and_fails_is_missed_where_walls_are_required(
    tmp_path: Path, required: bool
) -> None:
    # given
    top, cgroups = tree(tmp_path), Cgroups(LIMITS, required)
    cgroups.claim(top)
    (top / "runner-1").write_text("in the way")
    # when
    if required:
        with pytest.raises(MinilambdaError, match=r"required.*cgroup absent"):
            place(cgroups, "runner", 1)
    else:
        place(cgroups, "runner", 1)
    # then
    assert cgroups.report[0].startswith("cgroup absent: ")
