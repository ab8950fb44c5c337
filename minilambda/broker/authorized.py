"""The file with the list of keys: read by the broker, changed by commands, watched in between."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from minilambda.broker.authority import Authority, parse_authority
from minilambda.keyfiles import locked, read_guarded, replace_guarded
from minilambda.keys import BadKey

FILE = "authorized-keys"
"""Name of the file in its directory."""

LOOK_EVERY = 0.5
"""How often a broker looks whether the file has changed, seconds."""

log = logging.getLogger(__name__)


def read(path: Path) -> Authority:
    """The list in a file; an empty one where there is no file. Raises ``BadKey``."""
    return parse_authority(read_guarded(path) or "", str(path))


def change(path: Path, how: Callable[[Authority], Authority]) -> None:
    """Put a changed list in the place of the file's, all at once. Raises ``BadKey``."""
    try:
        with locked(path.parent):
            replace_guarded(path, how(read(path)).text())
    except OSError as error:
        raise BadKey(f"{error.filename or path}: {error.strerror}.") from None


class Watch:
    """Reads the file again whenever it has changed. Raises ``BadKey`` at first, and never later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _stamp(path)
        self.authority = read(path)

    def changed(self) -> Authority | None:
        """The list, if it is another than before. One that can't be read changes nothing; the log says why."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            self.authority = read(self._path)
        except BadKey as error:
            log.error("the keys stay as they were: %s", error)
            return None
        return self.authority


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode, found.st_uid)
