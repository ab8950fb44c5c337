"""The scripts in `bin/` work from a clone, and say what to do where they can't."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import BIN, ROOT

SCRIPTS = ["minilambda", "minilambda-broker", "minilambda-client", "minilambda-worker"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_executable_and_knows_its_version(script: str) -> None:
    assert os.access(BIN / script, os.X_OK)
    command = [sys.executable, str(BIN / script), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.1.0" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_without_its_dependencies_says_make_venv(script: str, tmp_path: Path) -> None:
    shutil.copytree(BIN, tmp_path / "bin")
    (tmp_path / "minilambda").symlink_to(ROOT / "minilambda")
    command = [sys.executable, "-S", str(tmp_path / "bin" / script), "--version"]  # -S: no installed packages
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "make venv" in done.stderr
    assert "Traceback" not in done.stderr
