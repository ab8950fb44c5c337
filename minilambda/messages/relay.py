"""Messages between the broker and a worker about the output of a running job, and the input that comes to it.

A *follower* is one client's ``follow``, by a number that the broker gives it. Its credit goes through the broker to
the worker, so the broker keeps nothing for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from minilambda.fields import Count, Flag, Size
from minilambda.messages.live import Stream
from minilambda.messages.parts import Body, FromBroker, FromWorker, JobRef, Message

# --- broker to worker --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Watch(FromBroker):
    """Tell what the job writes from these offsets on, until it ends. The rest of it goes with ``done``."""

    TYPE: ClassVar[str] = "watch"
    ref: JobRef
    follower: Count  # never used again
    stdout: Size  # offset, bytes
    stderr: Size  # likewise
    credit: Size  # so much may be on its way, bytes


@dataclass(slots=True, unsafe_hash=True)
class Allow(FromBroker):
    """So much more may be sent to the follower."""

    TYPE: ClassVar[str] = "allow"
    ref: JobRef
    follower: Count
    bytes: Size


@dataclass(slots=True, unsafe_hash=True)
class Unwatch(FromBroker):
    """The follower wants no more."""

    TYPE: ClassVar[str] = "unwatch"
    ref: JobRef
    follower: Count


@dataclass(slots=True, unsafe_hash=True)
class Feed(FromBroker):
    """Input for a running job. Answered with ``fed`` once all of it is in the guest's pipe, or the job has ended."""

    TYPE: ClassVar[str] = "feed"
    ref: JobRef
    number: Count  # of the request, as the broker counts
    offset: Size  # of ``data`` in all that came, bytes
    eof: Flag = False
    data: Body = b""


# --- worker to broker --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Written(FromWorker):
    """A piece of what a job has written, for one follower.

    One without data, which takes no credit: all was sent that had been written when the ``watch`` came.
    """

    TYPE: ClassVar[str] = "written"
    ref: JobRef
    follower: Count
    stream: Stream
    offset: Size  # bytes
    data: Body = b""


@dataclass(slots=True, unsafe_hash=True)
class Fed(FromWorker):
    """So much of the input is in the guest's pipe."""

    TYPE: ClassVar[str] = "fed"
    ref: JobRef
    number: Count  # of the ``feed``
    received: Size  # of all that came, bytes


TO_BROKER: tuple[type[Message], ...] = (Written, Fed)
TO_WORKER: tuple[type[Message], ...] = (Watch, Allow, Unwatch, Feed)
