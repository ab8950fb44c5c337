"""The guides for guests, typed as they stand, with real compilers: `make test-languages`.

They need cargo with rustup, go 1.24 or newer, node 20 or newer with npm, and packages from PyPI and npm. A guide whose
tools are not here fails and says what it wants; ARGS="-k rust" runs just one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cluster import ROOT, Cluster
from tests.reader import Reader

GUIDES = {"c": [], "rust": ["cargo", "rustup"], "go": ["go"], "javascript": ["node", "npm"], "python": ["npm"]}
HOMES = {"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup", "GOCACHE": ".cache/go-build", "npm_config_cache": ".npm"}


@pytest.fixture(scope="module", autouse=True)
def own_places() -> None:
    """The tools keep what they have fetched where they always do, although the pages are read in another home."""
    for variable, place in HOMES.items():
        os.environ.setdefault(variable, str(Path.home() / place))
    os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(ROOT / ".guests" / "zig-cache"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", GUIDES)
def test_a_guide_does_what_it_says(language: str, cluster: Cluster, kept: Path, tmp_path: Path) -> None:
    # given
    missing = [tool for tool in GUIDES[language] if not shutil.which(tool)]
    assert not missing, f"the guide for {language} needs {', '.join(missing)}"
    reader = Reader(tmp_path, cluster.address, seconds=400)
    # when
    try:
        assert reader.follow(ROOT / "docs" / "guests" / f"{language}.md") >= 5
    finally:
        reader.close()
    # then
    for made in ("count.wasm", "texts.wasm", "python.wasm"):
        if (tmp_path / made).exists():
            shutil.copy(tmp_path / made, kept / f"{language}-{made}")
