"""Guests that do things to files, written step by step: each step is one call of WASI, and its error number is told.

A guest writes one byte for each step to its standard output, the error number; what it reads goes to its standard
error. The folder ``/`` is descriptor 3, ``/tmp`` is 4.
"""

from __future__ import annotations

from dataclasses import dataclass

ROOT, TMP = 3, 4
SUCCESS, ACCES, BADF, EXIST, FBIG, INVAL, ISDIR, LOOP = 0, 2, 8, 20, 22, 28, 31, 32
NOENT, NOSPC, NOTSUP, NOTDIR, NOTEMPTY, PERM, ROFS, XDEV, NOTCAPABLE = 44, 51, 58, 54, 55, 63, 69, 75, 76
"""WASI's error numbers."""

_WASI = "wasi_snapshot_preview1"
_SIGNATURES = {
    "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32",
    "path_create_directory": "i32 i32 i32",
    "path_remove_directory": "i32 i32 i32",
    "path_unlink_file": "i32 i32 i32",
    "path_symlink": "i32 i32 i32 i32 i32",
    "path_link": "i32 i32 i32 i32 i32 i32 i32",
    "path_rename": "i32 i32 i32 i32 i32 i32",
    "path_readlink": "i32 i32 i32 i32 i32 i32",
    "path_filestat_get": "i32 i32 i32 i32 i32",
    "path_filestat_set_times": "i32 i32 i32 i32 i64 i64 i32",
    "fd_filestat_set_size": "i32 i64",
    "fd_filestat_set_times": "i32 i64 i64 i32",
    "fd_readdir": "i32 i32 i32 i64 i32",
    "fd_write": "i32 i32 i32 i32",
    "fd_read": "i32 i32 i32 i32",
    "fd_close": "i32",
    "proc_exit": "",
}
_IMPORTS = "\n".join(
    f'(import "{_WASI}" "{name}" (func ${name} '
    + (f"(param {params}) (result i32)))" if name != "proc_exit" else "(param i32)))")
    for name, params in _SIGNATURES.items()
)

# Where things are in the guest's memory.
_IOV, _COUNT, _FDS, _ERRORS, _BUFFER, _TEXTS = 0, 16, 64, 1024, 8192, 131072

CREATE, DIRECTORY, EXCLUSIVE, TRUNCATE = 1, 2, 4, 8
_READ = 0x2 | 0x4 | 0x20 | 0x4000 | 0x2000 | 0x8000 | 0x40000 | 0x200000  # and to look at things, and folders
_WRITE = 0x40 | 0x100 | 0x400000 | 0x800000


@dataclass(frozen=True)
class Step:
    """One call: its name and its arguments; a text is passed as its place and its length."""

    call: str
    args: tuple[int | str | Opened, ...]
    keep: int | None = None  # the number under which a descriptor that it answers is kept
    tell: str = ""  # what of the buffer is written to the standard error afterwards: "count" bytes, or none


@dataclass(frozen=True)
class Opened:
    """The descriptor that an earlier step has opened, by the number that it was kept under."""

    number: int


def opened(number: int, at: int | Opened, path: str, flags: int = 0, write: bool = False, follow: bool = False) -> Step:
    """Open a file or folder, and keep its descriptor."""
    rights = _READ | (_WRITE if write else 0)
    if flags & DIRECTORY:
        rights |= 0x3FE00 | 0x2000000 | 0x1000000 | 0x4000000
    return Step("path_open", (at, int(follow), path, flags, f"i64:{rights}", f"i64:{rights | _WRITE}", 0), number)


def write(fd: Opened | int, data: str) -> Step:
    return Step("fd_write", (fd, data))


def read(fd: Opened | int) -> Step:
    """Read up to 64 KiB and tell what they are."""
    return Step("fd_read", (fd,), tell="count")


