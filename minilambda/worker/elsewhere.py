"""The modules whose artifacts another worker of this machine makes, and when to look for them again. Pure."""

from __future__ import annotations

from minilambda.notation import MIB
from minilambda.worker.module import Module

LOCK_RETRY = 0.05
"""How often a worker looks for an artifact that another one compiles, seconds."""

PATIENT_RETRY = 1.0
"""The same where no job waits for it, seconds."""

TRUST, TRUST_PER_MIB = 2.0, 1.0
"""How long the other worker has for it, seconds, and how much longer for each MiB of wasm.

A worker that stands still keeps its lock; jobs elsewhere must not wait for it for ever. To make an artifact twice costs
nothing but time.
"""


class Elsewhere:
    """Modules in the state "locked"."""

    def __init__(self) -> None:
        self._modules: dict[str, Module] = {}  # by digest

    def add(self, module: Module, now: float) -> None:
        self._modules[module.digest] = module
        if module.locked_at is None:
            module.locked_at = now

    def remove(self, module: Module) -> None:
        """Without effect for one that is not here."""
        self._modules.pop(module.digest, None)

    def given_up(self, module: Module, now: float) -> bool:
        """The other worker has had its time: this one makes the artifact itself."""
        patience = TRUST + TRUST_PER_MIB * module.size / MIB
        return module.locked_at is not None and now - module.locked_at >= patience

    def due(self, now: float) -> list[Module]:
        """Those that are to be looked for again."""
        return [module for module in self._modules.values() if now >= _retry_at(module)]

    def next_deadline(self) -> float | None:
        """When one is due, seconds."""
        return min(map(_retry_at, self._modules.values()), default=None)


def _retry_at(module: Module) -> float:
    return module.since + (LOCK_RETRY if module.waiting else PATIENT_RETRY)
