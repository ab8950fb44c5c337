"""The same work by wasmtime-py in one process, the way its documentation shows it. Started by ``cold_start.py``.

All times are taken here, inside, so that no pipe is in them. Engine, linker and (when warm) module are made once and
used for all runs, output goes to a file in memory: the fastest of the plain ways, so that the ratios flatter nobody.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import wasmtime
from lines import serve
from wasmtime import component as wasm_component

Times = dict[str, float]


class Baseline:
    """One process with one engine."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._engine = wasmtime.Engine()
        self._core = wasmtime.Linker(self._engine)
        self._core.define_wasi()
        self._component = wasm_component.Linker(self._engine)
        self._component.add_wasip2()
        self._kept: Any = None  # the module of ``warm``

    def compiled(self, guest: dict[str, Any]) -> Times:
        """Compile and run, milliseconds. Then, off the clock, leave the artifact where it is not yet."""
        begun = time.perf_counter()
        module = self._kind(guest).from_file(self._engine, guest["path"])
        times = self._timed(guest, module, "compile", begun)
        if not Path(guest["artifact"]).exists():
            Path(guest["artifact"]).write_bytes(module.serialize())
        module.close()
        return times

    def loaded(self, guest: dict[str, Any]) -> Times:
        """Load an artifact and run, milliseconds. The module is kept for ``warm``."""
        begun = time.perf_counter()
        self._kept = self._kind(guest).deserialize_file(self._engine, guest["artifact"])
        return self._timed(guest, self._kept, "load", begun)

    def warm(self, guest: dict[str, Any]) -> list[Times]:
        """Run a module that is loaded, ``count`` times, milliseconds each. The first call loads it, if need be."""
        if self._kept is None:
            self._kept = self._kind(guest).deserialize_file(self._engine, guest["artifact"])
            for _ in range(3):
                self._run(guest, self._kept)
        return [{"run": self._run(guest, self._kept)} for _ in range(guest["count"])]

    # --- inside ---

    def _kind(self, guest: dict[str, Any]) -> Any:
        return wasm_component.Component if guest["component"] else wasmtime.Module

    def _timed(self, guest: dict[str, Any], module: Any, phase: str, begun: float) -> Times:
        ready = (time.perf_counter() - begun) * 1e3
        return {phase: ready, "run": self._run(guest, module)}

    def _run(self, guest: dict[str, Any], module: Any) -> float:
        begun = time.perf_counter()
        store = wasmtime.Store(self._engine)
        if guest["wasi"]:
            wasi = wasmtime.WasiConfig()
            wasi.argv = ["main.wasm", *guest["args"]]
            wasi.stdout_file = str(self._output)
            store.set_wasi(wasi)
        found = self._invoke(guest, module, store) if guest["component"] else self._command(module, store)
        store.close()
        took = (time.perf_counter() - begun) * 1e3
        if found != (guest["value"] if guest["component"] else guest["stdout"]):
            raise ValueError(f"{guest['path']} gave {found!r}")
        return took

    def _command(self, module: wasmtime.Module, store: wasmtime.Store) -> str:
        start: Any = self._core.instantiate(store, module).exports(store)["_start"]
        try:
            start(store)
        except wasmtime.ExitTrap as exit_:
            if exit_.code:
                raise
        return self._output.read_text()

    def _invoke(self, guest: dict[str, Any], module: wasm_component.Component, store: wasmtime.Store) -> Any:
        function = self._component.instantiate(store, module).get_func(store, guest["invoke"])
        if function is None:
            raise ValueError(f"{guest['path']} has no {guest['invoke']}")
        return function(store, *guest["values"])


def main() -> None:
    baseline = Baseline(Path(sys.argv[1]))
    serve({}, {"compiled": baseline.compiled, "loaded": baseline.loaded, "warm": baseline.warm})


if __name__ == "__main__":
    main()