def listing(fd: Opened | int) -> Step:
    """Read a folder, and tell its entries as WASI has them."""
    return Step("fd_readdir", (fd, _BUFFER, 65536, "i64:0", _COUNT), tell="count")


def close(fd: Opened | int) -> Step:
    return Step("fd_close", (fd,))


def mkdir(at: int | Opened, path: str) -> Step:
    return Step("path_create_directory", (at, path))


def rmdir(at: int | Opened, path: str) -> Step:
    return Step("path_remove_directory", (at, path))


def unlink(at: int | Opened, path: str) -> Step:
    return Step("path_unlink_file", (at, path))


def symlink(target: str, at: int | Opened, path: str) -> Step:
    return Step("path_symlink", (target, at, path))


def link(at: int | Opened, path: str, to: int | Opened, new: str) -> Step:
    return Step("path_link", (at, 0, path, to, new))


def rename(at: int | Opened, path: str, to: int | Opened, new: str) -> Step:
    return Step("path_rename", (at, path, to, new))


def stat(at: int | Opened, path: str, follow: bool = True) -> Step:
    return Step("path_filestat_get", (at, int(follow), path, _BUFFER))


def touch(at: int | Opened, path: str) -> Step:
    """Set both times of a file to 1 ns."""
    return Step("path_filestat_set_times", (at, 1, path, "i64:1", "i64:1", 5))


def set_size(fd: Opened | int, size: int) -> Step:
    return Step("fd_filestat_set_size", (fd, f"i64:{size}"))


def guest(*steps: Step, after: str = "") -> str:
    """A command that takes the steps and tells their error numbers; ``after`` is code that runs then."""
    texts: dict[str, int] = {}

    def place(text: str) -> tuple[int, int]:
        size = len(text.encode())
        if text not in texts:
            texts[text] = _TEXTS + sum(len(known.encode()) for known in texts)
        return texts[text], size

    def argument(value: int | str | Opened) -> str:
        if isinstance(value, Opened):
            return f"(i32.load (i32.const {_FDS + 4 * value.number}))"
        if isinstance(value, int):
            return f"(i32.const {value})"
        if value.startswith("i64:"):
            return f"(i64.const {value[4:]})"
        at, size = place(value)
        return f"(i32.const {at}) (i32.const {size})"

    body: list[str] = []
    for number, step in enumerate(steps):
        args = [argument(value) for value in step.args]
        if step.call == "fd_write":
            at, size = place(str(step.args[1]))
            body.append(f"(i32.store (i32.const {_IOV}) (i32.const {at}))")
            body.append(f"(i32.store (i32.const {_IOV + 4}) (i32.const {size}))")
            args = [args[0], f"(i32.const {_IOV}) (i32.const 1) (i32.const {_COUNT})"]
        elif step.call == "fd_read":
            body.append(f"(i32.store (i32.const {_IOV}) (i32.const {_BUFFER}))")
            body.append(f"(i32.store (i32.const {_IOV + 4}) (i32.const 65536))")
            args = [args[0], f"(i32.const {_IOV}) (i32.const 1) (i32.const {_COUNT})"]
        if step.keep is not None:
            args.append(f"(i32.const {_FDS + 4 * step.keep})")
        body.append(f"(i32.store (i32.const {_COUNT}) (i32.const 0))")
        body.append(f"(i32.store8 (i32.const {_ERRORS + number}) (call ${step.call} {' '.join(args)}))")
        if step.tell:
            body.append(_say(2, _BUFFER, f"(i32.load (i32.const {_COUNT}))"))
    body.append(_say(1, _ERRORS, f"(i32.const {len(steps)})"))
    data = "".join(f"\\{byte:02x}" for byte in "".join(texts).encode())
    return f"""(module {_IMPORTS}
  (memory (export "memory") 6)
  (data (i32.const {_TEXTS}) "{data}")
  (func (export "_start")
    {" ".join(body)} {after}))"""


