"""Jobs with files through the processes under an agent: a tree on disk, one process for each job."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from minilambda.worker.events import CompileFinished, HomeOrder, RunnerDied, RunnerFinished, RunnerReady
from tests.integration.agents import MAX_WAIT_S, MIB, Agent

SLOT = 1
"""Beyond those of an agent with one slot."""


@dataclass
class Ended:
    """How a job ended."""

    finished: RunnerFinished | None  # None: its process died before
    died: RunnerDied
    walls: tuple[str, ...] = ()
    files: dict[str, bytes | None] = field(default_factory=dict)  # what was brought back
    problem: str = ""  # why nothing was

    @property
    def errors(self) -> list[int]:
        """The error number of each step."""
        assert self.finished is not None, self.died
        assert self.finished.outcome.code is None, self.finished.outcome
        return list(self.finished.outcome.stdout)

    @property
    def exit_code(self) -> int | None:
        assert self.finished is not None, self.died
        return self.finished.outcome.exit_code

    @property
    def read(self) -> bytes:
        """What the guest has read, as it tells."""
        assert self.finished is not None, self.died
        return self.finished.outcome.stderr


def plant(directory: Path, files: Mapping[str, bytes]) -> Path:
    """A tree of files as the worker's disk has them."""
    directory.mkdir()
    for path, data in files.items():
        place = directory / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(0o444)
    for folder in [directory, *(path for path in directory.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    return directory


def begin(
    agent: Agent, module: str, tree: Path, *, scratch: int = 0, collect: Sequence[str] = (), **fields: Any
) -> None:
    """Have a job run: its process is made for it."""
    if module not in agent.artifacts:
        done = agent.compile(module)
        assert isinstance(done, CompileFinished) and done.code is None, done
        agent.artifacts[module] = agent.processes.take_artifact(done.digest, done.compiler)
    output = fields.get("output_bytes", 16 * MIB)
    agent.processes.spawn(SLOT, HomeOrder(str(tree), scratch, output, tuple(collect), 64 * MIB))
    agent.begin(SLOT, module, **fields)


def end(agent: Agent, slot: int = SLOT) -> Ended:
    """Wait for the end of the job, and of its process."""
    deadline = time.monotonic() + MAX_WAIT_S
    walls: tuple[str, ...] = ()
    finished: RunnerFinished | None = None
    while True:
        assert time.monotonic() < deadline, "the job did not end"
        agent.poll(1)
        while agent.events:
            event = agent.events.pop(0)
            if isinstance(event, RunnerReady):
                runner = agent.processes._runners.get(slot)
                walls = (runner and runner.walls) or ()  # it may be dead by now
            elif isinstance(event, RunnerFinished):
                finished = event
                agent.processes.kill(slot)
            else:
                assert isinstance(event, RunnerDied), event
                brought = (finished or event).collected
                files = msgpack.unpackb(brought.files) if brought and brought.files else {}
                return Ended(finished, event, walls, files, brought.problem if brought else "")


def run(agent: Agent, module: str, tree: Path, **options: Any) -> Ended:
    begin(agent, module, tree, **options)
    return end(agent)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))
