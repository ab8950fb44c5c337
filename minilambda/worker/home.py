"""Where a job with files lives: a tree of files that nobody can change, and a ``/tmp`` of a size of its own.

The template furnishes it before the fork, since it may mount: mounts of no directory, that end with the last process
that has a descriptor of them. The runner then makes the tree its root, and sees nothing else of this machine. The agent
gets a descriptor of the scratch, from which it collects, and of the two outputs.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import Final, NamedTuple

from minilambda.errors import MinilambdaError
from minilambda.worker import landlock, mounts
from minilambda.worker.cell import Folder

PAGE: Final = 4096  # bytes that a file in memory takes at least
_SMALLEST: Final = 2048  # bytes of scratch for each inode: what the kernel needs for one is of that order
_INODES: Final = (1024, 65536)  # the fewest and the most of one scratch

_NOT_HERE: Final = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENODEV, errno.EINVAL}


class CantMount(OSError):
    """This process may not mount, or the kernel can't mount so."""


class Plan(NamedTuple):
    """What to furnish. It travels as it is."""

    tree: str  # absolute path of the directory that is to be the guest's root
    scratch: int  # size of its ``/tmp``, bytes; 0: none
    output: int  # what may be written to both outputs together, bytes


@dataclass(frozen=True, slots=True)
class Home:
    """The descriptors of a furnished home. They are the holder's."""

    plan: Plan
    tree: int  # the mount that is the root
    scratch: int = -1  # the mount that is ``/tmp``; -1: none
    outputs: tuple[int, int] | None = None  # files for the guest's output and errors; None where there is no scratch

    @property
    def shared(self) -> list[int]:
        """What the agent gets."""
        return [] if self.outputs is None else [self.scratch, *self.outputs]

    @property
    def all(self) -> list[int]:
        return [self.tree, *self.shared]

    def close(self) -> None:
        for fd in self.all:
            os.close(fd)

    def rules(self) -> list[landlock.Rule]:
        """What Landlock is to leave open."""
        rules = [(self.tree, landlock.READ)]
        return rules if self.scratch < 0 else [*rules, (self.scratch, landlock.READ | landlock.CHANGE)]

    def enter(self) -> None:
        """Make the tree this process's root, from where nothing else can be reached but by descriptors.

        The working directory becomes one in which each descriptor of this process has its number for a name, and from
        which there is no way up. Raises MinilambdaError.
        """
        try:
            descriptors = mounts.part_of_tree("/proc/self/fd")
            os.fchdir(self.tree)
            os.chroot(".")
            os.fchdir(descriptors)
            os.close(descriptors)
        except OSError as error:  # the guest must not begin, so it is more than a wall that is absent
            raise MinilambdaError(f"The root of the guest's files can't be entered: {error}.") from error

    def folders(self) -> list[Folder]:
        """What the guest gets, by the names that they have after ``enter``."""
        folders = [Folder(b"%d" % self.tree, b"/", False)]
        return folders if self.scratch < 0 else [*folders, Folder(b"%d" % self.scratch, b"/tmp", True)]


def furnish(plan: Plan) -> Home:
    """Mount what a job is to have. Raises CantMount where that can't be here, OSError for what else goes wrong."""
    try:
        tree = mounts.read_only(plan.tree)
        if not plan.scratch:
            return Home(plan, tree)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, tree)
            fewest, most = _INODES
            scratch = mounts.temporary(plan.scratch, max(fewest, min(plan.scratch // _SMALLEST, most)))
            undo.callback(os.close, scratch)
            outputs = _outputs(plan.output)
            undo.pop_all()
        return Home(plan, tree, scratch, outputs)
    except OSError as error:
        if error.errno in _NOT_HERE:
            raise CantMount(error.errno, os.strerror(error.errno)) from None
        raise


def _outputs(size: int) -> tuple[int, int]:
    """Two files with room for ``size`` bytes together, by the kernel's account.

    The limit on the size of a file does not tell files apart, and files in the scratch may be larger. So the guest's
    outputs are in a file system of their own. It has whole pages only, and each file may have begun one.
    """
    place = mounts.temporary((size // PAGE + 3) * PAGE, 3)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        stdout = os.open("stdout", flags, 0o600, dir_fd=place)
        try:
            return stdout, os.open("stderr", flags, 0o600, dir_fd=place)
        except OSError:
            os.close(stdout)
            raise
    finally:
        os.close(place)
