"""What native code in a runner's place tries. Each attempt raises OSError where the kernel refuses it.

An attempt gets ``where``: the paths and process ids that it is after.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import resource
import signal
import socket
import stat
import struct
from collections.abc import Callable
from typing import Any

Where = dict[str, Any]

_libc = ctypes.CDLL(None, use_errno=True)
_LATE = {"pidfd_send_signal": 424, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438, "mount_setattr": 442}
_NUMBERS = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "mount": 165, "umount2": 166, "setns": 308,
        "unshare": 272, "chroot": 161, "pivot_root": 155, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
        "keyctl": 250, "add_key": 248, "request_key": 249, "init_module": 175, "kexec_load": 246, "execve": 59,
        "execveat": 322, "clone": 56, "clone3": 435, "shmget": 29, "mq_open": 240, "rt_sigqueueinfo": 129,
        "tgkill": 234, "seccomp": 317, "prctl": 157, "sendmsg": 46, "setpriority": 141, "vfork": 58,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "mount": 40, "umount2": 39, "setns": 268,
        "unshare": 97, "chroot": 51, "pivot_root": 41, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282,
        "keyctl": 219, "add_key": 217, "request_key": 218, "init_module": 105, "kexec_load": 104, "execve": 221,
        "execveat": 281, "clone": 220, "clone3": 435, "shmget": 194, "mq_open": 180, "rt_sigqueueinfo": 138,
        "tgkill": 131, "seccomp": 277, "prctl": 167, "sendmsg": 211, "setpriority": 140, "vfork": 220,
    },
}  # fmt: skip


def call(name: str, *arguments: int | bytes | None) -> int:
    number = (_NUMBERS.get(platform.machine(), {}) | _LATE)[name]
    return raw(number, *arguments)


def raw(number: int, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else ctypes.c_char_p(word) for word in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def _write(path: str, flags: int = 0) -> int:
    fd = os.open(path, os.O_WRONLY | flags, 0o600)
    try:
        return os.write(fd, b"native code")
    finally:
        os.close(fd)


def _connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as sock:
        sock.connect(address)


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _environment() -> None:
    if not (os.environ or _libc.getenv(b"PATH") or _libc.getenv(b"PYTHONPATH")):
        raise PermissionError(errno.EACCES, "there is none")


def _memory(pid: int) -> None:
    """Read another process's memory through the call for that."""
    room = ctypes.create_string_buffer(8)
    here = struct.pack("=QQ", ctypes.addressof(room), 8)
    call("process_vm_readv", pid, here, 1, here, 1, 0)


Attempt = Callable[[Where], Any]

FILES: dict[str, Attempt] = {
    "read a file of the system": lambda w: _read("/etc/passwd"),
    "list a directory": lambda w: os.listdir(w["directory"]),
    "read another tenant's artifact": lambda w: _read(w["artifact"]),
    "write into the artifact cache": lambda w: _write(w["artifact"]),
    "create a file in the artifact cache": lambda w: _write(w["directory"] + "/new", os.O_CREAT),
    "shorten an artifact": lambda w: os.truncate(w["artifact"], 0),
    "delete an artifact": lambda w: os.unlink(w["victim"]),
    "rename an artifact": lambda w: os.rename(w["artifact"], w["artifact"] + "2"),
    "make an artifact executable": lambda w: os.chmod(w["artifact"], 0o777),
    "make a directory": lambda w: os.mkdir(w["directory"] + "/sub"),
    "make a link": lambda w: os.symlink("/", w["directory"] + "/link"),
    "make a hard link": lambda w: os.link(w["artifact"], w["directory"] + "/hard"),
    "read where a descriptor points": lambda w: os.readlink("/proc/self/fd/0"),
    "open a device": lambda w: _read("/dev/zero"),
    "read the list of mounts": lambda w: _read("/proc/self/mountinfo"),
    "read the environment": lambda w: _environment(),
}

OTHERS: dict[str, Attempt] = {
    "read the agent's memory": lambda w: _read(f"/proc/{w['agent']}/mem"),
    "read the agent's environment": lambda w: _read(f"/proc/{w['agent']}/environ"),
    "write the agent's memory": lambda w: _write(f"/proc/{w['agent']}/mem"),
    "list the agent's descriptors": lambda w: os.listdir(f"/proc/{w['agent']}/fd"),
    "read the template's memory": lambda w: _read(f"/proc/{w['template']}/mem"),
    "read another job's memory": lambda w: _read(f"/proc/{w['sibling']}/mem"),
    "read another job's output": lambda w: _read(f"/proc/{w['sibling']}/fd/1"),
    "write another job's output": lambda w: _write(f"/proc/{w['sibling']}/fd/1"),
    "open a descriptor of the agent's": lambda w: call("pidfd_open", w["agent"], 0),
    # Signal 0 is checked as any other is, and hurts nobody where a wall is missing.
    "signal the agent": lambda w: os.kill(w["agent"], 0),
    "signal a thread of the agent": lambda w: call("tgkill", w["agent"], w["agent"], 0),
    "signal the template": lambda w: os.kill(w["template"], 0),
    "signal another job": lambda w: os.kill(w["sibling"], 0),
    "signal everybody": lambda w: os.kill(-1, 0),
    "signal a process group": lambda w: os.kill(0, 0),
    "queue a signal to the agent": lambda w: call("rt_sigqueueinfo", w["agent"], 0, bytes(128)),
    "have the kernel signal the agent": lambda w: fcntl.fcntl(1, fcntl.F_SETOWN, w["agent"]),
    "see the limits of the agent": lambda w: resource.prlimit(w["agent"], resource.RLIMIT_CORE),
    "slow the agent down": lambda w: call("setpriority", 0, w["agent"], 19),
}

