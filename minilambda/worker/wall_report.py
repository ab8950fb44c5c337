"""What the agent makes of a runner's report of its walls, before the runner gets anything to do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from minilambda.errors import MinilambdaError
from minilambda.worker import cgroups, walls

log = logging.getLogger("minilambda.worker")


_NO_WALL = "a wall around guests can't be raised here: %s"


class WallReport:
    """Says which walls are absent, once; ``tell`` gets the same in a few words, each time."""

    def __init__(self, required: bool, tell: Callable[[str], None]) -> None:
        self.required = required  # a runner that lacks one ends the worker
        self._tell = tell
        self._said: set[str] = set()  # lines that were logged

    def note(self, lines: Iterable[str], own: Iterable[str] = ()) -> None:
        """Take a report in, and the agent's ``own`` lines, of what is never required.

        Raises MinilambdaError where a wall is absent that is required.
        """
        lines = tuple(lines)
        missing = walls.lacked(lines)
        if missing and self.required:
            raise MinilambdaError(walls.lacking(missing))
        lines = (*own, *lines)
        for line in walls.absent(lines):
            if line not in self._said:
                self._said.add(line)
                text = "jobs with files can't run here, %s" if line.startswith(walls.MOUNTING) else _NO_WALL
                log.warning(text, _with_remedy(line.replace(" absent", "", 1)))
        self._tell(walls.in_short(lines))


def _with_remedy(said: str) -> str:
    return f"{said}; to have it, {cgroups.REMEDY}" if f": {cgroups.NOT_DELEGATED}" in said else said
