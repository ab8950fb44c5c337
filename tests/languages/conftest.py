"""A cluster for the pages about guests, and where they leave what they have made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import ROOT


@pytest.fixture(scope="session")
def kept() -> Path:
    """Guests that the pages make are kept here, for `benchmarks/languages.py`."""
    folder = ROOT / ".guests" / "languages"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
