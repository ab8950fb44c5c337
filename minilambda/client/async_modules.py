"""Modules as the tasks of an event loop find them: a file is read once for all tasks that want it at a time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from stat import S_ISREG

from minilambda.client.modules import Module, ModuleLike, Modules
from minilambda.notation import MIB

_AT_ONCE = MIB  # a file up to this size is read without a pause: that takes no longer than one step of a larger one

_File = tuple[str, int, int, int, int]  # path, device, inode, time of the last change, size: another one has others
Largest = Callable[[], Awaitable[float]]
"""Asks for the largest module that may be sent, bytes."""


class AsyncModules:
    """Turns what a caller names into handles, as ``Modules`` does."""

    def __init__(self) -> None:
        self._modules = Modules()
        self._reading: dict[_File, asyncio.Future[Module | None]] = {}  # files that a task reads, and what comes of it

    async def find(self, module: ModuleLike, largest: Largest) -> Module:
        """The handle of ``module``. Raises ``OSError`` for a file that can't be read, and ``ModuleTooLarge``."""
        found = self._modules.known(module)
        if found is not None:
            return found
        name = os.fsdecode(module)  # type: ignore[arg-type]  # whatever is no path is known
        stat = os.stat(name)
        if not S_ISREG(stat.st_mode):
            return await self._read(name, largest)  # what a pipe gives to one task it gives to no other
        if stat.st_size <= _AT_ONCE:
            return self._modules.find(name)
        file = (name, stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        while found is None:
            reading = self._reading.get(file)
            if reading is None or reading.get_loop() is not asyncio.get_running_loop():
                return await self._read_for_all(file, largest)
            found = await asyncio.shield(reading)
        return found

    async def _read_for_all(self, file: _File, largest: Largest) -> Module:
        """Read a file while other tasks wait for what comes of it. If this task is cancelled, one of them reads it."""
        outcome: asyncio.Future[Module | None] = asyncio.get_running_loop().create_future()
        self._reading[file] = outcome
        found = None
        try:
            found = await self._read(file[0], largest)
        except Exception as error:
            outcome.set_exception(error)
            outcome.exception()  # nobody else may wait for it
            raise
        finally:
            if self._reading.get(file) is outcome:
                del self._reading[file]
            if not outcome.done():
                outcome.set_result(found)
        return found

    async def _read(self, name: str, largest: Largest) -> Module:
        """Read a file in steps between which other tasks go on."""
        limit = await largest()
        steps = self._modules.reading(name, lambda: limit)
        while (found := next(steps)) is None:
            await asyncio.sleep(0)
        return found
