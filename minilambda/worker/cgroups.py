"""A cgroup for each process under the agent, where this machine has given the agent's own cgroup to it. Version 2 only.

It bounds what no limit of a process counts: shared and kernel memory, page tables, the number of threads. The agent
makes it and the process goes into it. Those who require walls don't require this one where it is not delegated.

    the agent's own cgroup      given to it; it takes memory and pids from here for those below
        agent                   the agent and the template
        runner-1, compiler-2    one process each, with limits, for as long as the process lives
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from minilambda.errors import MinilambdaError
from minilambda.settings import WorkerSettings
from minilambda.worker import walls

RUNNER_ROOM = 1 << 30
"""Bytes of memory that a runner may have beyond the memory of the largest job: itself, output, results, modules."""

COMPILER_ROOM = 512 << 20
"""Bytes of memory that a compiler may have beyond the limit of a compilation: itself, the artifact, stacks."""

THREADS = 64
"""Threads that a process under the agent may have, and four for each core of the machine."""

CONTROLLERS = ("memory", "pids")
"""What can be limited."""

NOT_DELEGATED = "not delegated"
"""How the reason begins where the machine has not given this worker a cgroup of its own."""

REMEDY = (
    "start the worker by `systemd-run --user --scope -p Delegate=yes` (as root without --user) or by the unit in "
    "contrib/systemd, see docs/deployment.md"
)
"""What to do about that."""

_OURS = re.compile(r"(runner|compiler)-[0-9]+")
_AGENT = "agent"
_NEED_NOT_BE = "memory.swap.max"  # there is none where the kernel counts no swap

Limits = Mapping[str, Mapping[str, str]]
"""What is written into the files of a new cgroup, by the kind of the process and the name of the file."""


def limits_of(settings: WorkerSettings) -> Limits:
    """The limits of a ``runner`` and of a ``compiler`` of a worker."""
    cores = os.cpu_count() or 1
    memory = {
        "runner": settings.ceiling.memory_bytes + RUNNER_ROOM,
        "compiler": settings.compile_memory_bytes + COMPILER_ROOM + (cores * 4 << 20),
    }
    return {
        kind: {
            "memory.max": str(size),
            "memory.swap.max": "0",
            "memory.oom.group": "1",
            "pids.max": str(THREADS + 4 * cores),
        }
        for kind, size in memory.items()
    }


def own_directory(cgroup: str, mountinfo: str) -> Path | None:
    """Where the cgroup of a process is mounted, by the text of its ``cgroup`` and ``mountinfo`` in /proc."""
    inside = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::/")), None)
    for line in mountinfo.splitlines() if inside else ():
        fields, _, filesystem = line.partition(" - ")
        if filesystem.split(" ")[0] == "cgroup2":
            root, mounted_at = fields.split(" ")[3:5]
            with contextlib.suppress(ValueError):  # another part of the tree is mounted here
                return Path(mounted_at) / PurePosixPath(str(inside)).relative_to(root)
    return None


def own_directory_now() -> Path | None:
    """``own_directory`` of this process."""
    try:
        return own_directory(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    except OSError:
        return None


class Cgroups:
    """The cgroups under one agent. Until ``claim``, and where that finds none delegated, nothing is done."""

    def __init__(self, limits: Limits, required: bool = False) -> None:
        self._limits = limits
        self._required = required  # what is delegated and can't be used ends the worker
        self._top: Path | None = None  # the agent's own at its start; None: nothing is claimed
        self._controllers: list[str] = []  # those that the cgroups of processes have
        self._names: dict[int, str] = {}  # cgroups that hold a process, by its number
        self._ended: set[str] = set()  # cgroups that can be removed as soon as the kernel lets go of them
        self.report: tuple[str, ...] = ()  # what is not delegated or failed, a line each, as ``walls`` has it

    def claim(self, directory: Path | None) -> None:
        """Take over the agent's own cgroup, ``directory``, if it is delegated, and move the agent below it.

        Raises MinilambdaError where that fails though it is delegated, and walls are required.
        """
        if directory is None:
            return self._absent("there is no cgroup of version 2 here")
        self._controllers = _given(directory)
        if not self._controllers:
            return self._absent(NOT_DELEGATED)
        if (_processes(directory) | _processes(directory / _AGENT)) - {os.getpid()}:
            return self._absent(f"{NOT_DELEGATED} to this worker alone, there are other processes in the same")
        try:
            self._remove_stale(directory)
            (directory / _AGENT).mkdir(exist_ok=True)
            _write(directory / _AGENT / "cgroup.procs", str(os.getpid()))
            self._top = directory
            _write(directory / "cgroup.subtree_control", " ".join(f"+{name}" for name in self._controllers))
        except OSError as error:
            self.leave(0.0)
            return self._fail(error)
        missing = [name for name in CONTROLLERS if name not in self._controllers]
        self.report = tuple(f"cgroup_{name} absent: {NOT_DELEGATED}" for name in missing)

    def make(self, kind: str, number: int) -> list[int]:
        """A cgroup for a process that is about to be forked: the descriptor by which that goes into it, or none.

        The process moves itself: the kernel takes milliseconds for it, which the agent does not have, and so nothing of
        the process is ever outside. The descriptor is the caller's. Raises MinilambdaError where that fails and walls
        are required.
        """
        if self._top is None:
            return []
        self._sweep()
        name = self._names[number] = f"{kind}-{number}"
        group = self._top / name
        try:
            group.mkdir(exist_ok=True)
            self._limit(kind, group)
            return [_open(group / "cgroup.procs")]
        except OSError as error:
            self._fail(error)
            return []

    def ended(self, number: int) -> bool:
        """The process is dead: its cgroup goes. Answers whether the kernel ended it for want of memory in there."""
        name = self._names.pop(number, None)
        if self._top is None or name is None:
            return False
        starved = "memory" in self._controllers and _oom_kills(self._top / name) > 0
        self._ended.add(name)
        self._sweep()
        return starved

    def leave(self, patience: float) -> None:
        """Remove every cgroup that was made, and go back to where the agent was. All processes have ended.

        Waits up to ``patience`` seconds for the kernel. Idempotent.
        """
        if self._top is None:
            return
        top, deadline = self._top, time.monotonic() + patience
        self._ended |= set(self._names.values())
        self._names.clear()
        while self._sweep() and time.monotonic() < deadline:
            time.sleep(0.005)  # the agent ends, and the kernel lets go of its dead children a little later
        with contextlib.suppress(OSError):  # what is left is removed at the next start
            # A cgroup that gives controllers to others can't hold processes itself.
            _write(top / "cgroup.subtree_control", " ".join(f"-{name}" for name in self._controllers))
            _write(top / "cgroup.procs", str(os.getpid()))
            (top / _AGENT).rmdir()
        self._top = None

    # --- inside ---

    def _limit(self, kind: str, group: Path) -> None:
        for file, value in self._limits[kind].items():
            if file.partition(".")[0] in self._controllers:
                try:
                    _write(group / file, value)
                except OSError:
                    if file != _NEED_NOT_BE:
                        raise

    def _absent(self, why: str) -> None:
        self.report = (f"cgroup absent: {why}",)

    def _fail(self, error: OSError) -> None:
        self._absent(str(error))
        if self._required:
            raise MinilambdaError(walls.lacking(self.report))

    def _sweep(self) -> bool:
        """Remove what can be removed; whether something is left."""
        if self._top is not None and self._ended:
            self._ended -= _removed(self._top, self._ended)
        return bool(self._ended)

    def _remove_stale(self, directory: Path) -> None:
        """Those of an agent that died. What still has a process can't be removed, and is used again or left."""
        _removed(directory, [name for name in os.listdir(directory) if _OURS.fullmatch(name)])


