"""The file with the list of keys: read by the broker, changed by commands, watched in between."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from minilambda.broker.authority import Authority, parse_authority
from minilambda.keyfiles import change_guarded, read_guarded, stamp_of
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
    change_guarded(path, lambda text: how(parse_authority(text, str(path))).text())


class Watch:
    """Reads the file again whenever it has changed. Raises ``BadKey`` at first, and never later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = stamp_of(path)
        self.authority = read(path)

    def changed(self) -> Authority | None:
        """The list, if it is another than before. One that can't be read changes nothing; the log says why."""
        stamp = stamp_of(self._path)
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            self.authority = read(self._path)
        except BadKey as error:
            log.error("the keys stay as they were: %s", error)
            return None
        return self.authority
