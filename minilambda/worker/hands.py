"""What the agent's shell does for the core besides talking: orders to processes, and what is kept for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minilambda.worker import actions as a
from minilambda.worker.events import CompileFinished, Measured, OutputRead, Poured
from minilambda.worker.file_trees import Files
from minilambda.worker.meters import Meters
from minilambda.worker.processes import Processes
from minilambda.worker.stores import Artifacts, WasmFiles

_FOUND: dict[type, str] = {a.ArtifactFound: "hit", a.ArtifactAbsent: "miss", a.ArtifactLocked: "locked"}


class Hands:
    """Carries out actions on artifacts, wasm and processes. ``acts`` has them by their class.

    An action that is answered at once returns the answer.
    """

    def __init__(self, artifacts: Artifacts, files: Files, processes: Processes, meters: Meters) -> None:
        self._meters = meters
        self._artifacts = artifacts
        self._files = files
        self._processes = processes
        self._wasm = WasmFiles()
        self.acts: dict[type, Callable[[Any], a.Event | None]] = {
            a.FindArtifact: self._find_artifact,
            a.ReleaseArtifact: self._release_artifact,
            a.DropArtifact: self._drop_artifact,
            a.KeepWasm: self._keep_wasm,
            a.DropWasm: self._drop_wasm,
            a.FindFiles: self._find_files,
            a.KeepFile: self._keep_file,
            a.StoreFile: self._store_file,
            a.DropFile: self._drop_file,
            a.BuildTree: self._build_tree,
            a.DropTree: self._drop_tree,
            a.Compile: self._compile,
            a.KillCompiler: self._kill_compiler,
            a.Spawn: self._spawn,
            a.StartRun: self._start_run,
            a.Kill: self._kill,
            a.Look: self._look,
            a.Measure: self._measure,
            a.ReadOutput: self._read_output,
            a.Pour: self._pour,
        }

    def look_ahead(self) -> list[a.ArtifactFound]:
        """Open the artifacts that the first jobs may need."""
        return self._artifacts.look_ahead()

    def compiled(self, event: CompileFinished) -> None:
        """Keep a new artifact, if there is one."""
        self._meters.compiled(event.code)
        if event.code is not None:
            return
        fd = self._processes.take_artifact(event.digest, event.compiler)
        self._artifacts.adopt(event.digest, event.compiler, event.component, fd)

    def close(self) -> None:
        """End the processes and close what is kept."""
        self._processes.close()
        self._artifacts.close()
        self._files.close()
        self._wasm.close()

    def _find_artifact(self, action: a.FindArtifact) -> a.Event:
        found = self._artifacts.find(action.digest, action.compilers, action.alone)
        self._meters.lookups[_FOUND[type(found)]] += 1
        return found

    def _release_artifact(self, action: a.ReleaseArtifact) -> None:
        self._artifacts.release(action.digest, action.compiler)

    def _drop_artifact(self, action: a.DropArtifact) -> None:
        self._artifacts.drop(action.digest, action.compiler, action.corrupt)

    def _keep_wasm(self, action: a.KeepWasm) -> None:
        self._wasm.keep(action.digest, action.offset, action.data)

    def _drop_wasm(self, action: a.DropWasm) -> None:
        self._wasm.drop(action.digest)

    def _find_files(self, action: a.FindFiles) -> a.Event:
        return self._files.cache.find(action.digests)

    def _keep_file(self, action: a.KeepFile) -> None:
        self._files.cache.keep(action.digest, action.offset, action.data)

    def _store_file(self, action: a.StoreFile) -> a.Event:
        return self._files.cache.store(action.digest, action.size)

    def _drop_file(self, action: a.DropFile) -> None:
        self._files.cache.drop(action.digest)

    def _build_tree(self, action: a.BuildTree) -> a.Event:
        return self._files.build(action.key, action.files, action.scratch)

    def _drop_tree(self, action: a.DropTree) -> None:
        self._files.drop(action.key)

    def _compile(self, action: a.Compile) -> None:
        self._processes.compile(action.order, self._wasm.descriptor(action.order.digest))

    def _kill_compiler(self, action: a.KillCompiler) -> None:
        self._processes.kill_compiler(action.digest)

    def _spawn(self, action: a.Spawn) -> None:
        home = action.home
        if home is not None:
            home = home._replace(tree=self._files.path(home.tree))
        self._processes.spawn(action.slot, home)

    def _start_run(self, action: a.StartRun) -> None:
        order = action.order
        artifact = self._artifacts.descriptor(order.digest, order.compiler) if order.load else None
        self._processes.run(action.slot, order, artifact, action.stream)
        if order.load:
            self._artifacts.used(order.digest, order.compiler)

    def _kill(self, action: a.Kill) -> None:
        self._processes.kill(action.slot)

    def _look(self, action: a.Look) -> a.Event:
        return self._processes.look(action.slot)

    def _measure(self, action: a.Measure) -> a.Event:
        runner = self._processes.runner(action.slot)
        return Measured(action.slot, *(runner.output_sizes() if runner else (0, 0)))

    def _read_output(self, action: a.ReadOutput) -> a.Event:
        runner = self._processes.runner(action.slot)
        data = runner.read_output(action.stream, action.offset, action.size) if runner else b""
        return OutputRead(action.slot, action.follower, action.stream, action.offset, data)

    def _pour(self, action: a.Pour) -> a.Event:
        runner = self._processes.runner(action.slot)
        return Poured(action.slot, runner.pour(action.data, action.last) if runner else 0)
