"""The pages: links lead somewhere, and what they and the files for systemd say is there is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minilambda.cli import authorize, broker, keygen, options, revoke, worker
from tests.cluster import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
UNITS = ROOT / "contrib" / "systemd"
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
SERVICES = {"minilambda-broker": broker.USAGE, "minilambda-worker": worker.USAGE}


def _options(usage: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", usage))


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_or_a_title_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        name, _, anchor = link.partition("#")
        target = page if not name else (page.parent / name).resolve()
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


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
    for name in re.findall(r"contrib/systemd/([\w.-]+)", DEPLOYMENT):
        assert (UNITS / name).exists(), name
    usages = (authorize, broker, keygen, revoke, worker)
    known = {option for module in usages for option in _options(module.USAGE)}
    named = set(re.findall(r"`(--[a-z-]+)", DEPLOYMENT))
    assert named
    assert named <= known
