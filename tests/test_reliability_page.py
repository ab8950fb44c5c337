"""`docs/reliability.md` names tests that exist, and says something about every failure."""

from __future__ import annotations

import re

from tests.cluster import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
FAILURES = 27


def test_every_test_that_the_page_names_exists() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    existing = {name for source in sources for name in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert named - existing == set()


def test_every_row_names_a_test_or_says_that_there_is_none_yet() -> None:
    rows = re.findall(r"^\| (\d+\w?) \|.*\| (.*) \|$", PAGE, re.MULTILINE)
    assert [number for number, _ in rows][-FAILURES:] == [str(number) for number in range(1, FAILURES + 1)]
    assert [number for number, held in rows if "`test_" not in held and "not yet" not in held] == []


def test_the_troubles_that_the_page_names_are_those_of_the_monkey() -> None:
    from tests.chaos.monkey import TROUBLES

    named = set(re.findall(r"trouble \"([^\"]+)\"", PAGE)) | set(re.findall(r"--only='([^']+)'", PAGE))
    assert named
    assert named <= set(TROUBLES)
