"""Somebody who follows a page: a shell in a folder of its own, servers that are left running, and files that are made.

Of what a server shows, each line must come, in any order: workers register as they are ready, and may have warnings.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster import BIN, ROOT, Service, wait_for
from tests.pages import Block, Command, blocks, commands, same

BROKER, GATEWAY = "127.0.0.1:8080", "127.0.0.1:8000"  # as the pages have them
_SERVER = re.compile(r"(?:bin/)?(?:minilambda (?:up|web|broker|worker)|minilambda-(?:broker|worker))(?: |$)")
_UP = re.compile(r"listening on|registered with")
_DONE = "--- that was it:"  # printed after each command, with its exit code
_OWN = ("minilambda", "minilambda-broker", "minilambda-client", "minilambda-worker")


class Reader:
    """A reader of one page. ``broker`` is where a cluster runs already; without, the page has to start one."""

    def __init__(self, folder: Path, broker: str = "", seconds: float = 50.0) -> None:
        self.folder = folder
        self.seconds = seconds  # that one command may take
        self.places = {BROKER: broker or _free_address(), GATEWAY: _free_address()}
        self.services: list[Service] = []
        self.env = self._environment()
        self.shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=self.env,
        )

    def follow(self, page: Path, elsewhere: tuple[str, ...] = ()) -> int:
        """Do all that a page says but commands that begin with ``elsewhere``; returns how much that was.

        Raises ``AssertionError`` where something else comes out.
        """
        count = 0
        found = blocks(page)
        for block, after in zip(found, [*found[1:], None], strict=True):
            if block.title:
                target = self.folder / block.title
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(self._here(block.text), encoding="utf-8")
            elif block.language == "python":
                shown = after.text if after is not None and after.language == "text" else None
                self._check(block, Command("", shown), *self._python(block))
                count += 1
            for command in commands(block):
                if not command.text.startswith(elsewhere):
                    self._do(block, command)
                    count += 1
        return count

    def close(self) -> None:
        """Stop all that was started."""
        self.shell.kill()
        self.shell.communicate()
        try:
            for service in reversed(self.services):
                service.stop()
        finally:
            for service in self.services:
                service.kill()

    # --- one thing ------------------------------------------------------------------------------------

    def _do(self, block: Block, command: Command) -> None:
        text = self._here(command.text)
        if _SERVER.match(text) and "--help" not in text:
            self._serve(block, command, text)
        else:
            self._check(block, command, *self._type(text))

    def _check(self, block: Block, command: Command, code: int, came: str) -> None:
        what = f"{block}: {command.text.strip() or 'the program'}"
        assert code == 0 or command.shown is not None, f"{what}\nexit code {code}\n{came}"
        assert command.shown is None or same(command.shown, came), f"{what}\nshows\n{came}\nand not\n{command.shown}"

    def _type(self, text: str) -> tuple[int, str]:
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        script = f'{{\n{text}\n}} </dev/null\nprintf "\\n{_DONE} %d\\n" $?\n'
        self.shell.stdin.write(script.encode())
        self.shell.stdin.flush()
        came, end = b"", time.monotonic() + self.seconds
        done = re.compile(rb"\n" + _DONE.encode() + rb" (\d+)\n\Z")
        while (found := done.search(came)) is None:
            ready, _, _ = select.select([self.shell.stdout], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self.shell.stdout.fileno(), 1 << 16) if ready else b""
            assert piece, f"{text}\ndoes not end, or ended the shell: {came!r}"
            came += piece
        return int(found[1]), self._there(came[: found.start()].decode())

    def _python(self, block: Block) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", self._here(block.text)],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=self.seconds,
            check=False,
        )
        return done.returncode, self._there(done.stdout.decode())

    def _serve(self, block: Block, command: Command, text: str) -> None:
        bind = GATEWAY if " web" in text else BROKER
        env = {**self.env, "MINILAMBDA_BIND": self.places[bind]}
        service = Service(f"server-{len(self.services)}", ["bash", "-c", f"exec {text}"], env, self.folder)
        self.services.append(service)

        def up() -> bool:
            came = self._there(service.printed())
            assert service.process.poll() is None, f"{block}: {text}\nended: {came}"
            wanted = (command.shown or "").splitlines()
            if not wanted:
                return bool(_UP.search(came))
            return all(any(same(line, said) for said in came.splitlines()) for line in wanted if line != "…")

        wait_for(up, f"{block}: {text} shows\n{command.shown}\nnot only\n{service.printed()}")

    # --- here and in the page -------------------------------------------------------------------------

    def _here(self, text: str) -> str:
        for place, ours in self.places.items():
            text = text.replace(place, ours)
        return text

    def _there(self, text: str) -> str:
        for place, ours in self.places.items():
            text = text.replace(ours, place)
        return text

    def _environment(self) -> dict[str, str]:
        """One in which all commands are those of this tree, and nothing outside the folder is written to."""
        programs, home = self.folder / ".programs", self.folder / ".home"
        home.mkdir()
        _make_programs(programs)
        (self.folder / "bin").symlink_to(programs)
        shutil.copytree(ROOT / "examples", self.folder / "examples")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MINILAMBDA_", "XDG_", "PYTEST_"))}
        env.update(
            HOME=str(home),
            PATH=f"{programs}:{env['PATH']}:{Path(sys.executable).parent}",
            PYTHONPATH=str(ROOT),
            MINILAMBDA_SERVER=self.places[BROKER],
            MINILAMBDA_ORCHESTRATOR=self.places[BROKER],
            MINILAMBDA_CACHE_DIR=str(self.folder.parent / "cache"),
        )
        return env


def _make_programs(folder: Path) -> None:
    folder.mkdir()
    for each in _OWN:
        _program(folder / each, f'exec {sys.executable} {BIN / each} "$@"')
    _program(folder / "python", f'exec {sys.executable} "$@"')
    for each in ("pytest", "pip"):
        _program(folder / each, f'exec {sys.executable} -m {each} "$@"')


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def _free_address() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"