def _say(stream: int, at: int, size: str) -> str:
    return f"""(i32.store (i32.const {_IOV}) (i32.const {at})) (i32.store (i32.const {_IOV + 4}) {size})
    (drop (call $fd_write (i32.const {stream}) (i32.const {_IOV}) (i32.const 1) (i32.const {_IOV + 8})))"""


FILL = f"""(module {_IMPORTS}
  (memory (export "memory") 6)
  (data (i32.const {_TEXTS}) "full")
  (func (export "_start") (local $error i32)
    (drop (call $path_open (i32.const {TMP}) (i32.const 0) (i32.const {_TEXTS}) (i32.const 4) (i32.const {CREATE})
      (i64.const {_READ | _WRITE}) (i64.const {_READ | _WRITE}) (i32.const 0) (i32.const {_FDS})))
    (i32.store (i32.const {_IOV}) (i32.const {_BUFFER}))
    (i32.store (i32.const {_IOV + 4}) (i32.const 4096))
    (loop $more
      (local.set $error (call $fd_write (i32.load (i32.const {_FDS})) (i32.const {_IOV}) (i32.const 1)
        (i32.const {_COUNT})))
      (br_if $more (i32.eqz (local.get $error))))
    (call $proc_exit (local.get $error))))"""
"""Writes to ``/tmp/full`` until that fails, and exits with the error number."""

MANY = f"""(module {_IMPORTS}
  (memory (export "memory") 6)
  (func (export "_start") (local $error i32) (local $made i32) (local $rest i32) (local $at i32)
    (loop $more
      (local.set $rest (local.get $made))
      (local.set $at (i32.const {_TEXTS + 7}))
      (loop $digit
        (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $rest) (i32.const 10))))
        (local.set $rest (i32.div_u (local.get $rest) (i32.const 10)))
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (br_if $digit (i32.ge_u (local.get $at) (i32.const {_TEXTS}))))
      (local.set $error (call $path_open (i32.const {TMP}) (i32.const 0) (i32.const {_TEXTS}) (i32.const 8)
        (i32.const {CREATE}) (i64.const {_READ | _WRITE}) (i64.const 0) (i32.const 0) (i32.const {_FDS})))
      (if (i32.eqz (local.get $error)) (then
        (drop (call $fd_close (i32.load (i32.const {_FDS}))))
        (local.set $made (i32.add (local.get $made) (i32.const 1)))
        (br_if $more (i32.lt_u (local.get $made) (i32.const 1000000))))))
    (call $proc_exit (local.get $error))))"""
"""Makes files in ``/tmp`` until that fails or there are a million, and exits with the error number."""


def deep(levels: int) -> str:
    """A command that makes so many folders in each other in ``/tmp``, and exits with an error number."""
    return f"""(module {_IMPORTS}
  (memory (export "memory") 6)
  (data (i32.const {_TEXTS}) "d")
  (func (export "_start") (local $error i32) (local $left i32) (local $at i32)
    (local.set $at (i32.const {TMP})) (local.set $left (i32.const {levels}))
    (loop $more
      (local.set $error (call $path_create_directory (local.get $at) (i32.const {_TEXTS}) (i32.const 1)))
      (if (i32.eqz (local.get $error)) (then
        (local.set $error (call $path_open (local.get $at) (i32.const 0) (i32.const {_TEXTS}) (i32.const 1)
          (i32.const {DIRECTORY}) (i64.const {0x3FE00 | 0x4000 | 0x2000 | 0x2000000 | 0x4000000})
          (i64.const {_READ | _WRITE | 0x3FE00 | 0x2000000 | 0x4000000}) (i32.const 0) (i32.const {_FDS})))))
      (if (i32.eqz (local.get $error)) (then
        (if (i32.ne (local.get $at) (i32.const {TMP})) (then (drop (call $fd_close (local.get $at)))))
        (local.set $at (i32.load (i32.const {_FDS})))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br_if $more (local.get $left)))))
    (call $proc_exit (local.get $error))))"""
