"""All that the broker's shell keeps outside of its memory: the journal and the modules, or the modules alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from minilambda.broker.events import Event, Persist, StoreAction
from minilambda.broker.journal import Journal, SqliteJournal, StateDirectory
from minilambda.broker.module_files import ModuleFiles
from minilambda.broker.records import Recovered
from minilambda.broker.spool import Spool

log = logging.getLogger(__name__)


class Storage:
    """Where the core's actions on stored things go. Without a folder nothing outlives the process.

    ``wake`` is called, from another thread, when there are ``events``. Raises ``JournalRefused`` when the folder can't
    be used.
    """

    def __init__(self, folder: Path | None, wake: Callable[[], None]) -> None:
        self._state: StateDirectory | None = None
        self._journal: Journal | None = None
        self._modules: ModuleFiles | Spool
        if folder is None:
            self._modules = Spool()
            return
        self._state = StateDirectory(folder)
        try:
            self._modules = files = ModuleFiles(folder / "modules")
            self._journal = SqliteJournal(folder, files.save, wake)
        except BaseException:
            self._state.close()
            raise

    def recover(self) -> Recovered:
        """What an earlier broker has left."""
        if self._journal is None or not isinstance(self._modules, ModuleFiles):
            return Recovered()
        found = self._journal.recover()
        here = self._modules.known()
        kept = tuple(module for module in found.modules if here.get(module.digest) == module.size)
        for module in set(found.modules) - set(kept):
            log.error("the module %s is missing from the state directory, or not whole", module.digest)
        self._modules.keep_only(module.digest for module in kept)
        return replace(found, modules=kept)

    def do(self, action: StoreAction | Persist) -> None:
        """Carry out an action of the core."""
        if not isinstance(action, Persist):
            self._modules.do(action)
        elif self._journal is not None:
            self._journal.write(action)

    def read(self, digest: str, offset: int, size: int) -> bytes:
        """A piece of a module. Raises ``KeyError`` or ``OSError`` when it is not here or can't be read."""
        return self._modules.read(digest, offset, size)

    def events(self) -> list[Event]:
        """What has happened to the journal's writes since this was asked last."""
        return [] if self._journal is None else self._journal.events()

    def close(self) -> None:
        """Write what is to be written, and give everything back."""
        if self._journal is not None:
            self._journal.close()
        self._modules.close()
        if self._state is not None:
            self._state.close()
