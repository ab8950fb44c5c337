"""Make a site of the pages: `make docs`. Links and titles that lead nowhere fail.

The pages link to each other and to files of the source as they do in a clone. So they are laid out in build/pages with
all the files that they name, in the folders that they are in, and mkdocs makes the site in build/site from there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "pages"
PAGES = ("*.md", "docs/**/*.md", "docs/images/*", "benchmarks/README.md")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def main() -> int:
    """Lay the pages out and make the site; returns the exit code of mkdocs."""
    shutil.rmtree(TARGET, ignore_errors=True)
    for pattern in PAGES:
        for page in ROOT.glob(pattern):
            lay(page)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # advertises another tool
    code = subprocess.run([*command, "--config-file", "mkdocs.yml"], check=False, cwd=ROOT, env=env).returncode
    if code == 0:
        print("the site is in build/site; with the search: python3 -m http.server --bind 127.0.0.1 -d build/site")
    return code


def lay(path: Path) -> None:
    """Copy a page or a file, and what it links to, to the same place below the target."""
    target = TARGET / path.relative_to(ROOT)
    if target.exists() or not path.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
    if path.suffix == ".md":
        for link in LINK.findall(path.read_text(encoding="utf-8")):
            lay((path.parent / link).resolve())


if __name__ == "__main__":
    sys.exit(main())
