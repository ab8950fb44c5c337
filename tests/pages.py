"""The documentation's pages as somebody reads them who types what they say, and looks whether the same comes out.

    ```console        lines behind "$ " are typed, what stands below one is what it shows. One that begins otherwise,
                      as with "broker$ ", is about several machines, and must be an exception
    ```sh             all of it is typed
    ```python         is run as a program; a ```text that is the next block is what it prints
    ```c title="x.c"  any block with a title is a file of that name

In what is shown "…" stands for anything, on a line of its own for any lines; ids, times and sizes may be others.
All other blocks are for the eye only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import ROOT

PAGES = sorted(
    page for where in ("*.md", "docs/*.md", "docs/guests/*.md", "benchmarks/*.md") for page in ROOT.glob(where)
)
"""All pages."""

_FENCE = re.compile(r"^```(\S*)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
_VARIES = [
    (re.compile(r"\b[0-9a-f]{16}\b"), "ID"),
    (re.compile(r"\d+(?:\.\d+)? ?(µs|ms|s|B|kB|MB|KiB|MiB)\b"), r"0 \1"),
    (re.compile(r"[ \t]+"), " "),
    (re.compile(r" +$", re.M), ""),
]


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: Path
    line: int  # in the page, of the opening fence
    language: str
    title: str  # name of the file that it is, or ""
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """Something to type."""

    text: str
    shown: str | None  # what must come out; None where the page does not say


def name(page: Path) -> str:
    """A page as people call it."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2] or "", found[3])
        for found in _FENCE.finditer(text)
    ]


def typed(page: Path, elsewhere: tuple[str, ...]) -> bool:
    """Whether a page has something to do that does not begin with one of ``elsewhere``."""
    found = blocks(page)
    programs = any(block.language == "python" and not block.title for block in found)
    return programs or any(not each.text.startswith(elsewhere) for block in found for each in commands(block))


def commands(block: Block) -> Iterator[Command]:
    """What a block has one type, in order. A line that ends in a backslash goes on in the next one."""
    if block.title:
        return
    if block.language == "sh" or (block.language == "console" and not block.text.startswith("$ ")):
        yield Command(block.text, None)
        return
    if block.language != "console":
        return
    typed, shown, open_ = "", "", False
    for line in block.text.splitlines(keepends=True):
        if open_:
            typed, open_ = typed + line, line.endswith("\\\n")
        elif line.startswith("$ "):
            if typed:
                yield Command(typed, shown or None)
            typed, shown, open_ = line[2:], "", line.endswith("\\\n")
        else:
            shown += line
    yield Command(typed, shown.rstrip("\n") or None)


def same(shown: str, came: str) -> bool:
    """What came out is what the page shows."""
    pattern = ""
    for line in _plain(shown).splitlines():
        pattern += r"(?:[^\n]*\n)*" if line == "…" else re.escape(line).replace("…", r"[^\n]*") + r"\n"
    return re.fullmatch(pattern, _plain(came) + "\n") is not None


def _plain(text: str) -> str:
    for varies, word in _VARIES:
        text = varies.sub(word, text)
    return text.strip("\n")
