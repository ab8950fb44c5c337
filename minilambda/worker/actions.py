"""What the agent's core asks its shell to do, and what the shell answers beside messages and process events.

Values all of them, not frozen for the same reason as those in ``events``.
"""

from __future__ import annotations

from dataclasses import dataclass

from minilambda.messages import Message
from minilambda.worker.events import CompileOrder, ProcessEvent, RunOrder

# --- actions -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Send:
    """A message to the broker."""

    message: Message


@dataclass(slots=True)
class Reconnect:
    """Drop the connection and make a new one."""


@dataclass(slots=True)
class FindArtifact:
    """Look for an artifact on disk. Answered by ``ArtifactFound``, ``ArtifactAbsent`` or ``ArtifactLocked``."""

    digest: str
    compilers: tuple[str, ...]  # whose will do, the best first; where there is none, the last one's is locked
    alone: bool = False  # whether it is made here even if another worker has the lock


@dataclass(slots=True)
class ReleaseArtifact:
    """Nobody here compiles it after all: let go of the lock that came with ``ArtifactAbsent``."""

    digest: str
    compiler: str


@dataclass(slots=True)
class DropArtifact:
    """Close the artifact; ``corrupt`` removes it from the disk too."""

    digest: str
    compiler: str
    corrupt: bool = False


@dataclass(slots=True)
class KeepWasm:
    """A piece of a module's bytes, in order from offset 0."""

    digest: str
    offset: int
    data: bytes


@dataclass(slots=True)
class DropWasm:
    digest: str


@dataclass(slots=True)
class Compile:
    """Compile the kept wasm. Answered by ``CompileFinished``."""

    order: CompileOrder


@dataclass(slots=True)
class KillCompiler:
    digest: str


@dataclass(slots=True)
class Spawn:
    """A new runner for a slot. Answered by ``RunnerReady`` or ``RunnerDied``."""

    slot: int


@dataclass(slots=True)
class StartRun:
    """Answered by ``RunnerFinished`` or ``RunnerDied``."""

    slot: int
    order: RunOrder


@dataclass(slots=True)
class Kill:
    """Answered by ``RunnerDied``."""

    slot: int


@dataclass(slots=True)
class Look:
    """Measure a running guest's output. Answered by ``OutputSeen``."""

    slot: int


@dataclass(slots=True)
class Exit:
    """The worker is done."""


Action = (
    Send
    | Reconnect
    | FindArtifact
    | ReleaseArtifact
    | DropArtifact
    | KeepWasm
    | DropWasm
    | Compile
    | KillCompiler
    | Spawn
    | StartRun
    | Kill
    | Look
    | Exit
)

# --- events ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Received:
    """A message from the broker."""

    message: Message


@dataclass(slots=True)
class Drain:
    """Take nothing new, finish or hand back, and exit. A second one exits at once."""


@dataclass(slots=True)
class ArtifactFound:
    digest: str
    compiler: str  # whose it is
    component: bool  # a component, not a core module


@dataclass(slots=True)
class ArtifactAbsent:
    """It is not on disk, and this worker now holds the lock for compiling it."""

    digest: str
    compiler: str


@dataclass(slots=True)
class ArtifactLocked:
    """It is not on disk, and another worker compiles it."""

    digest: str


Event = Received | Drain | ArtifactFound | ArtifactAbsent | ArtifactLocked | ProcessEvent
