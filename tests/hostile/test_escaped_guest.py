"""Native code in a guest's place, as if it had broken out of wasmtime: what it tries, and that each try fails."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from minilambda.worker.events import CompileFinished, RunnerDied, RunnerFinished
from tests import wat
from tests.hostile import attempts
from tests.integration.agents import ORDER, Agent, compile_order, running_agent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers run on Linux only")

REFUSED = {"refused: EPERM", "refused: EACCES", "refused: ENOSYS"}
_popen = subprocess.Popen
ENDED = "killed by SIGSYS"


class Scene:
    """An agent whose runners and compilers can be told to try something, and what they might be after."""

    def __init__(self, agent: Agent, baits: Path, port: int) -> None:
        self.agent = agent
        agent.start(0, 1)
        template = agent.processes._template
        assert template is not None
        self.where: dict[str, Any] = {
            "agent": os.getpid(),
            "template": template.pid,
            "sibling": agent.pid(1),
            "directory": str(baits),
            "artifact": str(baits / "artifact"),
            "victim": str(baits / "victim"),
            "socket": str(baits / "socket"),
            "abstract": baits.name,
            "port": port,
        }

    def as_guest(self, name: str) -> str:
        """What came of an attempt: "reached", "refused: " and the error, or how the runner died."""
        order = ORDER._replace(load=False, args=("attempt", name, json.dumps(self.where)))
        self.agent.processes.run(0, order, None)
        while not self.agent.events:
            self.agent.poll(30)
        event = self.agent.events.pop(0)
        if isinstance(event, RunnerDied):
            self.agent.spawn(0)
            return event.how
        assert isinstance(event, RunnerFinished)
        return event.outcome.stdout.decode() or event.outcome.message

    def as_compiler(self, name: str) -> str:
        """The same from within a compilation."""
        order = b"attempt\0" + json.dumps([name, self.where]).encode()
        self.agent.order_compile(compile_order(order), order)
        finished = self.agent.next(CompileFinished)
        if finished.code is not None:
            return finished.message
        fd = self.agent.processes.take_artifact(finished.digest, finished.compiler)
        try:
            return os.pread(fd, 100, 0).decode()
        finally:
            os.close(fd)


@contextmanager
def _scene(how: str) -> Iterator[Scene]:
    with ExitStack() as stack:
        # Open to everybody: no mode of a file stands in the way, only walls do.
        baits = Path(tempfile.mkdtemp(prefix="minilambda-baits-"))
        stack.callback(shutil.rmtree, baits)
        baits.chmod(0o777)
        for name in ("artifact", "victim"):
            (baits / name).write_bytes(b"another tenant's code")
            (baits / name).chmod(0o666)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for address in (str(baits / "socket"), "\0" + baits.name):
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(address)
            server.listen()
        (baits / "socket").chmod(0o777)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("minilambda.worker.launch.subprocess.Popen", in_its_place(how))
        yield Scene(stack.enter_context(running_agent()), baits, tcp.getsockname()[1])


def in_its_place(how: str) -> Callable[..., Any]:
    """Start our template instead of the product's."""

    def start(command: list[str], **options: Any) -> Any:
        ours = [word.replace("minilambda.worker.template", "tests.hostile.escaped_template") for word in command]
        return _popen([*ours, how], **options)

    return start


@pytest.fixture(scope="module")
def walled() -> Iterator[Scene]:
    with _scene("walled") as scene:
        yield scene


@pytest.fixture(scope="module")
def unwalled() -> Iterator[Scene]:
    with _scene("open") as scene:
        yield scene


@pytest.mark.parametrize("name", attempts.ALL)
def test_an_escaped_guest_gets_nowhere(walled: Scene, name: str) -> None:
    # when
    came = walled.as_guest(name)
    # then
    assert came == ENDED if name in attempts.DEADLY else came in REFUSED, came


@pytest.mark.parametrize("name", [name for name in attempts.ALL if name not in attempts.DEADLY])
def test_an_escaped_compilation_gets_nowhere(walled: Scene, name: str) -> None:
    assert walled.as_compiler(name) in REFUSED


@pytest.mark.parametrize("name", ["execute a program", "read another job's memory by a call", "make a namespace"])
def test_an_outrageous_compilation_is_ended(walled: Scene, name: str) -> None:
    assert ENDED in walled.as_compiler(name)


@pytest.mark.parametrize("name", attempts.HARMLESS)
def test_without_walls_the_same_attempt_succeeds(unwalled: Scene, name: str) -> None:
    assert unwalled.as_guest(name) == "reached"


def test_what_was_tried_did_no_harm(walled: Scene) -> None:
    # given
    for name in attempts.FILES:
        walled.as_guest(name)
    # then
    baits = Path(walled.where["directory"])
    assert sorted(path.name for path in baits.iterdir()) == ["artifact", "socket", "victim"]
    assert (baits / "artifact").read_bytes() == b"another tenant's code"
    assert walled.agent.run(1, wat.HELLO).outcome.stdout == b"hello\n"
