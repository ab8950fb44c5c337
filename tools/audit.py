"""Ask the advisory database about the packages that minilambda runs on, at the versions that are installed.

Usage: audit.py [PYTHON], with the Python of another environment that minilambda is installed in.

Exit codes: 0 nothing is known against them, or nobody could be asked, which it says; 1 something is known, or the
question went wrong otherwise.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = "minilambda"

LIST = "--list"
"""The argument that has the packages printed, for another Python to ask about."""

UNREACHABLE = re.compile(r"ConnectionError|ConnectTimeout|NameResolutionError|Max retries exceeded|Tried 3 times")
"""What pip-audit says, somewhere, where it could not ask."""


def needed(project: str) -> dict[str, str]:
    """The installed packages that a package needs to run, and those that they need, with their versions."""
    found: dict[str, str] = {}
    waiting = [project]
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        for requirement in distribution.requires or []:
            name = re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower()
            if "extra ==" in requirement or name in found:
                continue
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                continue  # for another platform or Python
            waiting.append(name)
    return found


def needed_by(python: str) -> dict[str, str]:
    """The same for another Python's environment."""
    done = subprocess.run([python, "-I", __file__, LIST], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def verdict(packages: dict[str, str], output: str, errors: str) -> tuple[int, str]:
    """The exit code, and what to print, for what pip-audit said."""
    try:
        answers: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if UNREACHABLE.search(errors):
            return 0, "audit: SKIPPED: the advisory database can't be reached from here; nothing was checked"
        return 1, f"audit: pip-audit failed:\n{errors.strip()}"
    asked = [answer for answer in answers if "vulns" in answer]
    lines = [
        f"{answer['name']} {answer['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'nothing'}"
        for answer in asked
        for flaw in answer["vulns"]
    ]
    missed = sorted(set(packages) - {answer["name"].lower() for answer in asked})
    if not asked:
        return 0, "audit: SKIPPED: this package index knows no advisories; nothing was checked"
    if missed:
        lines.append(f"not checked: {', '.join(missed)}")
    if any(answer["vulns"] for answer in asked):
        return 1, "\n".join(["audit: there are advisories:", *lines])
    return 0, "\n".join([f"audit: nothing is known against {len(asked)} packages", *lines])


def main(arguments: list[str]) -> int:
    """Audit the environment of this Python, or of the one that is named."""
    if arguments == [LIST]:
        print(json.dumps(needed(PROJECT)))
        return 0
    packages = needed_by(arguments[0]) if arguments else needed(PROJECT)
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text("".join(f"{name}=={version}\n" for name, version in packages.items()), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off", "--timeout=15"]
        command += ["--disable-pip", "--no-deps", f"--requirement={wanted}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    code, text = verdict(packages, done.stdout, done.stderr)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
