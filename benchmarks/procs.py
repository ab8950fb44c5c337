"""What Linux says of processes: their threads' processor time, their memory, their children."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")


def spent(pid: int) -> dict[tuple[int, str], float]:
    """Processor time so far of each thread of a process, microseconds, by thread id and role; empty once it is gone.

    Exact where the kernel counts it, else in ticks of 10 ms. How it is split between the program and the kernel is not
    told: the kernel knows that by samples only, which miss threads that run for microseconds at a time.
    """
    found = {}
    for task in _tasks(pid):
        if fields := stat(task):
            ticks = (int(fields[11]) + int(fields[12])) * _TICK_US
            found[int(task.name), _role(task, pid)] = _exact_us(task) or ticks
    return found


def process_us(pid: int) -> float:
    """Processor time so far of all threads of a process, also of those that have ended; 0 once it is gone."""
    fields = stat(Path(f"/proc/{pid}"))
    return (int(fields[11]) + int(fields[12])) * _TICK_US if fields else 0.0


def private_bytes(pid: int) -> int:
    """Memory that no other process shares: what would be free again without this process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def name(pid: int) -> str:
    """What the process calls itself; "" once it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def family(roots: Iterable[int]) -> list[int]:
    """The processes ``roots`` and every process below them."""
    children: dict[int, list[int]] = {}
    for pid in _all():
        if fields := stat(Path(f"/proc/{pid}")):
            children.setdefault(int(fields[1]), []).append(pid)
    found, waiting = [], list(roots)
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def marked(mark: str) -> list[int]:
    """The processes that were started with ``mark``, as NAME=VALUE, in their environment, and live."""
    wanted, found = mark.encode(), []
    for pid in _all():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in variables:
            found.append(pid)
    return found


def asleep(pids: Iterable[int]) -> bool:
    """Whether no thread of these processes runs, wants to run or waits for a disk."""
    return not any((fields := stat(task)) and fields[0] in "RD" for pid in pids for task in _tasks(pid))


def stat(entry: Path) -> list[str] | None:
    """The fields of a ``stat`` file of /proc from the state on; None when the process is gone."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _all() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _role(task: Path, pid: int) -> str:
    if int(task.name) == pid:
        return "main"
    try:
        comm = (task / "comm").read_text().strip()
    except OSError:
        return ""
    return "ZeroMQ I/O" if comm.startswith("ZMQbg/IO") else "other" if comm == name(pid) else comm


def _exact_us(task: Path) -> float:
    """By the scheduler's own count, nanoseconds; 0 where the kernel keeps none."""
    try:
        return int((task / "schedstat").read_text().split()[0]) / 1e3
    except (OSError, ValueError, IndexError):
        return 0.0
