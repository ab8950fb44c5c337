"""What goes into the broker's core and what comes out: plain values, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

from minilambda.broker.accounts import Account
from minilambda.broker.authority import Authority
from minilambda.broker.records import Record
from minilambda.messages import Message
from minilambda.wire import Malformed

Route = tuple[bytes, ...]
"""The whole envelope of a message, echoed with every reply. The first frame names the connection."""


# --- events: what the shell tells the core -----------------------------------------------------------


@dataclass(slots=True)  # not frozen: there is one for each message, and that would cost as much as a step of the core
class Received:
    """A peer sent a message."""

    route: Route
    principal: str  # who the transport says the peer is
    message: Message


@dataclass(frozen=True, slots=True)
class Rejected:
    """A peer sent frames that are no message."""

    route: Route
    error: Malformed


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A message could not be sent: the connection is gone, or its peer has stopped reading."""

    route: Route
    message: Message
    behind: bool = False  # the peer may still be there, but too much waits for it already


@dataclass(frozen=True, slots=True)
class Paused:
    """The broker itself stood still for a while, so silence until now says nothing about the workers."""


@dataclass(frozen=True, slots=True)
class Durable:
    """What was persisted up to this number is on the disk."""

    number: int


@dataclass(frozen=True, slots=True)
class DiskFailing:
    """The disk has no room for more jobs; with ``stuck`` it takes nothing at all for now."""

    stuck: bool


@dataclass(frozen=True, slots=True)
class DiskWorks:
    """The disk has room again."""


@dataclass(frozen=True, slots=True)
class ModuleUnsaved:
    """The disk has no room for a module that was to be kept."""

    digest: str


@dataclass(frozen=True, slots=True)
class AccessChanged:
    """The list of keys that may talk to the broker is another one."""

    authority: Authority
    lost: frozenset[str]  # principals that have not got their role any more
    connections: frozenset[bytes]  # first frames of the routes of their connections, which are cut


Event = Received | Rejected | Unreachable | Paused | Durable | DiskFailing | DiskWorks | ModuleUnsaved | AccessChanged


# --- actions: what the core tells the shell ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModuleSlice:
    """A body of a message that the shell reads from its module spool."""

    body: str  # field of the message that it fills
    digest: str  # of the module
    offset: int  # in the module, bytes
    size: int  # bytes


@dataclass(slots=True)  # not frozen, as ``Received``
class Send:
    route: Route
    message: Message
    part: ModuleSlice | None = None  # a body that the core does not hold


@dataclass(frozen=True, slots=True)
class StoreModule:
    """Keep a whole module."""

    digest: str
    data: bytes


@dataclass(frozen=True, slots=True)
class WritePiece:
    """Append a piece to an upload; the pieces of one upload come in order."""

    upload: int
    data: bytes


@dataclass(frozen=True, slots=True)
class KeepUpload:
    """The upload is complete and is the module of this digest from now on."""

    upload: int
    digest: str


@dataclass(frozen=True, slots=True)
class DropUpload:
    upload: int


@dataclass(frozen=True, slots=True)
class DropModule:
    digest: str


@dataclass(frozen=True, slots=True)
class Persist:
    """Write these records, all or none, behind the earlier writes. Answered by ``Durable``."""

    number: int  # from 1, without gaps
    records: tuple[Record, ...]


StoreAction = StoreModule | WritePiece | KeepUpload | DropUpload | DropModule
Action = Send | StoreAction | Persist | Account
