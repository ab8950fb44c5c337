"""Seccomp: the kernel refuses a walled process every call that it has no need of.

A filter is built from ``syscalls`` once, before the fork, and put in place in each child. It is ours to assemble: the
known libraries need a shared library of the system's, which a plain ``pip install`` does not bring.

The kernel's own defences against speculation come with a filter as its administrator has set them; we don't ask to be
spared (``SECCOMP_FILTER_FLAG_SPEC_ALLOW``): a stranger's code is what they are for. Since Linux 5.16 they cost nothing
by default.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from minilambda.worker import syscalls
from minilambda.worker.syscalls import Equal, HasBits, NoBits, OwnProcess, Test

_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT: Final = 0x40000000  # calls of another numbering, on x86_64

_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1  # all threads of the process get the filter, or none

_LOAD: Final = 0x20  # A = the word at k
_JUMP_EQUAL: Final = 0x15  # skip jt or jf, as A == k
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06

_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000  # the process, with SIGSYS
_ERRNO: Final = 0x00050000

_NUMBER_AT: Final = 0  # offsets in struct seccomp_data, bytes
_ARCH_AT: Final = 4
_ARGUMENTS_AT: Final = 16

Instruction = tuple[int, int, int, int | None]
"""Code, how many to skip where the test holds and where not, operand; None stands for the process's own number."""


_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def assemble(
    allowed: Mapping[str, tuple[Test, ...]], machine: str, deadly: Sequence[str] = syscalls.DEADLY
) -> list[Instruction]:
    """The filter: ``allowed`` calls pass if their arguments pass all tests, ``deadly`` ones end the process.

    Any other is refused: as unknown where the C library tries a new call before an old one, else as not permitted.
    Raises OSError for a machine that is not known.
    """
    if machine not in _AUDIT_ARCH:
        raise OSError(errno.ENOTSUP, f"no call numbers are known for {machine}")
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        code += [(_JUMP_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, _KILL)]
    # Those with tests first: the kernel remembers of the others that they pass, and does not run the filter.
    for name in sorted(allowed, key=lambda name: not allowed[name]):
        number = syscalls.number(name, machine)
        if number is not None:
            block = _block(allowed[name])
            code += [(_JUMP_EQUAL, 0, len(block), number), *block]
    for name in deadly:
        number = syscalls.number(name, machine)
        if number is not None:
            code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _KILL)]
    code += [
        (_JUMP_AT_LEAST, 0, 1, syscalls.FIRST_NEW),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    return code


def _block(tests: tuple[Test, ...]) -> list[Instruction]:
    """What decides on one call, and never goes on to the next."""
    code: list[Instruction] = [(_RETURN, 0, 0, _ALLOW)]
    for test in reversed(tests):
        code = [*_check(test), *code]
    return code


def _check(test: Test) -> list[Instruction]:
    """Go on after this if the argument passes; else refuse."""
    low = _ARGUMENTS_AT + 8 * test.argument
    refuse: Instruction = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    if isinstance(test, Equal):  # all 64 bits
        value = test.value
        return [
            (_LOAD, 0, 0, low),
            (_JUMP_EQUAL, 0, 2, value & 0xFFFFFFFF),
            (_LOAD, 0, 0, low + 4),
            (_JUMP_EQUAL, 1, 0, value >> 32),
            refuse,
        ]
    if isinstance(test, HasBits):
        return [(_LOAD, 0, 0, low), (_JUMP_ANY_BIT, 1, 0, test.bits), refuse]
    if isinstance(test, NoBits):
        return [(_LOAD, 0, 0, low), (_JUMP_ANY_BIT, 0, 1, test.bits), refuse]
    values: tuple[int | None, ...] = (None, *test.others) if isinstance(test, OwnProcess) else test.values
    jumps: list[Instruction] = [(_JUMP_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [(_LOAD, 0, 0, low), *jumps, refuse]


class Filter:
    """A filter for this machine. Raises OSError where its calls are not known."""

    def __init__(self, allowed: Mapping[str, tuple[Test, ...]]) -> None:
        code = assemble(allowed, platform.machine())
        self._program = bytearray(b"".join(struct.pack("=HBBI", *code[:3], code[3] or 0) for code in code))
        # Where the process's own number belongs, bytes from the start.
        self._own = [8 * index + 4 for index, (_, _, _, operand) in enumerate(code) if operand is None]
        self._call = _SECCOMP[platform.machine()]

    def install(self) -> None:
        """Put it in place, for good, in all threads. ``no_new_privs`` must be set. Raises OSError."""
        for offset in self._own:
            struct.pack_into("=I", self._program, offset, os.getpid())
        held = bytes(self._program)
        result = _libc.syscall(
            ctypes.c_long(self._call),
            ctypes.c_uint(_SET_MODE_FILTER),
            ctypes.c_uint(_FLAG_TSYNC),
            ctypes.byref(_Program(len(held) // 8, held)),
        )
        if result:
            number = ctypes.get_errno() if result < 0 else errno.EAGAIN
            raise OSError(number, os.strerror(number))
