"""Which releases of wasmtime have flaws that are known and that matter here: what a worker warns of at its start.

A guest has no files, no sockets and no HTTP, and workers run on Linux; advisories about anything else are left out.
A flaw that ends or fills the guest's own runner is *contained*: the job fails with its code, and a new runner follows.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import re
from dataclasses import dataclass

Version = tuple[int, int, int]

AS_OF = "2026-11-24"
"""The day of this knowledge. What was published later is not here: `make audit` asks for that."""

SOURCE = "https://github.com/bytecodealliance/wasmtime/security/advisories"
"""Where the advisories are, each under its name."""

CARRIES: dict[Version, Version] = {(50, 0, 1): (50, 0, 0)}
"""Wheels on PyPI whose number is not that of the wasmtime in them, by the text that it has for its own defects."""

log = logging.getLogger("minilambda.worker")


@dataclass(frozen=True, slots=True)
class Flaw:
    """A published flaw."""

    advisory: str  # its name under SOURCE
    effect: str  # what it lets a guest do; ends a sentence
    fixed: tuple[Version, ...]  # the first release without it in each series that got a fix; later series never had it
    contained: bool  # whether it can't reach beyond the guest's own runner
    machines: tuple[str, ...] = ()  # kinds of machine that have it, as ``platform.machine()`` says; empty: all

    def is_in(self, version: Version, machine: str) -> bool:
        """Whether a release has it on a kind of machine."""
        if self.machines and machine not in self.machines:
            return False
        for fix in self.fixed:
            if fix[0] == version[0]:
                return version < fix
        return version < max(self.fixed)


FLAWS = (
    Flaw(
        "GHSA-32h6-97mm-8q3c",
        "a component can overwrite the native stack",
        fixed=((48, 0, 4), (49, 0, 2)),
        contained=False,
    ),
    Flaw(
        "GHSA-mghf-wjfp-p5xm",
        "a large br_table can jump to a wrong place",
        fixed=((36, 0, 19), (48, 0, 7), (49, 0, 4)),
        contained=False,
        machines=("aarch64", "arm64"),
    ),
    Flaw(
        "GHSA-6fr9-xmw9-5352",
        "a component can use memory that is not counted",
        fixed=((48, 0, 8), (49, 0, 5), (50, 0, 1)),
        contained=True,
    ),
    Flaw(
        "GHSA-43j2-gcp4-m22g",
        "a guest with garbage collection can abort its runner",
        fixed=((48, 0, 9), (49, 0, 6), (50, 0, 2)),
        contained=True,
    ),
    Flaw(
        "GHSA-5m8g-xhq4-4h93",
        "empty writes to a stream can fill a runner's memory",
        fixed=((48, 0, 9), (49, 0, 6), (50, 0, 2)),
        contained=True,
    ),
)
"""The latest flaws of each kind. Older ones are covered by the lower bound that minilambda has for wasmtime."""


def parse(text: str) -> Version:
    """A version as numbers; what follows the third is left out, and what is no version is the oldest of all."""
    found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    if found is None:
        return (0, 0, 0)
    major, minor, patch = (int(part or 0) for part in found.groups())
    return (major, minor, patch)


def inside(wheel: str) -> Version:
    """The release of wasmtime that the package of a version has in it."""
    version = parse(wheel)
    return CARRIES.get(version, version)


def flaws_of(version: Version, machine: str) -> list[Flaw]:
    """The known flaws that a release has on a kind of machine, those that reach furthest first."""
    return sorted((flaw for flaw in FLAWS if flaw.is_in(version, machine)), key=lambda flaw: flaw.contained)


def warn(wheel: str | None = None, machine: str | None = None) -> None:
    """Log what is known against the installed wasmtime: a warning where a guest could get out, else a remark."""
    version = inside(wheel or importlib.metadata.version("wasmtime"))
    for flaw in flaws_of(version, machine or platform.machine()):
        level = logging.INFO if flaw.contained else logging.WARNING
        advice = "its runner's end is the end of it" if flaw.contained else "install a newer wasmtime"
        number = ".".join(map(str, version))
        text = "wasmtime %s has a known flaw, as of %s: %s; %s (%s/%s)"
        log.log(level, text, number, AS_OF, flaw.effect, advice, SOURCE, flaw.advisory)
