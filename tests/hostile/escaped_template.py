"""A template whose runners and compilers do, in a guest's or compilation's place, what an order asks for by name.

It is the product's own template, in a process of its own and started the same way; all that differs is what happens
where guest code would run, or a module would be compiled: an attempt of ``attempts``. ``open`` as the last argument
leaves the walls away, to show that the attempts succeed without them; ``lame`` reports that one is absent; ``unable``
may not mount.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minilambda.worker import compiler, identity, mounts, template, walls
from minilambda.worker.events import Outcome, RunOrder
from minilambda.worker.guest import GuestHost
from tests.hostile import attempts

LAME = "files absent: the kernel has no Landlock"
"""The report of a wall that ``lame`` leaves away."""

_run = GuestHost.run


def _run_or_attempt(self: GuestHost, order: RunOrder, artifact_path: str | None, pipe: bytes | None = None) -> Outcome:
    if order.args[:1] != ("attempt",):
        return _run(self, order, artifact_path, pipe)
    said = attempts.perform(order.args[1], json.loads(order.args[2]))
    return Outcome(None, "", 0, None, said.encode(), b"", None, "", 0.0, 0.0, 0.0, 0)


_compiling = compiler.compiling


@contextmanager
def _compile_or_attempt(wasm: Any, *options: Any, **more: Any) -> Iterator[tuple[bool, Any]]:
    kind, _, order = wasm[:].partition(b"\0")
    if kind != b"attempt":
        with _compiling(wasm, *options, **more) as made:
            yield made
        return
    name, where = json.loads(order)
    yield False, bytearray(attempts.perform(name, where).encode())


def _refuse(*_about: object) -> int:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def main() -> None:
    GuestHost.run = _run_or_attempt  # type: ignore[method-assign]
    compiler.compiling = _compile_or_attempt
    agent, fd, compilers, delay, readable, required, how = sys.argv[1:]
    if how == "lame":
        walls.Enclosure.raise_walls = lambda self, *about: ["calls raised", LAME]  # type: ignore[method-assign]
    if how == "unable":
        mounts._call = _refuse
    if how == "open":
        identity.leave_namespaces = lambda: []
        walls.Enclosure.raise_walls = lambda self, *about: []  # type: ignore[method-assign]
    template.main(int(agent), int(fd), tuple(compilers.split(",")), float(delay), readable, bool(required))


if __name__ == "__main__":
    main()
