"""What a job writes and reads while it runs, as its client sees it. Pure: no socket, no clock.

A *follow* asks for a job's output. Pieces may come twice, or be lost with a connection: what fits goes to the caller,
all else is dropped, and asked for again where something is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from minilambda.errors import Conflict, MinilambdaError
from minilambda.messages import Follow, Input, JobResult, Output, Reply, Taken

WINDOW = 512 * 1024
"""So much output may be on its way to a caller, or wait for it, bytes."""

INPUT_BYTES = 64 * 1024
"""Input in one request, at most, bytes."""

SOON = 0.05
"""What must wait for its job to be known, or to be at a worker, is sent again after so long at first, seconds."""

_MAX_SHORT = 3
_LATER = 0.25  # and so long later, seconds


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of what a job has written. Those of one attempt and stream follow each other without a gap."""

    stream: str  # "stdout" or "stderr"
    data: bytes
    offset: int  # of ``data`` in all that the attempt has written to the stream, bytes
    attempt: int  # a higher one than before: the job runs anew on another worker, and writes all anew


class Heard(NamedTuple):
    """A chunk came for a ``follow``. One without data: all was heard that had been written when it was sent."""

    call: int
    chunk: Chunk


@dataclass(slots=True)
class Following:
    """How far a ``follow`` has come."""

    attempt: int = 0  # whose output came last; 0: none did
    stdout: int = 0  # bytes that came of it, without a gap
    stderr: int = 0  # likewise
    held: int = 0  # bytes that came and wait for the caller
    allowed: int = 0  # bytes that the broker may still send
    missing: int = 0  # pieces that did not fit since the last one that did, as something before them is missing
    short: int = 0  # times that it was to be over while something was missing
    caught_up: bool = False  # a piece without data came

    def request(self, message: Follow) -> Follow:
        """The message that goes on from here. It replaces an earlier one at the broker."""
        self.allowed = max(0, WINDOW - self.held)
        return replace(message, credit=self.allowed, attempt=self.attempt, stdout=self.stdout, stderr=self.stderr)

    def take(self, piece: Output) -> Chunk | None:
        """What a piece has of new; None for nothing."""
        self.allowed = max(0, self.allowed - len(piece.data))
        if piece.attempt < self.attempt:
            return None
        if piece.attempt > self.attempt:
            self.attempt, self.stdout, self.stderr = piece.attempt, 0, 0
        known = self.stdout if piece.stream == "stdout" else self.stderr
        if piece.offset > known or self.held + len(piece.data) > 2 * WINDOW:  # the broker sends more than it may
            self.missing += 1
            return None
        data = piece.data[known - piece.offset :]
        if not data and (piece.data or self.caught_up):
            return None
        self.caught_up = self.caught_up or not data
        self.missing = self.short = 0
        self.held += len(data)
        if piece.stream == "stdout":
            self.stdout += len(data)
        else:
            self.stderr += len(data)
        return Chunk(piece.stream, data, known, piece.attempt)

    def goes_on(self) -> bool:
        """It was said to be over while a piece is missing: an earlier try was over, so it is asked for again."""
        self.short += bool(self.missing)
        return 0 < self.short <= _MAX_SHORT

    def outcome(self, reply: Reply) -> Reply | Exception:
        """How the ``follow`` ends with this reply."""
        return MinilambdaError("The broker left out a piece of the job's output.") if self.missing else reply

    def consumed(self, size: int) -> int:
        """The caller is done with so many bytes; how many more the broker may send for it, 0 for none yet."""
        self.held = max(0, self.held - size)
        more = WINDOW - self.held - self.allowed
        if more < WINDOW // 2:
            return 0
        self.allowed += more
        return more


@dataclass(slots=True)
class Told:
    """What a caller was told of a job's output, to tell the rest of it when the whole is there."""

    attempt: int = 0  # of the last chunk; 0: none came
    stdout: int = 0  # bytes
    stderr: int = 0  # bytes

    def note(self, chunk: Chunk) -> None:
        """The caller has this now."""
        if chunk.attempt != self.attempt:
            self.attempt, self.stdout, self.stderr = chunk.attempt, 0, 0
        if chunk.stream == "stdout":
            self.stdout = chunk.offset + len(chunk.data)
        else:
            self.stderr = chunk.offset + len(chunk.data)

    def rest(self, reply: JobResult) -> Iterator[Chunk]:
        """What the result has beyond that."""
        attempt = reply.result.attempt
        same = attempt == self.attempt
        for stream, data, known in (("stdout", reply.stdout, self.stdout), ("stderr", reply.stderr, self.stderr)):
            start = known if same else 0
            if data[start:]:
                yield Chunk(stream, data[start:], start, attempt)


def input_pieces(job_id: str, offset: int, data: bytes) -> Iterator[Input]:
    """The requests that give a job more input, which begins at ``offset`` of all its input."""
    for start in range(0, len(data), INPUT_BYTES):
        yield Input(0, job_id, offset + start, data=data[start : start + INPUT_BYTES])


def taken(message: Input, reply: Taken) -> int:
    """Where the next input begins, bytes. Raises ``Conflict`` where the job has ended before it took all of this."""
    if reply.received < message.offset + len(message.data):
        raise Conflict(f"The job has ended; it got {reply.received} bytes of input.")
    return reply.received


def pause(waited: float) -> float:
    """How long to wait before asking again for what is not there yet, after waiting so long, seconds."""
    return min(_LATER, max(SOON, waited / 10))