def _given(directory: Path) -> list[str]:
    """The controllers that this process may give on below ``directory``; none where it is not delegated."""
    if not (directory / "cgroup.events").exists():  # only the root of all has none
        return []
    needed = (directory, directory / "cgroup.procs", directory / "cgroup.subtree_control")
    if not all(os.access(path, os.W_OK) for path in needed):
        return []
    try:
        there = (directory / "cgroup.controllers").read_text().split()
    except OSError:
        return []
    return [name for name in CONTROLLERS if name in there]


def _processes(directory: Path) -> set[int]:
    try:
        return {int(line) for line in (directory / "cgroup.procs").read_text().split()}
    except OSError:
        return set()


def _removed(directory: Path, names: Iterable[str]) -> set[str]:
    """Remove cgroups; answers those that are gone."""
    gone = set()
    for name in names:
        try:
            os.rmdir(directory / name)
        except FileNotFoundError:
            gone.add(name)
        except OSError:  # busy
            continue
        else:
            gone.add(name)
    return gone


def _oom_kills(group: Path) -> int:
    """Processes in a cgroup that the kernel ended because of its limit."""
    try:
        events = dict(line.split(" ") for line in (group / "memory.events").read_text().splitlines())
        return int(events.get("oom_kill", "0"))
    except (OSError, ValueError):
        return 0


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _write(path: Path, value: str) -> None:
    fd = _open(path)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
