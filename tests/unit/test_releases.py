"""What is known against the releases of what we run on: wasmtime, libzmq, and all that `make audit` asks about."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import mmap
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import wasmtime
import zmq

from minilambda import sockets
from minilambda.worker import releases
from tests.cluster import ROOT

X86, ARM = "x86_64", "aarch64"


@pytest.mark.parametrize(
    ("version", "machine", "reach_out"),
    [
        ((36, 0, 18), X86, {"GHSA-32h6-97mm-8q3c"}),
        ((48, 0, 0), X86, {"GHSA-32h6-97mm-8q3c"}),
        ((48, 0, 4), X86, set()),
        ((48, 0, 4), ARM, {"GHSA-mghf-wjfp-p5xm"}),
        ((48, 0, 7), ARM, set()),
        ((49, 0, 1), ARM, {"GHSA-32h6-97mm-8q3c", "GHSA-mghf-wjfp-p5xm"}),
        ((50, 0, 0), ARM, set()),
        ((51, 0, 0), ARM, set()),
    ],
)
def test_a_flaw_is_known_in_the_releases_before_its_fix(
    version: releases.Version, machine: str, reach_out: set[str]
) -> None:
    found = releases.flaws_of(version, machine)
    assert {flaw.advisory for flaw in found if not flaw.contained} == reach_out


def test_a_release_with_every_fix_has_no_known_flaw() -> None:
    assert releases.flaws_of((50, 0, 2), ARM) == []
    assert releases.flaws_of((48, 0, 9), ARM) == []


def test_a_worker_warns_of_a_flaw_that_reaches_out_and_remarks_on_a_contained_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    releases.warn("49.0.0", X86)
    by_level = {record.levelno: record.getMessage() for record in reversed(caplog.records)}
    assert "49.0.0 has a known flaw" in by_level[logging.WARNING]
    assert releases.AS_OF in by_level[logging.WARNING]
    assert f"{releases.SOURCE}/GHSA-32h6-97mm-8q3c" in by_level[logging.WARNING]
    assert "its runner's end is the end of it" in by_level[logging.INFO]


def test_the_installed_wasmtime_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    releases.warn()
    assert caplog.records == []


@pytest.mark.skipif(sys.platform != "linux", reason="workers run on Linux only")
def test_we_know_which_wasmtime_the_installed_package_has_in_it() -> None:
    library = next(Path(wasmtime.__file__).parent.rglob("_libwasmtime.so"))
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = re.search(rb"\nversion: (\d+\.\d+\.\d+)\n", text)
        assert found is not None
        version = found[1].decode()
    assert releases.inside(importlib.metadata.version("wasmtime")) == releases.parse(version)


@pytest.mark.parametrize(
    ("text", "version"), [("50.0.1", (50, 0, 1)), ("51", (51, 0, 0)), ("50.1.2.dev3", (50, 1, 2)), ("x", (0, 0, 0))]
)
def test_a_version_is_read_as_numbers(text: str, version: releases.Version) -> None:
    assert releases.parse(text) == version


def test_an_old_libzmq_is_warned_of_and_the_installed_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    sockets.warn_of_old_libzmq()
    assert caplog.records == []
    sockets.warn_of_old_libzmq((4, 3, 4))
    assert "libzmq 4.3.4 is older than 4.3.5" in caplog.text


def test_the_lower_bounds_of_the_dependencies_have_the_known_fixes() -> None:
    bounds = dict(re.findall(r"^    ([\w-]+)>=([\d.]+)$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.M))
    assert releases.parse(bounds["msgpack"]) >= (1, 2, 2)
    assert releases.parse(bounds["pyzmq"]) >= (27, 0, 0)
    wheel = releases.inside(bounds["wasmtime"])
    assert all(flaw.contained for flaw in releases.flaws_of(wheel, ARM))
    assert zmq.zmq_version_info() >= sockets.FIXED_LIBZMQ


# --- make audit ---------------------------------------------------------------------------------


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import audit

    return audit


CLEAN = {"name": "msgpack", "version": "1.2.4", "vulns": []}
BAD = {"name": "pyzmq", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("answers", "errors", "code", "says"),
    [
        ([CLEAN, UNKNOWN], "", 0, "nothing is known against 1 packages\nnot checked: rich"),
        ([CLEAN, BAD, UNKNOWN], "", 1, "pyzmq 1.0: PYSEC-1, fixed in 1.1\nnot checked: rich"),
        ([UNKNOWN], "", 0, "SKIPPED: this package index knows no advisories"),
        (None, "requests.exceptions.ConnectionError: no such host", 0, "SKIPPED: the advisory database"),
        (None, "No module named pip_audit", 1, "pip-audit failed:\nNo module named pip_audit"),
    ],
)
def test_an_audit_that_checked_nothing_says_so(
    audit: ModuleType, answers: list[dict[str, object]] | None, errors: str, code: int, says: str
) -> None:
    packages = {str(answer["name"]): "1" for answer in answers or []}
    output = "" if answers is None else json.dumps({"dependencies": answers})
    found, text = audit.verdict(packages, output, errors)
    assert found == code
    assert says in text


def test_an_audit_asks_about_everything_that_minilambda_runs_on_and_nothing_else(audit: ModuleType) -> None:
    found = audit.needed("minilambda")
    assert {"pyzmq", "wasmtime", "msgpack", "rich", "pygments"} <= set(found)
    assert not {"pytest", "mypy", "minilambda"} & set(found)
    assert audit.needed_by(sys.executable) == found
