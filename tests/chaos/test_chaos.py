"""A short chaos on real processes. `make chaos` is the long one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cluster import ROOT


def chaos(*options: str) -> None:
    """Run one, which must balance."""
    command = [sys.executable, "-m", "tests.chaos", "--workers=3", "--clients=4", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=140, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "The ledger balances." in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_the_ledger_balances_after_chaos() -> None:
    chaos("--seconds=5", "--every=0.4", "--seed=7")


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_a_rolling_restart_of_everything_under_load_runs_nothing_twice() -> None:
    chaos("--seconds=5", "--every=0.8", "--seed=1", "--only=worker told to stop,broker told to stop,broker killed")
