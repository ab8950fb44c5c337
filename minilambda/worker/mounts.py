"""Mounts that have no place in any directory: each lasts as long as somebody has a descriptor of it, and no longer.

So nothing can be left behind, and nobody finds them but those who were given a descriptor. Linux 5.12 and later, for
those who may mount: root, and whoever has a user namespace of its own. All raise OSError.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_OPEN_TREE: Final = 428  # these are the same on all machines
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_MOUNT_SETATTR: Final = 442

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_CLONE: Final = 1
_CLOEXEC: Final = 1  # of fsopen and fsmount; open_tree has that of open
_SET_STRING: Final = 1
_CREATE: Final = 6
_READ_ONLY: Final = 1
_BARE: Final = 2 | 4 | 8  # no set-user-id, no devices, no programs

_libc = ctypes.CDLL(None, use_errno=True)


def read_only(path: str) -> int:
    """The directory at ``path`` and what is below it, where nobody can change anything: a descriptor of the mount."""
    mount = part_of_tree(path)
    try:
        attributes = struct.pack("=4Q", _READ_ONLY | _BARE, 0, 0, 0)
        _call(_MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    except OSError:
        os.close(mount)
        raise
    return mount


def part_of_tree(path: str) -> int:
    """The directory at ``path`` and what is below it, from where there is no way up: a descriptor of the mount."""
    return _call(_OPEN_TREE, _AT_FDCWD, path.encode(), _CLONE | os.O_CLOEXEC)


def temporary(size: int, inodes: int) -> int:
    """An empty directory in memory for ``size`` bytes and so many ``inodes``: a descriptor of the mount.

    Everybody who has the descriptor may write there.
    """
    context = _call(_FSOPEN, b"tmpfs", _CLOEXEC)
    try:
        for key, value in (("size", str(size)), ("nr_inodes", str(inodes)), ("mode", "0777")):
            _call(_FSCONFIG, context, _SET_STRING, key.encode(), value.encode(), 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        return _call(_FSMOUNT, context, _CLOEXEC, _BARE)
    finally:
        os.close(context)


def try_out() -> None:
    """Mount something and let go of it."""
    os.close(temporary(1, 1))


def _call(number: int, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
