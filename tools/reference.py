"""Write `docs/api.md` and `docs/errors.md` from the code: `make reference`.

Usage: reference.py [--check]

With --check nothing is written; the exit code is 1 where a page is not what the code says.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import reference_api  # noqa: E402
import reference_errors  # noqa: E402

PAGES = {ROOT / "docs" / "api.md": reference_api.page, ROOT / "docs" / "errors.md": reference_errors.page}


def stale() -> list[Path]:
    """The pages that are not what the code says."""
    return [path for path, make in PAGES.items() if not path.exists() or path.read_text(encoding="utf-8") != make()]


def main(arguments: list[str]) -> int:
    """Write or check the pages; returns the exit code."""
    for path in stale():
        if "--check" in arguments:
            sys.exit(f"{path.relative_to(ROOT)} is not what the code says: run `make reference`")
        path.write_text(PAGES[path](), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
