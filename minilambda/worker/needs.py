"""What a job needs besides its module: input that did not ride along, and files. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from minilambda.errors import UnsupportedFeature
from minilambda.messages import JobRef, JobSpec, body_handle
from minilambda.settings import WorkerSettings
from minilambda.transfers import Puller
from minilambda.worker import actions as a
from minilambda.worker.jobs import Job
from minilambda.worker.module import Settled
from minilambda.worker.trees import Trees, key_of

FILES = "files"
"""Stands for all files of a job among what it is missing."""

_BODIES = ("stdin", "values")


def has_files(spec: JobSpec) -> bool:
    """Whether a job has to do with files at all."""
    return bool(spec.files or spec.scratch or spec.collect)


class Needs:
    """The jobs in the phase "fetching".

    ``supplied`` is called for a job that has all, ``failed`` with a code and a sentence for one that can't get it.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        puller: Puller,
        emit: Callable[[a.Action], None],
        supplied: Callable[[Job, float], None],
        failed: Callable[[Job, str, str, float], None],
    ) -> None:
        self._puller = puller
        self._supplied = supplied
        self._failed = failed
        self.trees = Trees(settings, emit)

    def want(self, job: Job, withheld: Mapping[str, int], now: float) -> bool:
        """Get what a new job needs: bodies of these sizes, and its files. False where it has failed for these."""
        bodies = {name: size for name, size in withheld.items() if name in _BODIES and size > 0}
        for name, size in bodies.items():
            self._puller.start(body_handle(job.ref, name), size)
        job.missing = frozenset(bodies)
        if has_files(job.spec):
            job.tree = key_of(job.spec)
            job.missing |= {FILES}
        if job.missing:
            job.phase = "fetching"
        if job.tree:
            problem = self.trees.problem(job.spec)
            if problem:
                self._failed(job, UnsupportedFeature.code, problem, now)
            else:
                self._settle(self.trees.need(job), now)
        return job.phase != "done"

    def release(self, job: Job) -> None:
        """A job has ended, one way or another."""
        for name in job.missing:
            if name != FILES:
                self._puller.stop(body_handle(job.ref, name))
        if job.tree:
            self.trees.release(job)

    def chunk(self, jobs: Mapping[JobRef, Job], handle: str, offset: int, total: int, data: bytes, now: float) -> bool:
        """A piece of a file or of an input; False where it is of something else."""
        if handle in self.trees.pulls.pulls:
            # The same bytes may be on their way as a module.
            if handle in self._puller and not self.trees.expects(handle, offset, len(data)):
                return False
            self._settle(self.trees.arrived(handle, offset, total, data), now)
            return True
        if handle.startswith("sha256:"):
            return False
        transfer = self._puller.arrived(handle, offset, total, data)
        if transfer is None or not (transfer.complete or transfer.total < 0):
            return True
        for job in jobs.values():
            name = next((n for n in job.missing if body_handle(job.ref, n) == handle), None)
            if name is not None:
                self._body_arrived(job, name, b"".join(transfer.pieces) if transfer.complete else None, now)
                break
        return True

    def _body_arrived(self, job: Job, name: str, body: bytes | None, now: float) -> None:
        if body is None:
            self._failed(job, "internal", f"The broker no longer has the job's {name}.", now)
            return
        if name == "stdin":
            job.stdin = body
        else:
            job.values = body
        self._arrived(job, name, now)

    def _arrived(self, job: Job, name: str, now: float) -> None:
        job.missing -= {name}
        if not job.missing:
            job.fetched = max(job.fetched, now - job.received)
            self._supplied(job, now)

    # --- files ---

    def _settle(self, all_settled: Iterable[Settled], now: float) -> None:
        """Files of jobs are in their places, or can't be."""
        for settled in all_settled:
            for job in settled.jobs:
                if settled.code is None:
                    self._arrived(job, FILES, now)
                else:
                    self._failed(job, settled.code, settled.message, now)

    def handle(self, event: Any, now: float) -> None:
        """What the disk says of files."""
        self._settle(self._ANSWERS[type(event)](self.trees, event), now)

    _ANSWERS: ClassVar[dict[type, Callable[[Trees, Any], list[Settled]]]] = {
        a.FilesSeen: lambda trees, event: trees.seen(event.found, event.absent),
        a.FileLost: lambda trees, event: trees.lost(event.digest, event.why),
        a.TreeBuilt: lambda trees, event: trees.built(event.key),
        a.TreeFailed: lambda trees, event: trees.unbuilt(event.key, event.vanished, event.why),
    }
