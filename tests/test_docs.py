"""The pages: links lead somewhere, commands are run somewhere, and what is said to be there is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from minilambda.cli import authorize, broker, keygen, options, revoke, worker
from tests.cluster import ROOT
from tests.pages import PAGES, blocks, commands, name, same

UNITS = ROOT / "contrib" / "systemd"
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
SERVICES = {"minilambda-broker": broker.USAGE, "minilambda-worker": worker.USAGE}

PAGES_ELSEWHERE = {
    "docs/http.md": "tests/integration/test_http_page.py",
    "docs/deployment.md": "needs root, systemd and two machines; its files and options are checked below",
    **{f"docs/guests/{language}.md": "tests/languages" for language in ("c", "go", "javascript", "python", "rust")},
}
"""Pages whose commands tests/integration/test_pages.py does not run, and what does it instead."""

COMMANDS_ELSEWHERE: dict[tuple[str, str], str] = {
    ("README.md", "make demo"): "tests/integration/test_examples.py; the other one is this",
    ("README.md", "broker$ "): "tests/integration/test_keys_commands.py",
    ("docs/operating.md", "minilambda-broker --metrics"): "tests/integration/test_telemetry.py",
    ("docs/performance.md", "make bench"): "tests/integration/test_benchmarks.py, with less to measure",
    ("benchmarks/README.md", "make bench"): "tests/integration/test_benchmarks.py, with less to measure",
}
"""Page and beginning of commands that test_pages.py leaves out, and what runs them instead."""

SHELL = re.compile(
    r"^(?:\w+)?[$#] |^(?:bin/)?minilambda(?:-\w+)? |^(?:pip|make|npm|cargo|go|rustup|curl|python3?|systemctl|install) ",
    re.M,
)
"""What looks as if it were to be typed."""


def _options(usage: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", usage))


def _prose(page: Path) -> str:
    """A page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", _prose(page), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_to_a_file_or_a_title_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", _prose(page))
    for link in links:
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_that_looks_like_commands_is_marked_as_such(page: Path) -> None:
    if name(page) not in PAGES_ELSEWHERE:
        strange = [str(block) for block in blocks(page) if block.language == "" and SHELL.search(block.text)]
        assert not strange, "mark them as sh or console, so that a test runs them, or as text"


def test_each_exception_is_about_something() -> None:
    pages = {name(page): page for page in PAGES}
    assert PAGES_ELSEWHERE.keys() <= pages.keys()
    for where, start in COMMANDS_ELSEWHERE:
        typed = [command.text for block in blocks(pages[where]) for command in commands(block)]
        assert any(text.startswith(start) for text in typed), (where, start)


@pytest.mark.parametrize(
    ("shown", "came", "alike"),
    [
        ("one\ntwo", "one\ntwo\n", True),
        ("one\ntwo", "one\nthree", False),
        ("one", "one\ntwo", False),
        ("a … z", "a b c z", True),
        ("a … z", "a b\nc z", False),
        ("a\n…\nz", "a\nb\nc\nz", True),
        ("a\n…\nz", "a\nz", True),
        ("a\n…", "a", True),
        ("…", "", True),
        ("job 0123456789abcdef took 3 ms", "job fedcba9876543210 took 12.5 ms", True),
        ("took 3 ms", "took 3 s", False),
        ("a.c", "abc", False),
    ],
)
def test_what_is_shown_is_compared_but_for_what_varies(shown: str, came: str, alike: bool) -> None:
    assert same(shown, came) is alike


def test_the_reference_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "reference.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_a_unit_and_its_environment_ask_for_options_that_exist(service: str) -> None:
    # given
    unit = (UNITS / f"{service}.service").read_text(encoding="utf-8")
    environment = (UNITS / f"{service.removeprefix('minilambda-')}.env").read_text(encoding="utf-8")
    known = _options(SERVICES[service])
    # then
    command = re.search(r"^ExecStart=(.+)$", unit, re.M)
    assert command is not None
    assert command[1].startswith(f"/opt/minilambda/bin/{service} ")
    assert _options(command[1]) <= known
    variables = set(re.findall(r"^(?:Environment=)?(MINILAMBDA_\w+)=", f"{unit}\n{environment}", re.M))
    assert variables
    assert variables <= {options.variable(option) for option in known}


def test_a_worker_has_time_to_drain_before_it_is_killed() -> None:
    from minilambda.settings import WorkerSettings

    unit = (UNITS / "minilambda-worker.service").read_text(encoding="utf-8")
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)
    assert stop is not None
    assert int(stop[1]) > WorkerSettings().grace


def test_the_deployment_page_names_files_and_options_that_exist() -> None:
    for file in re.findall(r"contrib/systemd/([\w.-]+)", DEPLOYMENT):
        assert (UNITS / file).exists(), file
    usages = (authorize, broker, keygen, revoke, worker)
    known = {option for module in usages for option in _options(module.USAGE)}
    named = set(re.findall(r"`(--[a-z-]+)", DEPLOYMENT))
    assert named
    assert named <= known
