"""One module at a worker: what is in hand of it, what is being made, and which jobs need it."""

from __future__ import annotations

from dataclasses import dataclass, field

from minilambda.messages import JobRef
from minilambda.worker.jobs import Job

UNKNOWN = 0
"""The size of a module whose artifact is in hand, and of which no job has come yet."""


@dataclass(slots=True)
class Module:
    """One module at this worker."""

    digest: str  # "sha256:" and 64 hex digits
    size: int  # of the wasm bytes, or UNKNOWN
    state: str = "looking"  # "looking", "locked", "fetching", "queued", "compiling", "aborting"; "ready": none of these
    since: float = 0.0  # when the state began, seconds
    locked_at: float | None = None  # when it was first seen that another worker makes the artifact, seconds
    compiler: str = ""  # whose artifact the state is about, in every state but "ready"
    hand: str = ""  # whose artifact is in hand; "": none
    component: bool = False  # known once an artifact is in hand
    inline: bytes = b""  # wasm that rode along, until it is known whether it is needed
    held: int = -1  # bytes of the wasm that the shell keeps; -1: no file
    waiting: dict[JobRef, Job] = field(default_factory=dict)  # jobs that wait for what is being made
    users: dict[JobRef, Job] = field(default_factory=dict)  # jobs that have the artifact in hand and have not ended
    refused: set[str] = field(default_factory=set)  # compilers that can't make an artifact of it
    background: bool = False  # nobody waited for its compilation when that began
    timed_out: bool = False  # its compiler was killed at the time limit

    def enter(self, state: str, now: float) -> None:
        self.state = state
        self.since = now
        if state not in ("looking", "locked"):
            self.locked_at = None

    def better(self, compilers: tuple[str, ...]) -> tuple[str, ...]:
        """Those whose artifacts would be an improvement on what is in hand; ``compilers`` come with the best first."""
        usable = compilers[: compilers.index(self.hand)] if self.hand else compilers
        return tuple(compiler for compiler in usable if compiler not in self.refused)

    @property
    def whole(self) -> bool:
        """The shell has all of its bytes."""
        return self.held == self.size


@dataclass(frozen=True, slots=True)
class Settled:
    """Jobs whose module is in hand, or can't be had (``code`` and ``message`` say why)."""

    jobs: tuple[Job, ...]
    code: str | None = None
    message: str = ""


NOTHING = Settled(())
