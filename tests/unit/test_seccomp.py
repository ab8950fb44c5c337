"""The filter of calls, run by an interpreter of the kernel's little machine: on both machines, with all arguments."""

from __future__ import annotations

import errno
import itertools

import pytest

from minilambda.worker import syscalls
from minilambda.worker.seccomp import Instruction, assemble

PID = 4321
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = "allow", "kill"
REFUSE, UNKNOWN = f"errno {errno.EPERM}", f"errno {errno.ENOSYS}"


def verdict(code: list[Instruction], arch: int, number: int, *arguments: int) -> str:
    words = {0: number, 4: arch}
    for index, value in enumerate([*arguments, *[0] * (6 - len(arguments))]):
        words[16 + 8 * index], words[20 + 8 * index] = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    at, a = 0, 0
    while True:
        operation, yes, no, operand = code[at]
        k = PID if operand is None else operand
        at += 1
        if operation == 0x20:
            a = words[k]
        elif operation == 0x06:
            kind = k & 0xFFFF0000
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(kind, f"errno {k & 0xFFFF}")
        else:
            holds = {0x15: a == k, 0x35: a >= k, 0x45: bool(a & k)}[operation]
            at += yes if holds else no


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("allowed", [syscalls.RUNNER, syscalls.COMPILER], ids=["runner", "compiler"])
def test_every_number_gets_its_verdict(machine: str, allowed: dict[str, tuple[syscalls.Test, ...]]) -> None:
    code = assemble(allowed, machine)
    plain = {syscalls.number(name, machine) for name, tests in allowed.items() if not tests}
    tested = {syscalls.number(name, machine) for name, tests in allowed.items() if tests}
    deadly = {syscalls.number(name, machine) for name in syscalls.DEADLY}
    for number in set(range(600)) - tested:
        expected = ALLOW if number in plain else KILL if number in deadly else UNKNOWN if number >= 424 else REFUSE
        assert verdict(code, ARCH[machine], number) == expected, number


CASES = {
    "sendto": ([(3, 1, 2, 0, 0)], [(3, 1, 2, 0, 1), (3, 1, 2, 0, 1 << 32)]),
    "prlimit64": ([(0, 7), (PID, 7)], [(1, 7), (PID + 1, 7)]),
    "fcntl": ([(1, 1030), (1, 4, 0)], [(1, 8), (1, 10), (1, 1024)]),
    "ioctl": ([(1, 0x5421)], [(1, 0x5412), (1, 0)]),
    "prctl": ([(15,)], [(1,), (4, 1), (38, 1), (0x59616D61, 1)]),
    "clone": ([(0x3D0F00,)], [(17,), (0x10010F00,), (0x40010F00,), (0x4000,)]),
    "tgkill": ([(PID, 9, 6)], [(1, 1, 9), (0, 0, 9), (0xFFFFFFFF, 1, 9)]),
    "kill": ([(PID, 6)], [(0, 9), (1, 9), (0xFFFFFFFF, 9)]),
}


@pytest.mark.parametrize("name", CASES)
def test_calls_are_judged_by_their_arguments(machine: str, name: str) -> None:
    code, number = assemble(syscalls.RUNNER, machine), syscalls.number(name, machine)
    assert number is not None
    good, bad = CASES[name]
    assert {verdict(code, ARCH[machine], number, *each) for each in good} == {ALLOW}
    assert {verdict(code, ARCH[machine], number, *each) for each in bad} == {REFUSE}


def test_calls_of_another_machine_end_the_process(machine: str) -> None:
    code = assemble(syscalls.RUNNER, machine)
    for arch, number in itertools.product([0x40000003, 0, *ARCH.values()], [0, 39, 172]):
        if arch != ARCH[machine]:
            assert verdict(code, arch, number) == KILL
    if machine == "x86_64":
        assert verdict(code, ARCH[machine], 0x40000000) == KILL


def test_a_compiler_may_be_nice_to_others_and_to_nobody_else(machine: str) -> None:
    number = syscalls.number("setpriority", machine)
    assert number is not None
    code = assemble(syscalls.COMPILER, machine)
    assert verdict(code, ARCH[machine], number, 0, 0, 10) == ALLOW
    assert verdict(code, ARCH[machine], number, 0, 1, 10) == verdict(code, ARCH[machine], number, 2, 0, 10) == REFUSE


def test_a_machine_that_is_not_known_has_no_filter() -> None:
    with pytest.raises(OSError, match="riscv64"):
        assemble(syscalls.RUNNER, "riscv64")
