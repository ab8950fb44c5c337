"""What a caller asks for, as messages of the protocol: the same for every kind of client."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from minilambda.client.files import Files
from minilambda.client.mapping import Input
from minilambda.client.modules import Module
from minilambda.client.spec import RunOptions, job_spec, stdin_bytes
from minilambda.errors import InvalidModule
from minilambda.messages import GetResult, JobSpec, Put, Run

QUICK = 30.0
"""A broker that says nothing for so long to a question that it can answer at once is gone, seconds."""

_FOREVER_MS = 366 * 24 * 3600 * 1000


class Requests:
    """Makes the requests of one client, and the ids of its jobs. Any thread may use it."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count(1)  # of the jobs
        self._spec = JobSpec("")  # of the last job with neither arguments nor options
        self.files = Files()

    def job_id(self) -> str:
        """A new one."""
        return f"{self._prefix}-{next(self._numbers)}"

    def run(
        self,
        module: Module,
        args: Sequence[str | os.PathLike[str]],
        options: RunOptions,
        values: bytes = b"",
        detach: bool = False,
    ) -> Run:
        """A job. Raises ``InvalidModule``, ``TypeError`` or ``ValueError`` for one that no broker would take."""
        if module.size == 0:
            raise InvalidModule("The module is empty.")
        spec = self._spec
        if args or options or spec.module != module.digest:
            spec = self.spec(module, args, options)
            if not args and not options:
                self._spec = spec
        if not options:
            return Run(0, self.job_id(), spec, detach, values=values)
        job_id = options.get("job_id") or self.job_id()
        parent = options.get("traceparent", "")
        return Run(0, job_id, spec, detach, traceparent=parent, stdin=stdin_bytes(options), values=values)

    def spec(self, module: Module, args: Sequence[str | os.PathLike[str]], options: RunOptions) -> JobSpec:
        """What a job is. Files that are not ready are read. Raises ``OSError`` besides, for one that can't be read."""
        if "files" in options or "dirs" in options:
            options = self.files.ready(options)
        return job_spec(module.digest, args, options)

    def of_input(self, module: Module, item: Input, options: RunOptions) -> Run:
        """The job for one input of a ``map``; what the input says goes over ``options``."""
        if isinstance(item, (bytes, bytearray, memoryview)):
            return self.run(module, (), {**options, "stdin": bytes(item)})
        if not isinstance(item, Mapping):
            return self.run(module, item, options)
        given: Any = {**options, **item}
        return self.run(module, given.pop("args", ()), given)


def upload(module: Module) -> Put:
    """The request that gives the broker a module."""
    if module.size is None:
        raise ValueError("A module that is known by its hash only can't be uploaded.")
    return Put(0, module.digest, module.size)


def result_of(job_id: str, principal: str, timeout: float | None) -> tuple[GetResult, float]:
    """The request for a job's result within ``timeout`` seconds, and how long to be patient with it, seconds."""
    if timeout is None:
        return GetResult(0, job_id, _FOREVER_MS, principal), math.inf
    wait_ms = min(max(0, math.ceil(timeout * 1000)), _FOREVER_MS)
    return GetResult(0, job_id, wait_ms, principal), timeout + QUICK
