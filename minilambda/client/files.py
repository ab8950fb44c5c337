"""The files that go with a job: what a caller names on the host becomes paths in the guest and handles of the bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Union, cast

from minilambda.client.modules import Module, Modules
from minilambda.client.uploads import Placed
from minilambda.fields import MAX_FILES, MAX_NAME, MAX_PATH, is_guest_path

if TYPE_CHECKING:
    from minilambda.client.spec import RunOptions

FileLike = Union[str, "os.PathLike[str]", bytes, Module]
"""What a caller names as the content of a file: a path on the host, the bytes, or a handle."""

DirLike = Union[str, "os.PathLike[str]"]
"""What a caller names as a folder: a path on the host."""

_MAX_ENTRIES = 10 * MAX_FILES
"""Names that are looked at in one folder and all below it, at most."""

_Identity = tuple[int, int]


class Files:
    """Finds the files of jobs, and hashes each once as long as it stays the same."""

    def __init__(self) -> None:
        self._modules = Modules(kept=2 * MAX_FILES)

    def ready(self, options: RunOptions) -> RunOptions:
        """The options with their ``files`` and ``dirs`` found and hashed, which may take long; as it is where they are.

        Raises ``OSError`` for what can't be read, ``ValueError`` for what can't be a file of a job.
        """
        found: dict[str, Any] = {}
        for name, find in (("files", self._files), ("dirs", self._dirs)):
            given: Any = options.get(name)
            if given is not None and type(given) is not Placed:
                found[name] = find(given)
        return cast("RunOptions", {**options, **found}) if found else options

    def _files(self, files: Mapping[str, FileLike]) -> Placed:
        placed = Placed()
        for path, content in files.items():
            check_path(path)
            placed.put(path, self._find(content))
        return placed

    def _dirs(self, dirs: Mapping[str, DirLike]) -> Placed:
        placed = Placed()
        for path, folder in dirs.items():
            base = "" if path == "/" else path.rstrip("/") if type(path) is str else path
            if base:
                check_path(base)
            for below, name in _walk(os.fsdecode(folder), base):
                if below in placed:
                    raise ValueError(f"{below!r} comes from two of the folders.")
                if len(placed) == MAX_FILES:
                    raise ValueError(f"{os.fsdecode(folder)} has more than the {MAX_FILES} files that a job can have.")
                placed.put(below, self._modules.find(name))
        return placed

    def _find(self, content: FileLike) -> Module:
        if not isinstance(content, (bytes, bytearray, memoryview, Module)):
            name = os.fsdecode(content)
            mode = os.stat(name).st_mode if not name.startswith("sha256:") or os.path.exists(name) else stat.S_IFREG
            if stat.S_ISDIR(mode):
                raise ValueError(f"{name} is a folder, not a file; a folder belongs into dirs.")
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise ValueError(f"{name} is neither a file nor a pipe.")
        return self._modules.find(content)


def together(files: Mapping[str, Any] | None, dirs: Mapping[str, Any] | None) -> Placed:
    """All files of a job; one that is named goes over one of a folder. Takes what ``Files.ready`` has made."""
    placed = Placed()
    for part in (dirs, files):
        if part is None:
            continue
        if type(part) is not Placed:
            raise TypeError("files and dirs must be maps of paths in the guest, made ready.")
        placed.update(part)
        placed.sources.update(part.sources)
    if len(placed) > MAX_FILES:
        raise ValueError(f"A job can have {MAX_FILES} files, not {len(placed)}.")
    return placed


def check_path(path: object) -> None:
    """Raise ``ValueError`` for what can't be a path in a guest."""
    if not is_guest_path(path):
        rule = f"it must begin with /, without . and .. and odd characters, of at most {MAX_PATH} characters"
        raise ValueError(f"{path!r} can't be a path in the guest: {rule}, {MAX_NAME} bytes a name.")


def _walk(folder: str, base: str) -> Iterator[tuple[str, str]]:
    """The regular files in a folder and below it, in the order of their names: path in the guest, path on the host.

    A link is followed where it stays in the folder. Raises ``ValueError`` for one that does not, and for anything that
    is neither a file nor a folder: what is left out in silence is missed in the guest.
    """
    root = os.path.realpath(folder)
    looked_at = 0

    def enter(place: str, guest: str, above: tuple[_Identity, ...]) -> Iterator[tuple[str, str]]:
        nonlocal looked_at
        with os.scandir(place) as entries:
            names = sorted(os.fsencode(entry.name) for entry in islice(entries, _MAX_ENTRIES + 1 - looked_at))
        looked_at += len(names)
        if looked_at > _MAX_ENTRIES:
            raise ValueError(f"{folder} has more than {_MAX_ENTRIES} names in it.")
        for name in map(os.fsdecode, names):
            path, below = os.path.join(place, name), f"{guest}/{name}"
            real = os.path.realpath(path) if os.path.islink(path) else path
            if real != path and not real.startswith(root.rstrip("/") + "/") and real != root:
                raise ValueError(f"{path} is a link that leads out of {folder}.")
            check_path(below)
            found = os.stat(real, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode):
                yield below, real
            elif not stat.S_ISDIR(found.st_mode):
                raise ValueError(f"{path} is neither a file nor a folder.")
            elif (identity := (found.st_dev, found.st_ino)) in above:
                raise ValueError(f"{path} is a link to a folder that it is in itself.")
            else:
                yield from enter(real, below, (*above, identity))

    start = os.stat(root)
    yield from enter(root, base, ((start.st_dev, start.st_ino),))
