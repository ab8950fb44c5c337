"""The guests that `make guests` makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import ROOT

GUESTS = ROOT / ".guests"


def _guest(name: str) -> Path:
    path = GUESTS / name
    if not path.exists():
        pytest.fail(f"{path.relative_to(ROOT)} is not there: run `make guests`", pytrace=False)
    return path


@pytest.fixture(scope="session")
def python_wasm() -> Path:
    """CPython 3.12 for WASI preview 1, its standard library inside."""
    return _guest("python.wasm")


@pytest.fixture(scope="session")
def component_wasm() -> Path:
    """A component in Python, of tests/real/guests/component."""
    return _guest("component.wasm")


@pytest.fixture(scope="session")
def native_wasm() -> Path:
    """A C program for WASI preview 1, of tests/real/guests/native.c."""
    return _guest("native.wasm")
