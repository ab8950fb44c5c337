"""The wasm of modules, from the broker into the shell's files. Pure."""

from __future__ import annotations

from collections.abc import Callable

from minilambda.transfers import Puller
from minilambda.worker.actions import Action, DropWasm, KeepWasm
from minilambda.worker.module import Module

WHOLE = ""
"""The answer when all bytes are there; any other text says what is wrong. The compiler looks at their hash."""


class Fetching:
    """Modules in the state "fetching". ``emit`` takes the actions that follow from a call."""

    def __init__(self, puller: Puller, emit: Callable[[Action], None]) -> None:
        self._puller = puller
        self._emit = emit

    def begin(self, module: Module, now: float) -> str | None:
        """Get a module's bytes: those that rode along, else from the broker. None: they are on their way."""
        module.enter("fetching", now)
        if len(module.inline) == module.size:
            wasm, module.inline = module.inline, b""
            return self._take(module, 0, wasm, True)
        self._puller.start(module.digest, module.size)
        return None

    def arrived(self, module: Module | None, digest: str, offset: int, total: int, data: bytes) -> str | None:
        """A piece from the broker. None: it was not the last, or nobody wants it."""
        transfer = self._puller.arrived(digest, offset, total, data)
        if transfer is None or module is None or module.state != "fetching":
            return None
        if transfer.total < 0:
            return "The broker no longer has the module's bytes."
        transfer.pieces.clear()
        return self._take(module, offset, data, transfer.complete)

    def _take(self, module: Module, offset: int, data: bytes, last: bool) -> str | None:
        module.held = offset + len(data)
        self._emit(KeepWasm(module.digest, offset, data))
        return WHOLE if last else None

    def stop(self, module: Module) -> None:
        """Ask for no more of a module."""
        self._puller.stop(module.digest)

    def drop(self, module: Module) -> None:
        """Have the shell forget what it has of a module."""
        if module.held >= 0:
            module.held = -1
            self._emit(DropWasm(module.digest))
