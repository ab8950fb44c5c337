"""The agent's handle of the runner of a job with files: it collects what the guest leaves, however the guest ends."""

from __future__ import annotations

import os
from typing import Any

from minilambda.worker import codec, collecting
from minilambda.worker.child import close_all
from minilambda.worker.events import Collected, HomeOrder, ProcessEvent, RunnerDied, RunnerFinished
from minilambda.worker.handles import RunnerHandle
from minilambda.worker.home import Plan


class FilesHandle(RunnerHandle):
    """The runner of a slot, for one job."""

    def __init__(self, number: int, slot: int, home: HomeOrder) -> None:
        super().__init__(number, slot)
        self._home = home
        self._scratch: int | None = None  # the guest's ``/tmp``; None: it has none, or it is not there yet

    def request(self) -> tuple[bytes, list[int]]:
        home = self._home
        plan = Plan(home.tree, home.scratch, home.output_bytes)
        return codec.pack("runner", self.number, *plan), super().request()[1]

    def furnished(self, fds: list[int]) -> None:
        """Take the guest's ``/tmp``, and the files for its outputs in place of those that were ours."""
        self._scratch, stdout, stderr = fds
        self._own_fds.append(self._scratch)
        os.dup2(stdout, self.stdout_fd, inheritable=False)
        os.dup2(stderr, self.stderr_fd, inheritable=False)
        close_all([stdout, stderr])

    def hear(self) -> list[ProcessEvent]:
        """As of any child, but not before the template has told what is needed to understand it."""
        return [] if self.pid is None and self.channel is not None else super().hear()

    def _understand(self, kind: str, fields: list[Any]) -> list[ProcessEvent]:
        events = super()._understand(kind, fields)
        for event in events:
            if isinstance(event, RunnerFinished) and not event.bad_artifact:
                event.collected = self._collect()
        return events

    def died(self, how: str) -> list[ProcessEvent]:
        events = super().died(how)
        for event in events:
            if isinstance(event, RunnerDied):
                event.unsupported = self.unsupported
                event.collected = self._collect()
        return events

    def _collect(self) -> Collected | None:
        home, self._home = self._home, self._home._replace(collect=())  # once
        return collecting.collect(self._scratch, home.collect, home.collect_bytes) if home.collect else None
