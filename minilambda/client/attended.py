"""A run whose caller hears what it writes as it writes it, and may have input for it meanwhile."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import cast

from minilambda.client.calls import Source
from minilambda.client.link import Link, Ongoing
from minilambda.client.live import INPUT_BYTES, Chunk, Told
from minilambda.errors import Conflict, NotFound
from minilambda.messages import Call, Cancel, Follow, Input, JobResult, Run, Taken

OnOutput = Callable[[Chunk], object]
"""Called with each piece of what a job writes."""

_PARTING = 1.0  # a cancel that nobody waits for is tried for so long, seconds


class Attended:
    """One run, its output and its input.

    What could not be followed, because of the broker or the connection, comes with the result, so the caller hears
    all of it in any case.
    """

    def __init__(self, link: Link, on_output: OnOutput | None, stdin_fd: int | None) -> None:
        self._link = link
        self._on_output = on_output
        self._run: Ongoing | None = None
        self._output: Ongoing | None = None
        self._told = Told()
        self._input = None if stdin_fd is None else _Input(stdin_fd)

    def perform(self, request: Run | Call, source: Source | None, wait: float | None) -> JobResult:
        """The job from start to end. Raises what ends it other than by a result, and what ``on_output`` raises.

        A job that its caller can't attend any more is cancelled; the caller does that after an interrupt.
        """
        link, job_id = self._link, request.job
        try:
            run = self._run = link.begin(request, source, wait)
            if self._on_output is not None:
                self._output = link.begin(Follow(0, job_id, 0), beside=run.number)
            while run.outcome is None:
                if self._input is not None:
                    self._input.go_on(link, job_id, run)
                link.step()
                self._hear()
            if isinstance(run.outcome, Exception):
                raise run.outcome
            reply = cast(JobResult, run.outcome)
            for chunk in self._told.rest(reply):
                self._tell(chunk)
            return reply
        except Exception:
            if self._run is not None and self._run.outcome is None:
                link.start(Cancel(0, job_id), patience=_PARTING)
            raise
        finally:
            for call in (self._run, self._output, None if self._input is None else self._input.sent):
                if call is not None:
                    link.leave(call)
            link.beside = None

    def _hear(self) -> None:
        output = self._output
        while output is not None and output.chunks:
            chunk = output.chunks.popleft()
            if chunk.data:
                self._tell(chunk)
                self._link.consumed(output.number, len(chunk.data))

    def _tell(self, chunk: Chunk) -> None:
        self._told.note(chunk)
        if self._on_output is not None:
            self._on_output(chunk)


class _Input:
    """Passes on what comes by a descriptor, one piece at a time, until it ends or the job does."""

    def __init__(self, descriptor: int) -> None:
        self.sent: Ongoing | None = None  # the piece that is on its way
        self._descriptor: int | None = descriptor  # None: nothing more is read
        self._offset = 0  # bytes read
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def go_on(self, link: Link, job_id: str, run: Ongoing) -> None:
        """Send the next piece if there is one and the last one was taken; else let ``step`` wait for it, too."""
        if self.sent is not None:
            if self.sent.outcome is None:
                return
            self._taken(self.sent)
        link.beside = self._descriptor
        if self._descriptor is None or not self._poll.poll(0):
            return
        data = _read(self._descriptor)
        if data is None:
            return
        link.beside = None
        self.sent = link.begin(Input(0, job_id, self._offset, not data, data), beside=run.number)
        self._offset += len(data)
        if not data:
            self._descriptor = None

    def _taken(self, sent: Ongoing) -> None:
        """Raises what kept the piece from the job, other than the job's end."""
        outcome, self.sent = sent.outcome, None
        if isinstance(outcome, Taken) and outcome.received >= self._offset:
            return
        self._descriptor = None
        if isinstance(outcome, Exception) and not isinstance(outcome, (Conflict, NotFound)):
            raise outcome


def _read(descriptor: int) -> bytes | None:
    """What there is to read, b"" at its end; None for nothing after all."""
    try:
        return os.read(descriptor, INPUT_BYTES)
    except BlockingIOError:
        return None
    except OSError:  # a terminal that is gone
        return b""
