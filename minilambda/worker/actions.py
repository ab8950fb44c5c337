"""What the agent's core asks its shell to do, and what the shell answers beside messages and process events.

Values all of them, not frozen for the same reason as those in ``events``.
"""

from __future__ import annotations

from dataclasses import dataclass

from minilambda.messages import Message
from minilambda.worker.events import CompileOrder, HomeOrder, ProcessEvent, RunOrder
from minilambda.worker.results import Finished

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
class FindFiles:
    """Look for files on disk. Answered by ``FilesSeen``, as often as needed: whole ones take time to check."""

    digests: tuple[str, ...]


@dataclass(slots=True)
class KeepFile:
    """A piece of a file's bytes, in order from offset 0."""

    digest: str
    offset: int
    data: bytes


@dataclass(slots=True)
class StoreFile:
    """The kept pieces are a whole file. Answered by ``FilesSeen`` or ``FileLost``."""

    digest: str
    size: int  # bytes


@dataclass(slots=True)
class DropFile:
    """Forget the pieces that are kept of a file, if there are any."""

    digest: str


@dataclass(slots=True)
class BuildTree:
    """Make a tree of files on disk. Answered by ``TreeBuilt`` or ``TreeFailed``."""

    key: str  # its name
    files: dict[str, str]  # absolute path in the guest to digest
    scratch: bool  # whether it has an empty ``/tmp`` besides


@dataclass(slots=True)
class DropTree:
    key: str


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
    home: HomeOrder | None = None  # for one job with files; None: for jobs without


@dataclass(slots=True)
class StartRun:
    """Answered by ``RunnerFinished`` or ``RunnerDied``."""

    slot: int
    order: RunOrder
    stream: bool = False  # the guest's input goes on: it comes by ``Pour``, and nothing of it is in the order


@dataclass(slots=True)
class Kill:
    """Answered by ``RunnerDied``."""

    slot: int


@dataclass(slots=True)
class Look:
    """Measure a running guest's output. Answered by ``OutputSeen``."""

    slot: int


@dataclass(slots=True)
class Measure:
    """Measure both streams of a running guest. Answered by ``Measured``."""

    slot: int


@dataclass(slots=True)
class ReadOutput:
    """Read what a running guest has written. Answered by ``OutputRead``."""

    slot: int
    follower: int  # for whom
    stream: str  # "stdout" or "stderr"
    offset: int  # bytes
    size: int  # at most, bytes


@dataclass(slots=True)
class Pour:
    """Write to a running guest's pipe what fits. Answered by ``Poured``."""

    slot: int
    data: bytes
    last: bool  # close the pipe once all of it is written


@dataclass(slots=True)
class Exit:
    """The worker is done."""


@dataclass(slots=True)
class JobEnded:
    """Tell those who read the log."""

    finished: Finished


Action = (
    Send
    | Reconnect
    | FindArtifact
    | ReleaseArtifact
    | DropArtifact
    | KeepWasm
    | DropWasm
    | FindFiles
    | KeepFile
    | StoreFile
    | DropFile
    | BuildTree
    | DropTree
    | Compile
    | KillCompiler
    | Spawn
    | StartRun
    | Kill
    | Look
    | Measure
    | ReadOutput
    | Pour
    | JobEnded
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


@dataclass(slots=True)
class FilesSeen:
    """Files that are on disk, whole, and files that are not."""

    found: dict[str, int]  # digest to size, bytes
    absent: tuple[str, ...] = ()


@dataclass(slots=True)
class FileLost:
    """A file can't be kept on disk."""

    digest: str
    why: str  # one sentence


@dataclass(slots=True)
class TreeBuilt:
    key: str


@dataclass(slots=True)
class TreeFailed:
    key: str
    vanished: tuple[str, ...]  # digests of files that are not on disk any more
    why: str  # for people, the end of a sentence


FileEvent = FilesSeen | FileLost | TreeBuilt | TreeFailed
Event = Received | Drain | ArtifactFound | ArtifactAbsent | ArtifactLocked | FileEvent | ProcessEvent
