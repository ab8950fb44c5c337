"""The walls around a process that runs or compiles a stranger's code. Linux only.

Walls are raised in the process itself, after the fork: walls of the template would not part its children from
each other. Each is raised or reported absent; none is skipped in silence. What is needed to start at all
(dying with the parent) is not a wall: it raises. Only namespaces are the template's: all its children share them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minilambda.errors import MinilambdaError
from minilambda.worker import identity, landlock, mounts, syscalls
from minilambda.worker.seccomp import Filter

if TYPE_CHECKING:
    from minilambda.worker.home import Home

MAX_DESCRIPTORS = 64
"""Descriptors that a walled process may have open (RLIMIT_NOFILE)."""

MAX_FILES = 256
"""The same where its guest has files."""

STACK = 16 << 20
"""The stack of a walled process's main thread, bytes (RLIMIT_STACK)."""

MOUNTING = "mounting"
"""Names a line of a report that is no wall: whether there can be jobs with files. Nobody requires that."""

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_KERNEL_TAKES_FIRST = b"1000"  # oom_score_adj: the largest


_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int | bytes) -> None:
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(ctypes.c_int(option), argument, ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def enter_cgroup(fd: int) -> None:
    """Go into the cgroup whose ``cgroup.procs`` is ``fd``, which is closed. Raises OSError."""
    try:
        os.write(fd, b"0")  # the kernel takes milliseconds for that, unless others did the same just now
    finally:
        os.close(fd)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as ``parent`` dies. Raises MinilambdaError if it is dead already.

    The kernel watches the *thread* that made this process.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise MinilambdaError("The parent process died.")


def set_name(name: str) -> None:
    """The name of this process in ``ps`` and ``top``; at most 15 characters are seen."""
    _prctl(_PR_SET_NAME, name.encode())


def ignore_stops() -> None:
    """Leave SIGINT, SIGTERM and SIGHUP to the agent: a service manager sends them to the whole group, and a
    draining agent still needs its runners. They die with it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def forget_environment() -> None:
    """Empty the environment, Python's and the C library's."""
    if os.environ:
        os.environ.clear()
    _libc.clearenv()


def deepen_stack() -> None:
    """Room for what guests may have of the main thread's stack, and for us above it, as far as we may have it.

    The children of this process inherit that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft != resource.RLIM_INFINITY and soft < STACK:
        wanted = STACK if hard == resource.RLIM_INFINITY else min(STACK, hard)
        resource.setrlimit(resource.RLIMIT_STACK, (max(soft, wanted), hard))


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor except ``keep``; 0, 1 and 2 become /dev/null."""
    kept = {0, 1, 2, *keep}
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                continue  # the descriptor of the listing itself
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd, inheritable=False)
    os.close(null)


@dataclass(frozen=True, slots=True)
class Enclosure:
    """What the walls of all children of one template have in common."""

    parent: int  # the template's process id
    namespaces: tuple[str, ...]  # what became of those that the children share, and of mounting there, a line each
    readable: int | None  # directory whose files, once handed over, a runner may read; None: there is none
    required: bool  # nobody serves who lacks a wall
    filters: Mapping[str, Filter | OSError]  # what each kind of process may call; or why that is not known

    def raise_walls(self, kind: str, number: int, cgroup: int | None, home: Home | None = None) -> list[str]:
        """Raise every wall around this process, a ``runner`` or a ``compiler``; ``number`` sets it apart from others.
        ``cgroup`` is a descriptor for ``enter_cgroup``; None: there is no cgroup for it. ``home`` is what the runner of
        a job with files has of them.

        Call it with one thread. Answers one line for each wall: its name and "raised", or "absent: " and the reason.
        Raises MinilambdaError where one is absent that is required, and where the parent is dead.
        """
        descriptors = MAX_DESCRIPTORS if home is None else MAX_FILES
        walls: list[tuple[str, Callable[[], object]]] = [
            ("session", os.setsid),
            ("environment", forget_environment),
            ("directory", lambda: os.chdir("/")),
            ("umask", lambda: os.umask(0o077)),
            ("core", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))),
            ("descriptors", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))),
            ("locked_memory", lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))),
            ("oom_first", _taken_first),
            ("privileges", lambda: self._give_up_privileges(number)),
            # Not dumpable: a sibling of the same user can't trace this process or take its descriptors.
            ("untraceable", be_untraceable),
            ("no_new_privs", lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1)),
            ("files", lambda: landlock.restrict(self._rules(kind, home))),
            ("tcp", lambda: landlock.need(landlock.TCP_SINCE)),
            ("signals", lambda: landlock.need(landlock.SCOPES_SINCE)),
            ("calls", lambda: self._filter(kind, home)),  # the last: it refuses what the others need
        ]
        if home is not None:  # what comes after it can open nothing of this machine
            walls.insert([name for name, _ in walls].index("privileges"), ("root", home.enter))
        if cgroup is not None:
            walls.insert(0, ("cgroup", lambda: enter_cgroup(cgroup)))
        lines = [*self.namespaces, *(f"{name} {_try(raise_one)}" for name, raise_one in walls)]
        if self.readable is not None:
            os.close(self.readable)
        missing = lacked(lines)
        if missing and self.required and (kind != "runner" or home):  # the agent judges the reports of other runners
            raise MinilambdaError(lacking(missing))
        return lines

    def _give_up_privileges(self, number: int) -> None:
        identity.become_nobody(number)
        identity.drop_capabilities()
        die_with_parent(self.parent)  # the kernel forgets that when the user changes

    def _rules(self, kind: str, home: Home | None) -> list[landlock.Rule]:
        """What files a process may open."""
        if kind != "runner":
            return []
        rules = [] if self.readable is None else [(self.readable, landlock.READ_FILE)]
        return rules if home is None else rules + home.rules()

    def _filter(self, kind: str, home: Home | None) -> None:
        found = self.filters[kind] if home is None else _make_filter(syscalls.WITH_FILES)
        if isinstance(found, OSError):
            raise found
        found.install()


def enclose(parent: int, readable: str, required: bool) -> Enclosure:
    """Leave the namespaces of this machine, and make ready what the children of this process need.

    ``readable`` is the path of a directory, or empty.
    """
    namespaces = (*identity.leave_namespaces(), f"{MOUNTING} {_try(mounts.try_out)}")
    die_with_parent(parent)  # the kernel may have forgotten it
    be_untraceable()
    directory = None
    with contextlib.suppress(OSError):  # then what is in it can't be read
        directory = os.open(readable, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if readable else None
    filters = {"runner": _make_filter(syscalls.RUNNER), "compiler": _make_filter(syscalls.COMPILER)}
    return Enclosure(os.getpid(), namespaces, directory, required, filters)


def be_untraceable() -> None:
    """Nobody but root may trace this process, read its memory or take its descriptors."""
    _prctl(_PR_SET_DUMPABLE, 0)


def have_own_files() -> None:
    """What /proc has of this process belongs to its user, until ``be_untraceable`` again."""
    _prctl(_PR_SET_DUMPABLE, 1)


def absent(lines: Iterable[str]) -> list[str]:
    """Those of the lines of a report that name a wall that is not there."""
    return [line for line in lines if not line.endswith(" raised")]


def lacked(lines: Iterable[str]) -> list[str]:
    """Those of them that somebody may require."""
    return [line for line in absent(lines) if not line.startswith(MOUNTING)]


def lacking(missing: Sequence[str]) -> str:
    """The sentence for walls that are required and absent."""
    walls = "; ".join(missing)
    return f"Walls around guests are required, and not all can be raised here: {walls}."


def in_short(lines: Iterable[str]) -> str:
    """A report in a few words: "all", or "all but" the names of those that are absent."""
    names = [line.partition(" ")[0] for line in absent(lines)]
    return f"all but {', '.join(names)}" if names else "all"


def _make_filter(allowed: Mapping[str, tuple[syscalls.Test, ...]]) -> Filter | OSError:
    try:
        return Filter(allowed)
    except OSError as error:
        return error


def _try(raise_one: Callable[[], object]) -> str:
    try:
        raise_one()
    except (OSError, ValueError) as error:
        return f"absent: {error}"
    return "raised"


def _taken_first() -> None:
    # Plain calls: a text file's codecs would cost more than a millisecond in a process that was just forked.
    # Nobody but root can open this file once the process is untraceable, so it comes before that wall.
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, _KERNEL_TAKES_FIRST)
    finally:
        os.close(fd)
