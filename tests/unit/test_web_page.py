"""The files of the live page: what they must never have in them, and what they must know."""

from __future__ import annotations

import re

import pytest

from minilambda.errors import BY_CODE, JobError
from tests.cluster import ROOT

PAGE = ROOT / "minilambda" / "web" / "page"
FILES = sorted(path for path in PAGE.iterdir() if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix == ".js"]
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\("
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_of_text(path) -> None:
    assert MARKUP.search(path.read_text(encoding="utf-8")) is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_small_named_as_the_gateway_serves_it_and_fetches_from_nowhere_else(path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    assert re.fullmatch(r"[a-z0-9_-]+\.[a-z]+", path.name)
    assert re.findall(r"""(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}""", text.replace("http://www.w3.org/", "")) == []
    assert re.findall(r"""\s(?:on[a-z]+|style)=["']""", text) == []
    assert "<style" not in text
    assert re.findall(r"<script(?![^>]*\ssrc=)", text) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_imports_what_is_there(path) -> None:
    for names, source in re.findall(r'import \{([^}]*)\} from "/page/([^"]+)"', path.read_text(encoding="utf-8")):
        there = (PAGE / source).read_text(encoding="utf-8")
        for name in names.replace("\n", " ").split(","):
            assert re.search(rf"export (?:async )?(?:function\*?|class|const) {name.strip()}\b", there), (source, name)


def test_each_way_in_which_a_job_can_fail_has_its_words() -> None:
    words = (PAGE / "words.js").read_text(encoding="utf-8")
    known = set(re.findall(r"^  ([a-z_]+): ", words, re.M))
    assert {code for code, error in BY_CODE.items() if issubclass(error, JobError)} <= known


def test_each_element_that_a_script_looks_for_is_on_the_page_once() -> None:
    ids = re.findall(r'\sid="([a-z0-9-]+)"', (PAGE / "index.html").read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))
    scripts = [path for path in SCRIPTS if path.name != "docs.js"]
    wanted = {name for path in scripts for name in re.findall(r'\bby\("([^"]+)"\)', path.read_text(encoding="utf-8"))}
    assert wanted
    assert wanted <= set(ids)
