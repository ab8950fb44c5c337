"""Landlock: a process gives up every file, TCP port and abstract socket, and signals to anyone outside.

Memory files need no rule: Landlock leaves what is on no mounted file system alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from typing import Final

_CREATE_RULESET: Final = 444  # the same on all machines
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1

READ_FILE: Final = 1 << 2
"""To open files for reading."""

READ: Final = READ_FILE | 1 << 3
"""To open files for reading, and to list directories."""

CHANGE: Final = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 14
"""To write and shorten files, and to make, rename, link and remove files, directories and symbolic links.

No devices, no pipes, no sockets."""

Rule = tuple[int, int]
"""A descriptor of a directory, and what stays allowed below it."""

_FILE_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # by first version
_TCP: Final = 0b11  # bind, connect
_SCOPES: Final = 0b11  # abstract sockets, signals

TCP_SINCE: Final = 4
"""The first version that knows of TCP ports."""

SCOPES_SINCE: Final = 6
"""The first version that keeps signals and abstract sockets inside."""


def version() -> int:
    """What the kernel offers, from 1. Raises OSError where it offers nothing."""
    return _call(_CREATE_RULESET, ctypes.c_void_p(None), ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))


def restrict(rules: Iterable[Rule]) -> None:
    """Give up all that this kernel's Landlock knows of, but for what ``rules`` allow, for good.

    ``no_new_privs`` must be set. It works on this thread and those that it starts: there must be no others. Raises
    OSError.
    """
    offered = version()
    files = next(rights for since, rights in reversed(_FILE_RIGHTS.items()) if offered >= since)
    about = struct.pack("=Q", files)
    if offered >= TCP_SINCE:
        about += struct.pack("=Q", _TCP)
    if offered >= SCOPES_SINCE:
        about += struct.pack("=Q", _SCOPES)
    ruleset = _call(_CREATE_RULESET, ctypes.c_char_p(about), ctypes.c_size_t(len(about)), ctypes.c_uint32(0))
    try:
        for directory, rights in rules:
            rule = struct.pack("=Qi", rights & files, directory)
            _call(
                _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.c_char_p(rule), ctypes.c_uint32(0)
            )
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def need(since: int) -> None:
    """Raises OSError where the kernel's version is older."""
    offered = version()
    if offered < since:
        raise OSError(errno.EOPNOTSUPP, f"Landlock of this kernel has version {offered}, and {since} is needed")


_libc = ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        why = {errno.ENOSYS: "the kernel has no Landlock", errno.EOPNOTSUPP: "Landlock is switched off"}
        raise OSError(code, why.get(code, os.strerror(code)))
    return result
