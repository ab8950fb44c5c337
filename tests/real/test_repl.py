"""CPython's REPL in wasm, on a terminal, typed at line by line."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from pathlib import Path
from select import select

from tests.cluster import Cluster


def expect(terminal: int, end: bytes, seconds: float = 40.0) -> bytes:
    """What the terminal shows, until it shows ``end``."""
    seen, deadline = b"", time.monotonic() + seconds
    while end not in seen:
        assert select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0], seen
        seen += os.read(terminal, 4096)
    return seen


def test_a_python_repl_on_a_terminal(cluster: Cluster, python_wasm: Path) -> None:
    # given
    ours, theirs = pty.openpty()
    command = cluster.command(
        "client", "--server", cluster.address, "--interactive", str(python_wasm), "--", "-i", "-q"
    )
    env = {**cluster.env, "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        try:
            expect(ours, b">>> ")
            # when
            os.write(ours, b"6 * 7\n")
            assert b"42" in expect(ours, b">>> ")
            os.write(ours, b"for word in ('one', 'two'):\n")
            expect(ours, b"... ")
            os.write(ours, b"    print(word.upper())\n\n")
            assert b"ONE\r\nTWO\r\n" in expect(ours, b">>> ")
            os.write(ours, b"1 / 0\n")
            assert b"ZeroDivisionError" in expect(ours, b">>> ")
            # then
            os.write(ours, b"import sys; sys.exit(5)\n")
            assert process.wait(30) == 5
        finally:
            process.kill()
            os.close(ours)


def test_a_repl_ends_with_its_input(cluster: Cluster, python_wasm: Path) -> None:
    script = b"name = 'pipe'\nprint('through a', name)\n"
    done = cluster.client("--interactive", python_wasm, "--", "-i", "-q", stdin=script)
    assert (done.code, done.stdout) == (0, b"through a pipe\n")
    assert done.stderr.startswith(b">>> ")
