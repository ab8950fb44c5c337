"""The guests that the benchmarks run, and copies of them that nobody has seen."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_cluster import ClusterFailed

from minilambda import RunResult

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
FETCHED = ROOT / ".guests"


@dataclass(frozen=True)
class Guest:
    """One module and the one thing that it is asked to do."""

    name: str  # on the command line and in the JSON
    title: str  # for people
    path: Path
    stdout: str = ""  # what it must write
    args: tuple[str, ...] = ()  # of a command
    invoke: str | None = None  # exported function of a component; None runs the command
    values: tuple[Any, ...] = ()  # of the function
    texts: tuple[str, ...] = ()  # the same values as minilambda takes them
    value: Any = None  # what the function must return
    component: bool = False
    wasi: bool = True  # it imports WASI
    large: bool = False  # compiling takes seconds

    @property
    def present(self) -> bool:
        return self.path.exists()

    def size(self) -> int:
        """Bytes of wasm."""
        return self.path.stat().st_size


GUESTS = (
    Guest("hello", "hello, a WASI command", EXAMPLES / "hello.wasm", stdout="Hello, WebAssembly\n"),
    Guest("hello-c", "hello in C, printf", FETCHED / "hello-c.wasm", stdout="Hello, WebAssembly\n"),
    Guest(
        "component",
        "a component, add(2, 3)",
        EXAMPLES / "adder.wasm",
        invoke="add",
        values=(2, 3),
        texts=("2", "3"),
        value=5,
        component=True,
        wasi=False,
    ),
    Guest(
        "numbers",
        "a component in C, total(10)",
        FETCHED / "numbers.wasm",
        invoke="total",
        values=(10,),
        texts=("10",),
        value=36,
        component=True,
        wasi=False,
    ),
    Guest(
        "py-component",
        "a component in Python, join(…)",
        FETCHED / "component.wasm",
        invoke="join",
        values=(["a", "b"], "-"),
        texts=('["a","b"]', '"-"'),
        value="a-b",
        component=True,
        large=True,
    ),
    Guest(
        "cpython",
        "CPython, -c 'print(1+1)'",
        FETCHED / "python.wasm",
        args=("-c", "print(1+1)"),
        stdout="2\n",
        large=True,
    ),
)


NOT_QUICK = {"component", "py-component"}
"""Left out of a quick run that does not name them."""


def chosen(names: str | None, quick: bool) -> list[Guest]:
    """The guests of a list such as ``hello,cpython``, or the usual ones for None. Raises ``ValueError``."""
    by_name = {guest.name: guest for guest in GUESTS}
    if names is None:
        return [guest for guest in GUESTS if not (quick and guest.name in NOT_QUICK)]
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        raise ValueError(f"--modules: there is no {', '.join(unknown)}; there are {', '.join(by_name)}.")
    return [by_name[name] for name in wanted]


def options(guest: Guest) -> dict[str, Any]:
    """What ``Client.run`` is told besides the path."""
    if guest.invoke is None:
        return {"args": guest.args}
    return {"args": guest.texts, "invoke": guest.invoke}


def check(guest: Guest, result: RunResult, tier: str) -> None:
    """Raise ``ClusterFailed`` unless a run gave what it should, from the tier that it should."""
    if result.tier != tier:
        raise ClusterFailed(f"{guest.name} was to run from {tier!r} and ran from {result.tier!r}.")
    if (result.stdout.decode(), result.value) != (guest.stdout, guest.value):
        raise ClusterFailed(f"{guest.name} gave {result.stdout!r} and {result.value!r}.")


def write_unseen_copy(guest: Guest, target: Path) -> None:
    """Copy the module with a custom section of random bytes at its end: the same code under another hash."""
    payload = b"\x05nonce" + os.urandom(16)
    scratch = target.with_suffix(".new")
    scratch.write_bytes(guest.path.read_bytes() + bytes([0, len(payload)]) + payload)
    scratch.replace(target)
