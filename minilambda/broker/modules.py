"""What the broker knows of the modules in its store. The bytes themselves are the shell's.

Files of jobs are kept in the same way and called modules here: bytes by their hash, of which nobody looks inside.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from minilambda.broker.events import DropModule, DropUpload, KeepUpload, StoreAction, StoreModule, WritePiece
from minilambda.broker.jobs import InvariantError
from minilambda.errors import BadRequest, Busy, QuotaExceeded

OVERHEAD = 4096
"""Counted for each module beside its bytes, so that tiny ones are bounded too."""

MAX_UPLOADS = 64
"""Uploads of one principal under way at a time, at most."""

UPLOAD_IDLE = 60.0
"""An upload that gets no piece for so long is dropped, seconds."""


@dataclass(slots=True, eq=False)
class Module:
    """A module in the store."""

    digest: str
    size: int  # bytes
    used_at: float  # last use, monotonic seconds
    principals: set[str] = field(default_factory=set)  # that have sent its bytes
    saved: set[str] = field(default_factory=set)  # those of them that the journal knows
    jobs: int = 0  # unfinished jobs and versions of functions that need it
    pins: int = 0  # those of them that are versions of functions


@dataclass(slots=True, eq=False)
class Upload:
    """A module that arrives in pieces."""

    number: int  # what the shell knows it by
    principal: str
    digest: str
    size: int  # of the whole, bytes
    touched_at: float  # last piece, monotonic seconds
    received: int = 0  # bytes, in order from the start
    hasher: hashlib._Hash = field(default_factory=hashlib.sha256)  # of what was received


class ModuleStore:
    """Modules by digest, bounded in bytes: the least recently used goes first, but never one that a job needs.

    Methods append what the shell must do to ``actions`` and the digests of dropped modules to ``dropped``.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes
        self._needed: dict[str, Module] = {}  # unfinished jobs need these
        self._idle: OrderedDict[str, Module] = OrderedDict()  # least recently used first
        self._owned: dict[str, dict[str, None]] = {}  # principal to the digests that it may use
        self._uploads: OrderedDict[tuple[str, str], Upload] = OrderedDict()  # least recently touched first
        self._counts: dict[str, int] = {}  # principal to its uploads under way
        self._numbers = 0  # uploads begun so far
        self.bytes = 0  # of all modules and uploads
        self.pinned = 0  # of the modules that functions need, bytes
        self.soonest = inf  # no upload is dropped earlier, seconds: the oldest may have got a piece since
        self.actions: list[StoreAction] = []  # for the shell
        self.dropped: list[str] = []  # digests, for the scheduler

    def find(self, principal: str | None, digest: str) -> Module | None:
        """The module, if it is here and the principal has sent its bytes, or anybody has where none is named."""
        module = self._needed.get(digest) or self._idle.get(digest)
        return module if module is not None and (principal is None or principal in module.principals) else None

    def owned(self, principal: str) -> dict[str, None]:
        """Digests of the modules that a principal may use."""
        return self._owned.get(principal, {})

    def acquire(self, module: Module, now: float) -> None:
        """An accepted job needs the module."""
        module.jobs += 1
        module.used_at = now
        if module.jobs == 1:
            del self._idle[module.digest]
            self._needed[module.digest] = module

    def restore(self, principal: str, digest: str, size: int, now: float) -> None:
        """An earlier broker has kept the module for the principal."""
        self._own(principal, digest, size, now).saved.add(principal)

    def trim(self) -> None:
        """Drop idle modules until those that are left fit."""
        while self.bytes > self._limit and self._idle:
            self._drop_idle()

    def unsaved(self, digest: str) -> None:
        """The module could not be kept beyond the life of this broker."""
        module = self._needed.get(digest) or self._idle.get(digest)
        if module is not None:
            module.saved.clear()

    def needed(self, digest: str) -> Module:
        """A module that an unfinished job needs."""
        return self._needed[digest]

    @property
    def count(self) -> int:
        """Modules in the store."""
        return len(self._needed) + len(self._idle)

    def all(self) -> list[Module]:
        """Every module, those first that jobs need."""
        return [*self._needed.values(), *reversed(self._idle.values())]

    def size(self, digest: str) -> int:
        """Bytes of a module that a job needs."""
        return self._needed[digest].size

    def needs(self) -> dict[str, int]:
        """Digests to the number of unfinished jobs that need them."""
        return {digest: module.jobs for digest, module in self._needed.items()}

    def release(self, digest: str, now: float) -> None:
        """A job that needed the module has ended."""
        module = self._needed[digest]
        module.jobs -= 1
        module.used_at = now
        if not module.jobs:
            del self._needed[digest]
            self._idle[digest] = module

    def check_pins(self, modules: Iterable[Module]) -> None:
        """Raise ``QuotaExceeded`` where functions would need more than half of the store with these."""
        fresh = {module.digest: module.size for module in modules if not module.pins}
        if self.pinned + sum(fresh.values()) > self._limit // 2:
            raise QuotaExceeded(f"Functions may need half of the broker's store, and need {self.pinned} bytes of it.")

    def pin(self, module: Module, now: float) -> None:
        """A version of a function needs the module."""
        if not module.pins:
            self.pinned += module.size
        module.pins += 1
        self.acquire(module, now)

    def unpin(self, digest: str, now: float) -> None:
        """A version of a function that needed the module is gone."""
        module = self._needed[digest]
        module.pins -= 1
        if not module.pins:
            self.pinned -= module.size
        self.release(digest, now)

    def release_all(self, digests: Iterable[str], now: float) -> None:
        """The same for each of several."""
        for digest in digests:
            self.release(digest, now)

    def add(self, principal: str, digest: str, data: bytes, now: float) -> Module:
        """Store a whole module. Raises ``BadRequest`` when the bytes are others, ``Busy`` when there is no room."""
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise BadRequest("The module's bytes do not have the hash that the request names.")
        known = self._needed.get(digest) or self._idle.get(digest)
        if known is None:
            self._make_room(len(data) + OVERHEAD)
            self.actions.append(StoreModule(digest, data))
        return self._own(principal, digest, len(data), now)

    def upload(self, principal: str, digest: str, size: int) -> Upload | None:
        """The upload under way, if there is one of this size."""
        upload = self._uploads.get((principal, digest))
        return upload if upload is not None and upload.size == size else None

    def write(self, principal: str, digest: str, size: int, data: bytes, now: float) -> tuple[int, bool]:
        """Append a piece to the principal's upload, beginning one where there is none; returns (received, complete).

        Raises ``BadRequest`` when the bytes are too many or have another hash, ``Busy`` when there is no room.
        """
        upload = self.upload(principal, digest, size) or self._begin(principal, digest, size, now)
        if upload.received + len(data) > size:
            raise BadRequest(f"The piece ends behind the module's {size} bytes.")
        self._make_room(len(data))
        upload.hasher.update(data)
        upload.received += len(data)
        upload.touched_at = now
        self._uploads.move_to_end((principal, digest))
        self.bytes += len(data)
        self.actions.append(WritePiece(upload.number, data))
        if upload.received < size:
            return upload.received, False
        return self._complete(upload, now)

    def expire(self, now: float) -> None:
        """Drop the uploads that get no more pieces."""
        while (due := self.next()) is not None and due <= now:
            self._abandon(next(iter(self._uploads.values())))
        self.soonest = inf if due is None else due

    def next(self) -> float | None:
        """When the oldest upload is dropped, seconds; None without any."""
        for upload in self._uploads.values():
            return upload.touched_at + UPLOAD_IDLE
        return None

    def _begin(self, principal: str, digest: str, size: int, now: float) -> Upload:
        stale = self._uploads.get((principal, digest))
        if stale is not None:
            self._abandon(stale)
        if self._counts.get(principal, 0) >= MAX_UPLOADS:
            raise Busy(f"At most {MAX_UPLOADS} modules can be uploaded at a time.")
        self._make_room(OVERHEAD)
        self._numbers += 1
        upload = Upload(self._numbers, principal, digest, size, now)
        self.soonest = min(self.soonest, now + UPLOAD_IDLE)
        self._uploads[principal, digest] = upload
        self._counts[principal] = self._counts.get(principal, 0) + 1
        self.bytes += OVERHEAD
        return upload

    def _complete(self, upload: Upload, now: float) -> tuple[int, bool]:
        if "sha256:" + upload.hasher.hexdigest() != upload.digest:
            self._abandon(upload)
            raise BadRequest("The module's bytes do not have the hash that the request names.")
        if upload.digest in self._needed or upload.digest in self._idle:
            self._abandon(upload)
        else:
            self._forget(upload)
            self.actions.append(KeepUpload(upload.number, upload.digest))
        self._own(upload.principal, upload.digest, upload.size, now)
        return upload.size, True

    def _own(self, principal: str, digest: str, size: int, now: float) -> Module:
        module = self._needed.get(digest) or self._idle.get(digest)
        if module is None:
            module = self._idle[digest] = Module(digest, size, now)
            self.bytes += size + OVERHEAD
        module.principals.add(principal)
        self._owned.setdefault(principal, {})[digest] = None
        return module

    def _abandon(self, upload: Upload) -> None:
        self._forget(upload)
        self.actions.append(DropUpload(upload.number))

    def _forget(self, upload: Upload) -> None:
        del self._uploads[upload.principal, upload.digest]
        self.bytes -= upload.received + OVERHEAD
        self._counts[upload.principal] -= 1
        if not self._counts[upload.principal]:
            del self._counts[upload.principal]

    def _make_room(self, size: int) -> None:
        """Drop idle modules until ``size`` bytes fit. Raises ``Busy`` when they can't."""
        while self.bytes + size > self._limit:
            if not self._idle:
                raise Busy("The module store is full of modules that unfinished jobs need.")
            self._drop_idle()

    def make_room_of(self, principal: str, most: int, now: float) -> bool:
        """Let go of a principal's idle modules until all of its own have at most so many bytes; False where they can't.

        The least recently used go first. A module that others have sent too stays theirs.
        """
        owned = [self._needed.get(digest) or self._idle[digest] for digest in self._owned.get(principal, ())]
        held = sum(module.size for module in owned)
        held += sum(upload.size for upload in self._uploads.values() if upload.principal == principal)
        for module in sorted(owned, key=lambda module: module.used_at):
            if held <= most:
                break
            if not module.jobs:
                held -= module.size
                self._disown(principal, module)
        return held <= most

    def _disown(self, principal: str, module: Module) -> None:
        if module.principals == {principal}:
            self._idle.move_to_end(module.digest, last=False)
            self._drop_idle()
            return
        module.principals.discard(principal)
        module.saved.discard(principal)
        del self._owned[principal][module.digest]
        if not self._owned[principal]:
            del self._owned[principal]

    def _drop_idle(self) -> None:
        digest, module = self._idle.popitem(last=False)
        self.bytes -= module.size + OVERHEAD
        for principal in module.principals:
            del self._owned[principal][digest]
            if not self._owned[principal]:
                del self._owned[principal]
        self.actions.append(DropModule(digest))
        self.dropped.append(digest)

    def check(self) -> None:
        """Raise ``InvariantError`` where the counts disagree."""
        modules = [*self._needed.values(), *self._idle.values()]
        total = sum(module.size + OVERHEAD for module in modules)
        total += sum(upload.received + OVERHEAD for upload in self._uploads.values())
        if total != self.bytes or total > self._limit:
            raise InvariantError(f"the module store counts {self.bytes} bytes and has {total} of {self._limit}")
        if any(not module.jobs for module in self._needed.values()) or any(m.jobs for m in self._idle.values()):
            raise InvariantError("the module store counts jobs wrongly")
        if sum(module.size for module in modules if module.pins) != self.pinned:
            raise InvariantError("the module store counts the bytes that functions need wrongly")
        owned = {(principal, digest) for principal, digests in self._owned.items() for digest in digests}
        if owned != {(principal, module.digest) for module in modules for principal in module.principals}:
            raise InvariantError("the module store and its owners disagree")