NETWORK: dict[str, Attempt] = {
    "connect by TCP": lambda w: _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", w["port"])),
    "send by UDP": lambda w: _connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", w["port"])),
    "connect by IPv6": lambda w: _connect(socket.AF_INET6, socket.SOCK_DGRAM, ("::1", w["port"])),
    "connect to a socket of the file system": lambda w: _connect(socket.AF_UNIX, socket.SOCK_STREAM, w["socket"]),
    "connect to an abstract socket": lambda w: _connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + w["abstract"]),
    "talk to the kernel by netlink": lambda w: _connect(socket.AF_NETLINK, socket.SOCK_RAW, (0, 0)),
    "make a pair of sockets": lambda w: [sock.close() for sock in socket.socketpair()],
    "pass on a descriptor": lambda w: call("sendmsg", 0, bytes(56), 0),
}

PROCESSES: dict[str, Attempt] = {
    "fork": lambda w: _fork(),
    "clone without a thread": lambda w: call("clone", signal.SIGCHLD, 0, 0, 0, 0),
    "clone into a namespace": lambda w: call("clone", 0x10000000 | 0x00010F00, 0, 0, 0, 0),
    "clone the new way": lambda w: call("clone3", bytes(88), 88),
    "share memory of System V": lambda w: call("shmget", 77, 4096, 0o1666),
    "open a message queue": lambda w: call("mq_open", b"queue", os.O_CREAT | os.O_RDWR, 0o600, 0),
    "make a ring of the kernel's": lambda w: call("io_uring_setup", 4, bytes(120)),
    "become root": lambda w: os.setuid(0),
    "become traceable": lambda w: call("prctl", 4, 1, 0, 0, 0),
    "name a tracer": lambda w: call("prctl", 0x59616D61, w["sibling"], 0, 0, 0),
    "outlive the agent": lambda w: call("prctl", 1, 0, 0, 0, 0),
    "have a filter of its own": lambda w: call("seccomp", 1, 0, bytes(16)),
    "have more descriptors": lambda w: resource.setrlimit(resource.RLIMIT_NOFILE, (9999, 9999)),
    "change a mount": lambda w: call("mount_setattr", -1, b"/", 0, bytes(32), 32),
}

