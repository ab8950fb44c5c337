"""Which paths can stand together in one job. Each by itself is a path already: see ``fields.is_guest_path``."""

from __future__ import annotations

from collections.abc import Iterable

SCRATCH = "/tmp"
"""The one folder of a guest that can be written, where the job asks for one."""

NOTHING = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""The digest of no bytes: everybody has them, so they are never stored and never travel."""


def refusal(files: Iterable[str], scratch: int, collect: Iterable[str]) -> str:
    """Why a job can't have files at these paths, or can't have these collected, for people; "" where it can."""
    before = None
    for path in sorted(files, key=_folders_first):
        if before is not None and path.startswith(before + "/"):
            return f"{before!r} can't be a file and the folder of {path!r}."
        if scratch and below_scratch(path):
            return f"{path!r} can't be a file: {SCRATCH} is the guest's own folder where there is a scratch."
        before = path
    for path in collect:
        if not below_scratch(path):
            return f"{path!r} can't be collected: only what is in {SCRATCH} can."
        if not scratch:
            return f"{path!r} can't be collected without a scratch: there is nothing that the guest can write to."
    return ""


def below_scratch(path: str) -> bool:
    """Whether the path is ``SCRATCH`` or in it."""
    return path == SCRATCH or path.startswith(SCRATCH + "/")


def _folders_first(path: str) -> str:
    """A key by which what is in a folder comes right behind it."""
    return path.replace("/", "\0")
