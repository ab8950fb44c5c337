"""The files that a worker's jobs need: from paths and digests to a tree on disk. Pure.

Jobs that name the same files at the same paths share a tree: nobody can change it. The files of a new one are looked
for on disk, and fetched where they are not there; then the shell makes the tree of them. It is kept for a while after
its last job, so the next one of the kind finds all in place.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from minilambda.errors import UnsupportedFeature
from minilambda.messages import JobRef, JobSpec
from minilambda.paths import NOTHING as EMPTY
from minilambda.paths import refusal
from minilambda.settings import WorkerSettings
from minilambda.worker.actions import Action, BuildTree, DropFile, DropTree, FindFiles, KeepFile, StoreFile
from minilambda.worker.file_pulls import FilePulls
from minilambda.worker.jobs import Job
from minilambda.worker.module import Settled

WINDOW = 1 << 20
"""Bytes of files asked of the broker and not arrived."""

KEPT = 64
"""Trees that a worker keeps when no job needs them."""

TRIES = 3
"""A tree whose files vanish from the disk before it is made is tried so often."""

READY = "ready"


@dataclass(slots=True)
class Tree:
    """One set of files at their paths."""

    key: str  # names it, 64 hex digits
    files: dict[str, str]  # absolute path in the guest to digest
    scratch: bool  # whether it has an empty ``/tmp`` besides
    state: str = "fetching"  # "fetching", "building" or "ready"
    missing: set[str] = field(default_factory=set)  # digests of files that are not known to be on disk
    sizes: dict[str, int] = field(default_factory=dict)  # of the files that are on disk, by digest, bytes
    waiting: dict[JobRef, Job] = field(default_factory=dict)  # jobs that wait for it
    users: dict[JobRef, Job] = field(default_factory=dict)  # jobs that have it and have not ended
    tries: int = 0  # times that it could not be made since files had vanished

    @property
    def bytes(self) -> int:
        """What its files have together, those that are on disk, each once."""
        return sum(self.sizes.values())


class Trees:
    """All trees of a worker. ``emit`` takes the actions that follow from a call."""

    def __init__(self, settings: WorkerSettings, emit: Callable[[Action], None]) -> None:
        self._settings = settings
        self._emit = emit
        self.by_key: OrderedDict[str, Tree] = OrderedDict()  # least recently used first
        self.pulls = FilePulls(WINDOW)
        self.wanted: dict[str, list[Tree]] = {}  # digests of files that are looked for or fetched, and for which trees

    def problem(self, spec: JobSpec) -> str:
        """Why a job can't have here what it asks for, for people; "" where it can."""
        limit = self._settings.scratch_bytes
        if spec.scratch > limit:
            return f"The job asks for a scratch of {spec.scratch} bytes, and this worker gives at most {limit}."
        return refusal(spec.files, spec.scratch, spec.collect)

    def need(self, job: Job) -> list[Settled]:
        """A job needs its files: it has them, or waits for them."""
        key = job.tree
        tree = self.by_key.get(key)
        if tree is None:
            tree = self.by_key[key] = Tree(key, job.spec.files, job.spec.scratch > 0)
            tree.waiting[job.ref] = job
            return self._want(tree, set(tree.files.values()) - {EMPTY})
        self.by_key.move_to_end(key)
        if tree.state == READY:
            tree.users[job.ref] = job
            return [Settled((job,))]
        tree.waiting[job.ref] = job
        return []

    def release(self, job: Job) -> None:
        """A job needs its files no more; what is done for nobody is stopped."""
        tree = self.by_key.get(job.tree)
        if tree is None:
            return
        tree.users.pop(job.ref, None)
        tree.waiting.pop(job.ref, None)
        if tree.state == "fetching" and not tree.waiting:
            self._forget(tree)
        self._trim()

    # --- files ---

    def _want(self, tree: Tree, digests: set[str]) -> list[Settled]:
        tree.state, tree.missing = "fetching", set(digests)
        unknown = tuple(digest for digest in sorted(digests) if digest not in self.wanted)
        for digest in sorted(digests):  # the same order each time: a run of the core can be repeated
            self.wanted.setdefault(digest, []).append(tree)
        if unknown:
            self._emit(FindFiles(unknown))
        return self._proceed(tree)

    def seen(self, found: dict[str, int], absent: Iterable[str]) -> list[Settled]:
        """The disk has some files (their sizes, bytes), and does not have others."""
        for digest in absent:
            if digest in self.wanted:
                self.pulls.start(digest)
        settled: list[Settled] = []
        for digest, size in found.items():
            for tree in self.wanted.pop(digest, []):
                tree.missing.discard(digest)
                tree.sizes[digest] = size
                settled += self._proceed(tree)
        return settled

    def _proceed(self, tree: Tree) -> list[Settled]:
        """Have the tree made if all is there."""
        limit = self._settings.files_bytes
        if tree.bytes > limit:
            text = f"The job's files have more than the {limit} bytes that a job may have on this worker."
            return [self._fail(tree, UnsupportedFeature.code, text)]
        if not tree.missing and tree.state == "fetching":
            tree.state = "building"
            self._emit(BuildTree(tree.key, tree.files, tree.scratch))
        return []

    def lost(self, digest: str, why: str) -> list[Settled]:
        """A file can't be had, or not be kept."""
        self.pulls.stop(digest)
        return [self._fail(tree, "internal", why) for tree in list(self.wanted.get(digest, ()))]

    def expects(self, digest: str, offset: int, size: int) -> bool:
        """Whether a file's next piece is like that: the same bytes may be on their way as a module."""
        pull = self.pulls.pulls.get(digest)
        return pull is not None and pull.received == offset < pull.asked and size <= pull.asked - offset

    def arrived(self, digest: str, offset: int, total: int, data: bytes) -> list[Settled]:
        """A piece of a file's bytes from the broker."""
        pull = self.pulls.arrived(digest, offset, total, data)
        if pull is None:
            return []
        if pull.total < 0:
            return self.lost(digest, f"The broker no longer has the file {digest}.")
        if pull.total > self._settings.files_bytes:
            return self._too_large(digest)
        if pull.complete and "sha256:" + pull.hasher.hexdigest() != digest:
            return self.lost(digest, f"The bytes of the file {digest} do not have the hash that names them.")
        self._emit(KeepFile(digest, offset, data))
        if pull.complete:
            self._emit(StoreFile(digest, total))
        return []

    def _too_large(self, digest: str) -> list[Settled]:
        limit = self._settings.files_bytes
        text = f"The file {digest} has more than the {limit} bytes that a job's files may have on this worker."
        self.pulls.stop(digest)
        return [self._fail(tree, UnsupportedFeature.code, text) for tree in list(self.wanted.get(digest, ()))]

    # --- trees ---

    def built(self, key: str) -> list[Settled]:
        """The tree is there."""
        tree = self.by_key[key]
        tree.state = READY
        jobs = tuple(tree.waiting.values())
        tree.users.update(tree.waiting)
        tree.waiting.clear()
        self._trim()
        return [Settled(jobs)]

    def unbuilt(self, key: str, vanished: tuple[str, ...], why: str) -> list[Settled]:
        """The tree could not be made: files are gone meanwhile, or the disk fails."""
        tree = self.by_key[key]
        tree.tries += 1
        tree.state = "fetching"
        if not tree.waiting:
            self._forget(tree)
            return []
        if not vanished or tree.tries >= TRIES:
            return [self._fail(tree, "internal", f"The job's files can't be put in their places: {why}.")]
        for digest in vanished:
            tree.sizes.pop(digest, None)
        return self._want(tree, set(vanished))

    def _fail(self, tree: Tree, code: str, message: str) -> Settled:
        jobs = tuple(tree.waiting.values())
        tree.waiting.clear()
        self._forget(tree)
        return Settled(jobs, code, message)

    def _forget(self, tree: Tree) -> None:
        for digest in sorted(tree.missing):
            trees = self.wanted.get(digest, [])
            if tree in trees:
                trees.remove(tree)
            if not trees and self.wanted.pop(digest, None) is not None:
                self.pulls.stop(digest)
                self._emit(DropFile(digest))
        del self.by_key[tree.key]

    def _trim(self) -> None:
        """Drop the oldest trees that nobody uses: they hold files that the disk could do without."""
        unused = [tree for tree in self.by_key.values() if tree.state == READY and not tree.users]
        room = self._settings.cache_bytes // 4
        kept = sum(tree.bytes for tree in unused)
        for tree in unused:
            if len(unused) <= KEPT and kept <= room:
                return
            unused = unused[1:]
            kept -= tree.bytes
            self._emit(DropTree(tree.key))
            del self.by_key[tree.key]


def key_of(spec: JobSpec) -> str:
    """The name of the tree that a job needs."""
    mark = hashlib.sha256(b"scratch" if spec.scratch else b"")
    for path, digest in sorted(spec.files.items()):
        mark.update(f"\0{path}\0{digest}".encode())
    return mark.hexdigest()
