"""Which modules get faster code after their first, and when. Pure.

A module's first artifact is made by the compiler that is quickest. It is worth another, slower compilation once the
module has run again, or when the worker has nothing to do. One module at a time, so it never becomes a burden.
"""

from __future__ import annotations

from collections import OrderedDict

from minilambda.notation import MIB
from minilambda.worker.module import Module

IDLE_AFTER = 1.0
"""A worker without jobs for so long has time to spare, seconds."""

KEPT_WASM = 64 * MIB
"""Wasm that is kept for a later compilation, all modules together, bytes; for the others it is fetched again."""


class Upgrades:
    """The modules that run on their first code and could have better."""

    def __init__(self) -> None:
        self.current: Module | None = None  # being upgraded with nobody waiting for it
        self.idle_since: float | None = None  # when the last job left, seconds; None: there are jobs
        self._all: OrderedDict[str, Module] = OrderedDict()  # by digest, the newest last
        self._due: OrderedDict[str, Module] = OrderedDict()  # those of them that ran again, oldest first
        self._held = 0  # wasm kept for them, bytes

    def __contains__(self, digest: str) -> bool:
        return digest in self._all

    def add(self, module: Module) -> list[Module]:
        """Take in a module; those whose wasm is to be dropped, so that what is kept stays within its bound."""
        self._all[module.digest] = module
        self._held += max(0, module.held)
        dropped = []
        for old in self._all.values():
            if self._held <= KEPT_WASM:
                break
            if old.held > 0:
                self._held -= old.held
                dropped.append(old)
        return dropped

    def remove(self, module: Module) -> None:
        """It needs no upgrade, or begins it. Without effect for one that is not here."""
        if self._all.pop(module.digest, None) is not None:
            self._due.pop(module.digest, None)
            self._held -= max(0, module.held)

    def again(self, module: Module) -> None:
        """The module runs again. Without effect for one that is not here."""
        if module.digest in self._all:
            self._due[module.digest] = module

    def done(self, module: Module) -> None:
        """Whatever was being made of a module is there, or failed, or is not wanted."""
        if self.current is module:
            self.current = None

    def take(self, now: float) -> Module | None:
        """The module to upgrade now, if there is one; it is the current one from here on."""
        if self.current is not None or not self._all:
            return None
        if self._due:
            module = next(iter(self._due.values()))
        elif self.idle_since is not None and now >= self.idle_since + IDLE_AFTER:
            module = next(reversed(self._all.values()))
        else:
            return None
        self.remove(module)
        self.current = module
        return module

    def next_deadline(self) -> float | None:
        """When ``take`` is worth a call, seconds."""
        if self.current is not None or not self._all or self.idle_since is None:
            return None
        return self.idle_since + IDLE_AFTER
