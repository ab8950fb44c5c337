"""Who a walled process is: nobody, with no capabilities and namespaces of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from typing import Final

FIRST_UID: Final = 0x6D6C0000
"""Walled processes of an agent that is root get user ids from here on, each its own, that no account has."""

_UIDS: Final = 1 << 16  # so many user ids, then from the start again
_NOBODY: Final = 65534

_CLONE_NEWUSER: Final = 0x10000000
NAMESPACES: Final = {"network": 0x40000000, "mounts": 0x00020000, "ipc": 0x08000000, "hostname": 0x04000000}
"""The namespaces that all processes under one template share, and nobody else."""

_MS_REC_PRIVATE: Final = 0x4000 | 0x40000
_CAPABILITIES: Final = 0x20080522  # version 3 of the structure

_libc = ctypes.CDLL(None, use_errno=True)


def leave_namespaces() -> list[str]:
    """Go into new namespaces, with all processes that are forked from now on: a line for each, as ``walls`` has it.

    Where this process is not root, it takes a user namespace first, to be allowed to.
    """
    lines = []
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        lines.append(_line("user", _CLONE_NEWUSER))
        with contextlib.suppress(OSError):  # then it owns nothing in the file systems that it mounts
            _keep_ids(uid, gid)
    lines += [_line(name, flag) for name, flag in NAMESPACES.items()]
    if "mounts raised" in lines:  # what is mounted here stays here; what others mount does not come
        _libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None)
    return lines


def _keep_ids(uid: int, gid: int) -> None:
    """Be known by the same ids in the user namespace. It is the only one there."""
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        fd = os.open(f"/proc/self/{file}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _line(name: str, flag: int) -> str:
    if _libc.unshare(ctypes.c_int(flag)) == 0:
        return f"{name} raised"
    return f"{name} absent: {os.strerror(ctypes.get_errno())}"


def become_nobody(number: int) -> None:
    """If this process is root: take a user id of its own, ``number`` from the first, or nobody's where that can't be.

    Call it with one thread. Raises OSError where the process stays root.
    """
    if os.geteuid() != 0:
        return
    os.setgroups([])
    for uid in (FIRST_UID + number % _UIDS, _NOBODY):
        try:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        except OSError:
            if uid == _NOBODY:
                raise
        else:
            return


def drop_capabilities() -> None:
    """Give up every capability, for good once ``no_new_privs`` is set. Raises OSError."""
    header = struct.pack("=Ii", _CAPABILITIES, 0)
    if _libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(bytes(24))):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
