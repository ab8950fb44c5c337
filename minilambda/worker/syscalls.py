"""The calls of the kernel that a walled process may make, and their numbers on the machines that we know. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Equal:
    """The argument has this value, all 64 bits of it."""

    argument: int  # from 0
    value: int


@dataclass(frozen=True, slots=True)
class OneOf:
    """The argument, an int of C, has one of these values."""

    argument: int  # from 0
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OwnProcess:
    """The argument names the process that calls, by its number or by one of the others."""

    argument: int  # from 0
    others: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HasBits:
    """The argument has at least one of these bits."""

    argument: int  # from 0
    bits: int


@dataclass(frozen=True, slots=True)
class NoBits:
    """The argument has none of these bits."""

    argument: int  # from 0
    bits: int


Test = Equal | OneOf | OwnProcess | HasBits | NoBits

FIRST_NEW: Final = 424
"""From this number on, calls are the same on all machines, and so new that every caller copes without them."""

_CLONE_THREAD: Final = 0x00010000
_CLONE_NAMESPACES: Final = 0x7E020080
_FCNTL: Final = (0, 1, 2, 3, 4, 1030, 1033, 1034)  # duplicate; flags of the descriptor, of the file; seals. No owner
_IOCTL: Final = (0x5401, 0x5421, 0x5451)  # whether it is a terminal; non-blocking; close on exec
_PRCTL: Final = (15, 0x53564D41)  # a name for the process or thread; a name for a piece of memory

_MEMORY: Final = "brk mmap munmap mremap mprotect madvise membarrier memfd_create"
_FILES: Final = (  # whether ``openat`` opens anything is Landlock's matter
    "openat close read write pread64 pwrite64 readv writev preadv pwritev lseek ftruncate fsync fdatasync "
    "fstat newfstatat statx dup dup2 dup3 poll ppoll select pselect6 "
    "epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 recvmsg recvfrom"
)
_SELF: Final = (
    "exit exit_group getpid gettid getppid getuid geteuid getgid getegid uname sysinfo getrusage getcpu times "
    "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall"
)
_THREADS: Final = "futex set_robust_list rseq set_tid_address sched_yield sched_getaffinity"
_TIME: Final = "clock_gettime clock_getres gettimeofday time nanosleep clock_nanosleep getrandom"

_TESTED: Final[dict[str, tuple[Test, ...]]] = {
    "sendto": (Equal(4, 0),),  # to the other end of the socket that there is, and to nobody else
    "prlimit64": (OwnProcess(0, (0,)),),
    "fcntl": (OneOf(1, _FCNTL),),
    "ioctl": (OneOf(1, _IOCTL),),
    "prctl": (OneOf(0, _PRCTL),),
    "clone": (HasBits(0, _CLONE_THREAD), NoBits(0, _CLONE_NAMESPACES)),
    "tgkill": (OwnProcess(0),),  # how ``abort`` ends a process
    "kill": (OwnProcess(0),),
}

_PLAIN: Final = f"{_MEMORY} {_FILES} {_SELF} {_THREADS} {_TIME}".split()

RUNNER: Final[dict[str, tuple[Test, ...]]] = _TESTED | dict.fromkeys(_PLAIN, ())
"""What a runner may call, and the tests that the arguments must pass."""

_NOT_TO_COMPILE: Final = frozenset("dup dup2 dup3 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2".split())

_FILE_SYSTEM: Final = (  # on what is open, or below it: what may be touched at all is Landlock's matter, and the root's
    "openat2 getdents64 readlinkat mkdirat unlinkat renameat renameat2 linkat symlinkat utimensat fadvise64 fallocate "
    "faccessat faccessat2 copy_file_range"
)

WITH_FILES: Final[dict[str, tuple[Test, ...]]] = RUNNER | dict.fromkeys(_FILE_SYSTEM.split(), ())
"""What the runner of a job with files may call."""

COMPILER: Final[dict[str, tuple[Test, ...]]] = {
    name: tests for name, tests in RUNNER.items() if name not in _NOT_TO_COMPILE
} | {
    "setpriority": (OneOf(0, (0,)), OwnProcess(1, (0,))),
    "getpriority": (OneOf(0, (0,)), OwnProcess(1, (0,))),
}
"""What a compiler may call."""

DEADLY: Final = tuple(
    (
        "ptrace process_vm_readv process_vm_writev execve execveat mount umount2 pivot_root chroot unshare setns bpf "
        "perf_event_open userfaultfd keyctl add_key request_key init_module finit_module delete_module kexec_load "
        "reboot"
    ).split()
)
"""What nothing of ours ever calls: whoever does has broken out, and is ended at once."""

_NUMBERS: Final = """
read 0 63|write 1 64|close 3 57|fstat 5 80|poll 7 -|lseek 8 62|mmap 9 222|mprotect 10 226|munmap 11 215|brk 12 214
rt_sigaction 13 134|rt_sigprocmask 14 135|rt_sigreturn 15 139|ioctl 16 29|pread64 17 67|pwrite64 18 68|readv 19 65
writev 20 66|select 23 -|sched_yield 24 124|mremap 25 216|madvise 28 233|dup 32 23|dup2 33 -|nanosleep 35 101
getpid 39 172|sendto 44 206|recvfrom 45 207|recvmsg 47 212|clone 56 220|execve 59 221|exit 60 93|kill 62 129
uname 63 160|fcntl 72 25|fsync 74 82|fdatasync 75 83|ftruncate 77 46|gettimeofday 96 169|getrusage 98 165|sysinfo 99 179
times 100 153|ptrace 101 117|getuid 102 174|getgid 104 176|geteuid 107 175|getegid 108 177|getppid 110 173
sigaltstack 131 132|getpriority 140 141|setpriority 141 140|pivot_root 155 41|prctl 157 167|chroot 161 51
mount 165 40|umount2 166 39|reboot 169 142|init_module 175 105|delete_module 176 106|gettid 186 178|time 201 -
futex 202 98|sched_getaffinity 204 123|set_tid_address 218 96|restart_syscall 219 128|clock_gettime 228 113
clock_getres 229 114|clock_nanosleep 230 115|exit_group 231 94|epoll_wait 232 -|epoll_ctl 233 21|tgkill 234 131
kexec_load 246 104|add_key 248 217|request_key 249 218|keyctl 250 219|openat 257 56|newfstatat 262 79|pselect6 270 72
ppoll 271 73|unshare 272 97|set_robust_list 273 99|epoll_pwait 281 22|eventfd2 290 19|epoll_create1 291 20|dup3 292 24
preadv 295 69|pwritev 296 70|perf_event_open 298 241|prlimit64 302 261|setns 308 268|getcpu 309 168
process_vm_readv 310 270|process_vm_writev 311 271|finit_module 313 273|getrandom 318 278|memfd_create 319 279
getdents64 217 61|readlinkat 267 78|mkdirat 258 34|unlinkat 263 35|renameat 264 38|renameat2 316 276|linkat 265 37
symlinkat 266 36|utimensat 280 88|fadvise64 221 223|fallocate 285 47|faccessat 269 48|copy_file_range 326 285
openat2 437 437|faccessat2 439 439|bpf 321 280|execveat 322 281|userfaultfd 323 282|membarrier 324 283|statx 332 291
rseq 334 293
"""  # name, number on x86_64, number on aarch64

_MACHINES: Final = ("x86_64", "aarch64")
_TABLE: Final = {
    fields[0]: tuple(None if text == "-" else int(text) for text in fields[1:])
    for fields in (entry.split() for line in _NUMBERS.split("\n") for entry in line.split("|"))
    if fields
}


def number(name: str, machine: str) -> int | None:
    """The number of a call; None where the machine does not have it. Raises KeyError for a name that is not known."""
    return _TABLE[name][_MACHINES.index(machine)]
