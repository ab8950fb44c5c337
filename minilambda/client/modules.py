"""Modules as the client has them: named by the hash of their bytes, read when the broker lacks them."""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from stat import S_ISREG
from typing import Union, cast

from minilambda.errors import MinilambdaError, ModuleTooLarge
from minilambda.notation import MIB

_PIECE = 1024 * 1024
_KEPT = 64  # files and byte strings whose hashes are remembered
_KEPT_BYTES = 1024 * 1024  # a larger byte string is hashed at each call and not held

_UNASKED = 256 * MIB  # a larger file is read only where it is allowed, bytes
_UNASKED_STREAM = 16 * MIB  # the same for what is held in memory, bytes

Allowed = Callable[[], float]
"""The largest module that may be sent, bytes; asked for where it matters."""

_Stat = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Module:
    """A handle of a module: cheap to pass around, and good for every call of every client."""

    digest: str  # "sha256:" and 64 hex digits
    size: int | None = None  # bytes; None: only the hash is known here
    path: str | None = None  # the file that holds the bytes
    stat: _Stat | None = None  # what the file was when it was hashed
    data: bytes | None = None  # the bytes, where they did not come from a file

    def __repr__(self) -> str:
        return f"<Module {self.digest[:19]}… {self.path or ''}>"

    def read(self, offset: int, size: int) -> bytes:
        """A piece of the bytes. Raises ``OSError``, and ``MinilambdaError`` where the file is no longer the same."""
        if self.data is not None:
            return self.data[offset : offset + size]
        if self.path is None:
            raise MinilambdaError(f"The bytes of {self.digest} are not at hand.")
        with open(self.path, "rb") as file:
            file.seek(offset)
            piece = file.read(size)
            if len(piece) != size or _identity(os.fstat(file.fileno())) != self.stat:
                raise MinilambdaError(f"{self.path} changed while it was being sent.")
        return piece


ModuleLike = Union[str, "os.PathLike[str]", bytes, Module]
"""What a call takes for a module: a path, the bytes, ``"sha256:…"``, or a handle."""


class Modules:
    """Turns what a caller names into handles, hashing each file once as long as it stays the same."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept  # files whose hashes are remembered
        self._files: OrderedDict[str, Module] = OrderedDict()  # by path, least recently used first
        self._bytes: OrderedDict[bytes, Module] = OrderedDict()

    def find(self, module: ModuleLike, allowed: Allowed = lambda: inf) -> Module:
        """The handle of ``module``. Raises ``OSError`` for a file that can't be read, and ``ModuleTooLarge``."""
        found = self.known(module)
        steps = self.reading(module, allowed) if found is None else iter(())
        while found is None:
            found = next(steps)
        return found

    def known(self, module: ModuleLike) -> Module | None:
        """The handle of ``module``, unless it is a file that has to be read. Raises ``OSError`` as ``find``."""
        if isinstance(module, Module):
            return module
        if isinstance(module, (bytes, bytearray, memoryview)):
            return self._from_bytes(bytes(module))
        name = module if type(module) is str else os.fsdecode(module)
        found = self._files.get(name)
        if found is None and re.fullmatch("sha256:[0-9a-f]{64}", name):
            return Module(name)
        return found if found is not None and found.stat == _identity(os.stat(name)) else None

    def reading(self, module: ModuleLike, allowed: Allowed) -> Iterator[Module | None]:
        """Read a file in steps; the last one gives its handle. Raises as ``find`` does."""
        name = os.fsdecode(cast("os.PathLike[str]", module))
        for found in _read_file(name, allowed):
            if found is not None and found.stat is not None:
                _remember(self._files, name, found, self._kept)
            yield found

    def _from_bytes(self, data: bytes) -> Module:
        found = self._bytes.get(data)  # the same object is found by identity, its hash being kept in it
        if found is None:
            found = Module("sha256:" + hashlib.sha256(data).hexdigest(), len(data), data=data)
            if len(data) <= _KEPT_BYTES:
                _remember(self._bytes, data, found, _KEPT)
        return found


def _read_file(path: str, allowed: Allowed) -> Iterator[Module | None]:
    """Read a file once, in steps; the last one gives its handle.

    The bytes of what can't be read again, such as a pipe, are in it.
    """
    digest, size, kept = hashlib.sha256(), 0, bytearray()
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        regular = S_ISREG(found.st_mode)
        limit: float = _UNASKED if regular else _UNASKED_STREAM
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            if max(size, found.st_size) > limit:
                limit = allowed()
                if max(size, found.st_size) > limit:
                    raise ModuleTooLarge(f"{path} has more than the {limit:.0f} bytes that the broker takes.")
            if not regular:
                kept += piece
            yield None
    name = "sha256:" + digest.hexdigest()
    if regular:
        yield Module(name, size, path, _identity(found))
    else:
        yield Module(name, size, data=bytes(kept))


def _identity(stat: os.stat_result) -> _Stat:
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _remember(
    kept: OrderedDict[str, Module] | OrderedDict[bytes, Module], key: object, module: Module, most: int
) -> None:
    kept[key] = module  # type: ignore[index]
    while len(kept) > most:
        kept.popitem(last=False)
