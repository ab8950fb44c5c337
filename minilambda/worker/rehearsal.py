"""A job of nobody's, taken through the agent's own code while its template starts.

A process takes several times as long for what it does for the first time: it reads code from files, and Python adapts
to it. The first job on a new worker should not pay for that.
"""

from __future__ import annotations

import os

from minilambda import messages as m
from minilambda import wire
from minilambda.messages import JobRef, JobSpec
from minilambda.settings import WorkerSettings
from minilambda.worker import actions as a
from minilambda.worker import artifact_file, codec
from minilambda.worker.channel import Channel
from minilambda.worker.core import Core
from minilambda.worker.events import Outcome, RunnerReady
from minilambda.worker.handles import RunnerHandle
from minilambda.worker.words import Identity

_MODULE = "sha256:" + "0" * 64
_ARTIFACT = bytes(16384)
_OUTCOME = Outcome(None, "", 0, None, b"done", b"", None, None, 0.0, 0.1, 0.1, 65536)
_JOBS = 12  # Python adapts to code that has run eight times


def rehearse() -> int:
    """Run a few jobs on a core, a runner's handle and a runner's end of its channel that nobody else knows.

    Answers how many came to their end. Raises OSError where the process is out of descriptors.
    """
    core = Core(WorkerSettings(), Identity("rehearsal", "rehearsal"), lambda: 0.0)
    runner = RunnerHandle(0, 0)
    try:
        stage = _Stage(core, runner)
        stage.carry_out(core.start())
        stage.carry_out(core.handle(RunnerReady(0), 0.0))
        stage.tell(m.Registered("rehearsal", 1, 1000, 10_000, 10_000))
        for number in range(1, _JOBS + 1):
            ref = JobRef("local", f"rehearsal-{number}", 1)
            stage.tell(m.Dispatch(1, number, ref, JobSpec(_MODULE), 1))
            stage.carry_out(core.tick(number / 100))
            stage.tell(m.Acknowledge(1, ref))
        return stage.done
    finally:
        runner.close()


class _Stage:
    """What the shell, the broker, the cache and the runner do in a job, as far as it matters here."""

    def __init__(self, core: Core, runner: RunnerHandle) -> None:
        self._core = core
        self._runner = runner
        self._far = Channel(runner.far_end, max_fds=1)  # the runner's end
        self.done = 0  # jobs whose results were sent
        self._accepted = wire.by_name(m.BROKER_MESSAGES)

    def tell(self, message: m.Message) -> None:
        """A message from the broker, as it arrives."""
        decoded = wire.decode(wire.encode(message), self._accepted, 1 << 20)
        self.carry_out(self._core.receive(decoded, 0.0))

    def carry_out(self, actions: list[a.Action]) -> None:
        """Do what the core decided, and what follows from that."""
        for action in actions:
            if type(action) is a.Send:
                wire.encode(action.message)
                self.done += type(action.message) is m.Done
            elif type(action) is a.FindArtifact:
                actions += self._core.handle(_found(action), 0.0)
            elif type(action) is a.StartRun:
                self._run(action, actions)

    def _run(self, action: a.StartRun, actions: list[a.Action]) -> None:
        fd = self._runner.stdout_fd if action.order.load else None
        self._runner.run(action.order, fd)
        received = self._far.receive()
        for copy in received[1] if received else ():
            os.close(copy)
        self._far.send(codec.encode_outcome(_OUTCOME, left_output=False))
        for event in self._runner.hear():
            actions += self._core.handle(event, 0.0)


def _found(action: a.FindArtifact) -> a.ArtifactFound:
    """The cache's answer, after a look at a file as it would be on disk."""
    written, artifact = (os.memfd_create("rehearsal", os.MFD_CLOEXEC) for _ in range(2))
    try:
        os.write(artifact, _ARTIFACT)
        os.fchmod(written, 0o400)
        artifact_file.write(written, artifact, False, b"rehearsal")
        artifact_file.describe(written, b"rehearsal")
    finally:
        os.close(written)
        os.close(artifact)
    return a.ArtifactFound(action.digest, action.compilers[0], False)
