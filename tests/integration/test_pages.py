"""What the pages say is typed, and comes out: the commands and programs of all pages, one page after the other."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from tests.cluster import running_cluster
from tests.pages import PAGES, name, typed
from tests.reader import Reader
from tests.test_docs import COMMANDS_ELSEWHERE, PAGES_ELSEWHERE


def elsewhere(page: Path) -> tuple[str, ...]:
    """Beginnings of the commands of a page that are not for here."""
    return tuple(start for where, start in COMMANDS_ELSEWHERE if where == name(page))


def files(folder: Path) -> set[str]:
    """What one sees in a folder, but for the logs of the servers that its reader has started."""
    return {each.name for each in folder.iterdir() if not each.name.startswith(".") and each.suffix != ".log"}


HERE = [page for page in PAGES if name(page) not in PAGES_ELSEWHERE and typed(page, elsewhere(page))]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", HERE, ids=name)
def test_what_a_page_says_comes_out(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if "curl " in text and not shutil.which("curl"):
        pytest.skip("there is no curl here")
    starts = "$ minilambda up" in text or "$ bin/minilambda up" in text
    with contextlib.ExitStack() as stack:
        # A cluster of its own: pages list what is there.
        address = "" if starts else stack.enter_context(running_cluster(tmp_path / "cluster")).address
        reader = Reader(tmp_path, address)
        stack.callback(reader.close)
        before = files(tmp_path)
        assert reader.follow(page, elsewhere(page))
        if name(page) == "README.md":  # it is followed in a clone
            assert files(tmp_path) == before