DEADLY: dict[str, Attempt] = {
    "execute a program": lambda w: os.execv("/bin/true", ["true"]),
    "execute a descriptor": lambda w: call("execveat", 1, b"", 0, 0, 0x1000),
    "trace the agent": lambda w: call("ptrace", 16, w["agent"], 0, 0),
    "trace another job": lambda w: call("ptrace", 0x4206, w["sibling"], 0, 0),
    "read another job's memory by a call": lambda w: _memory(w["sibling"]),
    "write the agent's memory by a call": lambda w: call("process_vm_writev", w["agent"], 0, 0, 0, 0, 0),
    "mount": lambda w: call("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
    "unmount": lambda w: call("umount2", b"/proc", 2),
    "enter a namespace": lambda w: call("setns", 1, 0),
    "make a namespace": lambda w: call("unshare", 0x10000000),
    "change the root": lambda w: call("chroot", b"/tmp"),
    "load a program into the kernel": lambda w: call("bpf", 5, bytes(120), 120),
    "load a module into the kernel": lambda w: call("init_module", b"", 0, b""),
    "watch the processor": lambda w: call("perf_event_open", bytes(120), 0, -1, -1, 0),
    "handle page faults": lambda w: call("userfaultfd", 0),
    "ask for a key": lambda w: call("keyctl", 0, -3, 1),
    "add a key": lambda w: call("add_key", b"user", b"name", b"secret", 6, -3),
    "call by the other numbers of x86": lambda w: raw(0x40000000 | 39),
}
"""What ends the process at once."""


def _see(path: str, names: set[str]) -> None:
    """List a directory that may have these names and no others."""
    if set(os.listdir(path)) <= names:
        raise PermissionError(errno.EACCES, "nothing but its own is there")


def _map_code(path: str) -> None:
    """Have a file's bytes as code."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o700)
    try:
        os.write(fd, bytes(4096))
        mmap.mmap(fd, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    finally:
        os.close(fd)


def _leave(mount: int) -> None:
    """Go up from a directory that is open."""
    fd = os.open("../../..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
    try:
        _see(f"/proc/self/fd/{fd}" if os.path.exists("/proc/self/fd") else str(fd), {"own", "tmp", "made"})
    finally:
        os.close(fd)


def _every(what: Callable[[int], Any]) -> None:
    """Try it with every directory that is open; the last refusal stands for all."""
    refused: OSError | None = None
    for fd in range(3, 64):
        try:
            directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        except OSError:
            continue
        try:
            if directory:
                what(fd)
                return
        except OSError as error:
            refused = error
    raise refused or OSError(errno.ENOENT, "no directory is open")


def _by_handle(mount: int) -> None:
    """Open the inode 2, a file system's root as a rule, by its number."""
    handle = struct.pack("=IiII", 8, 1, 2, 0)
    os.close(raw({"x86_64": 304, "aarch64": 265}[platform.machine()], mount, handle, 0))


WITH_FILES: dict[str, Attempt] = {
    "see the machine's root": lambda w: _see("/", {"own", "tmp"}),
    "see above the root": lambda w: _see("/../../..", {"own", "tmp"}),
    "see above the working directory": lambda w: _see("../../..", set()),
    "see above a directory that is open": lambda w: _every(_leave),
    "look at a file of the system": lambda w: os.stat("/etc/passwd"),
    "look at a process": lambda w: os.stat(f"/proc/{w['agent']}"),
    "look at the baits": lambda w: os.stat(w["artifact"]),
    "change a file of its own": lambda w: _write("/own"),
    "shorten a file of its own": lambda w: os.truncate("/own", 0),
    "delete a file of its own": lambda w: os.unlink("/own"),
    "rename a file of its own": lambda w: os.rename("/own", "/own2"),
    "make a file beside its own": lambda w: _write("/new", os.O_CREAT),
    "change the times of a file of its own": lambda w: os.utime("/own", (1, 1)),
    "change the mode of a file of its own": lambda w: os.chmod("/own", 0o777),
    "give a file of its own away": lambda w: os.chown("/own", 0, 0),
    "mark a file of its own": lambda w: os.setxattr("/own", "user.mark", b"x"),
    "have a second name for a file of its own": lambda w: _every(lambda fd: os.link("/own", "own2", dst_dir_fd=fd)),
    "make a device": lambda w: _every(lambda fd: os.mknod("zero", 0o600 | stat.S_IFCHR, os.makedev(1, 5), dir_fd=fd)),
    "make a pipe": lambda w: _every(lambda fd: os.mkfifo("pipe", 0o600, dir_fd=fd)),
    "make a file that runs as its owner": lambda w: _every(lambda fd: os.chmod("made", 0o4755, dir_fd=fd)),
    "have a file's bytes as code": lambda w: _every(lambda fd: _map_code(f"{fd}/made")),
    "open an inode by its number": lambda w: _every(_by_handle),
    "watch files": lambda w: raw({"x86_64": 294, "aarch64": 26}[platform.machine()], 0),
    "lease a file": lambda w: fcntl.fcntl(os.open("/own", os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK),
}
"""What it tries besides where its job has files: ``/own`` is one, and ``/tmp`` is empty."""

WITH_FILES_DEADLY: dict[str, Attempt] = {
    "mount its scratch anew": lambda w: call("mount", b"none", b"/tmp", b"", 0x20, 0),
    "unmount its root": lambda w: call("umount2", b"/", 2),
    "change the root back": lambda w: call("chroot", b"."),
    "execute what it has written": lambda w: os.execv("/tmp/made", ["made"]),
}

ALL: dict[str, Attempt] = FILES | OTHERS | NETWORK | PROCESSES | DEADLY

HARMLESS = ("read a file of the system", "list a directory", "read another tenant's artifact", "open a device",
    "write into the artifact cache", "make a directory", "read the list of mounts", "read the agent's environment",
    "signal the agent", "read another job's output", "connect by TCP", "connect to a socket of the file system",
    "connect to an abstract socket", "make a pair of sockets", "fork", "become traceable", "ask for a key",
    "have the kernel signal the agent", "open a descriptor of the agent's", "make a ring of the kernel's",
)  # fmt: skip
"""Those that succeed for an unwalled process, and do no harm then."""


def perform(name: str, where: Where) -> str:
    """Try it; answers ``refused: `` and the error's name, or ``reached``."""
    try:
        (ALL | WITH_FILES | WITH_FILES_DEADLY)[name](where)
    except OSError as error:
        return f"refused: {errno.errorcode.get(error.errno or 0, error.errno)}"
    except ValueError:  # how ``resource`` tells of EPERM
        return "refused: EPERM"
    return "reached"
