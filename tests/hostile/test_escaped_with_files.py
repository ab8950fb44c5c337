"""Native code in the place of a guest with files, as if it had broken out of wasmtime: it has those files, no more."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from minilambda.worker.events import HomeOrder
from tests.hostile import attempts
from tests.hostile.test_escaped_guest import ENDED, REFUSED, Scene, _scene
from tests.integration.agents import MIB, ORDER
from tests.integration.files_agent import end, plant

SLOT = 2
"""Beyond those of the agent."""

WITHOUT = {"refused: ENOENT", "refused: EROFS", "refused: EXDEV", "refused: ENOTDIR", "refused: ENOTSUP"}
"""How the kernel refuses what is not there, or can't be changed by anybody."""


class FilesScene:
    """An agent whose jobs with files can be told to try something."""

    def __init__(self, scene: Scene, tree: Path) -> None:
        self.scene = scene
        self.tree = tree

    def as_guest(self, name: str) -> str:
        """What came of an attempt: "reached", "refused: " and the error, or how the process died."""
        agent = self.scene.agent
        agent.processes.spawn(SLOT, HomeOrder(str(self.tree), MIB, MIB, (), MIB))
        order = ORDER._replace(load=False, args=("attempt", name, json.dumps(self.scene.where)))
        agent.processes.run(SLOT, order, None)
        ended = end(agent, SLOT)
        if ended.finished is None:
            return ended.died.how
        return ended.finished.outcome.stdout.decode() or ended.finished.outcome.message


@pytest.fixture(scope="module")
def walled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesScene]:
    with ExitStack() as stack:
        tree = plant(tmp_path_factory.mktemp("escaped") / "tree", {"/own": b"own"})
        (tree / "tmp").mkdir(mode=0o755)
        yield FilesScene(stack.enter_context(_scene("walled")), tree)


EVERY = {**attempts.ALL, **attempts.WITH_FILES, **attempts.WITH_FILES_DEADLY}


@pytest.mark.parametrize("name", EVERY)
def test_an_escaped_guest_with_files_gets_nowhere_beyond_them(walled: FilesScene, name: str) -> None:
    came = walled.as_guest(name)
    if name in attempts.DEADLY or name in attempts.WITH_FILES_DEADLY:
        assert came == ENDED
    else:
        assert came in REFUSED | WITHOUT, came


def test_what_an_escaped_guest_tried_did_no_harm(walled: FilesScene) -> None:
    assert {path.name for path in walled.tree.rglob("*")} == {"own", "tmp"}
    assert (walled.tree / "own").read_bytes() == b"own"
    state = (walled.tree / "own").stat()
    assert (state.st_nlink, state.st_mode & 0o7777, state.st_uid) == (1, 0o444, os.geteuid())
