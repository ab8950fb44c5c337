"""The made-up disk of a worker's files: what its shell would have, and refuse."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field

from minilambda.paths import NOTHING
from minilambda.worker import actions as a


@dataclass
class FileDisk:
    """Files by digest, pieces on their way, trees by name."""

    whole: dict[str, bytes] = field(default_factory=dict)
    coming: dict[str, bytes] = field(default_factory=dict)
    trees: dict[str, a.BuildTree] = field(default_factory=dict)
    looks: deque[a.FindFiles] = field(default_factory=deque)  # without an answer
    broken: str = ""  # why nothing can be written
    vanishing: set[str] = field(default_factory=set)  # digests that are gone by the time that a tree is made

    def do(self, action: a.Action) -> a.Event | None:
        """What the shell does, and answers at once."""
        if isinstance(action, a.FindFiles):
            assert action.digests and len(set(action.digests)) == len(action.digests)
            self.looks.append(action)
        elif isinstance(action, a.KeepFile):
            kept = self.coming.get(action.digest, b"")
            assert action.offset == len(kept), "a piece out of order"
            self.coming[action.digest] = kept + action.data
        elif isinstance(action, a.DropFile):
            self.coming.pop(action.digest, None)
        elif isinstance(action, a.StoreFile):
            return self._store(action)
        elif isinstance(action, a.BuildTree):
            return self._build(action)
        elif isinstance(action, a.DropTree):
            del self.trees[action.key]
        return None

    def look(self) -> a.FilesSeen:
        """The answer to the oldest look."""
        digests = self.looks.popleft().digests
        found = {digest: len(self.whole[digest]) for digest in digests if digest in self.whole}
        return a.FilesSeen(found, tuple(digest for digest in digests if digest not in found))

    def _store(self, action: a.StoreFile) -> a.FilesSeen | a.FileLost:
        data = self.coming.pop(action.digest)
        assert len(data) == action.size and action.digest == "sha256:" + hashlib.sha256(data).hexdigest()
        if self.broken:
            return a.FileLost(action.digest, self.broken)
        self.whole[action.digest] = data
        return a.FilesSeen({action.digest: action.size})

    def _build(self, action: a.BuildTree) -> a.TreeBuilt | a.TreeFailed:
        assert action.key not in self.trees
        for digest in self.vanishing:
            self.whole.pop(digest, None)
        self.vanishing.clear()
        gone = set(action.files.values()) - {NOTHING} - self.whole.keys()
        if gone:
            return a.TreeFailed(action.key, tuple(sorted(gone)), "they are gone")
        self.trees[action.key] = action
        return a.TreeBuilt(action.key)
