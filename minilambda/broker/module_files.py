"""Where a broker with a state directory keeps the bytes of modules: a file each, named by its hash.

The loop writes the files, the journal's thread syncs those that must outlive the broker. What the disk refuses stays in
memory, so that it can run at least.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from minilambda.broker.events import DropModule, DropUpload, KeepUpload, StoreAction, StoreModule, WritePiece
from minilambda.broker.journal import sync_folder

log = logging.getLogger(__name__)


class ModuleFiles:
    """Modules by digest, and uploads by number until they are modules."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._memory: dict[str, bytes | bytearray] = {}  # file name to what the disk refused, whole

    def known(self) -> dict[str, int]:
        """The digests of the modules that are here, and their sizes in bytes."""
        return {f"sha256:{path.name}": path.stat().st_size for path in self._folder.iterdir()}

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove what an earlier broker has left and does not matter."""
        names = {_name(digest) for digest in digests}
        for path in self._folder.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)

    def do(self, action: StoreAction) -> None:
        """Carry out an action of the core."""
        if isinstance(action, StoreModule):
            self._write(_name(action.digest), action.data, new=True)
        elif isinstance(action, WritePiece):
            self._write(_upload(action.upload), action.data)
        elif isinstance(action, KeepUpload):
            self._rename(_upload(action.upload), _name(action.digest))
        elif isinstance(action, DropUpload):
            self._drop(_upload(action.upload))
        elif isinstance(action, DropModule):
            self._drop(_name(action.digest))

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """A piece of a module. Raises ``OSError`` when it can't be read."""
        held = self._memory.get(_name(digest))
        if held is not None:
            return bytes(held[offset : offset + size])
        with (self._folder / _name(digest)).open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
        if len(data) != size:
            raise OSError("a piece of a module is missing from its file")
        return data

    def save(self, digest: str) -> None:
        """Make sure that a module outlives a power loss. From any thread; raises ``OSError``."""
        name = _name(digest)
        path, held = self._folder / name, self._memory.get(name)
        if held is not None:
            path.write_bytes(held)
        try:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        except FileNotFoundError:
            return  # dropped meanwhile: a later record says so
        sync_folder(self._folder)

    def close(self) -> None:
        """Remove the uploads that were not finished."""
        self._memory.clear()
        with contextlib.suppress(OSError):
            for path in self._folder.glob("upload-*"):
                path.unlink(missing_ok=True)

    def _write(self, name: str, data: bytes, new: bool = False) -> None:
        held = self._memory.get(name)
        if held is not None:
            self._memory[name] = bytearray(held) + data
            return
        path = self._folder / name
        size = 0
        try:
            with path.open("wb" if new else "ab", buffering=0) as file:
                size = file.tell()
                if file.write(data) == len(data):
                    return
        except OSError as error:
            log.warning("a module stays in memory, the disk refuses it: %s", error)
        before = path.read_bytes()[:size] if size else b""
        self._memory[name] = before + data
        path.unlink(missing_ok=True)

    def _rename(self, old: str, new: str) -> None:
        if old in self._memory:
            self._memory[new] = self._memory.pop(old)
        else:
            (self._folder / old).rename(self._folder / new)

    def _drop(self, name: str) -> None:
        self._memory.pop(name, None)
        (self._folder / name).unlink(missing_ok=True)


def _name(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _upload(number: int) -> str:
    return f"upload-{number}"
