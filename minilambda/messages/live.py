"""Messages about what a running job writes, and about the input that comes to it while it runs.

Only for a connection that may get several messages for one request, a DEALER: ``follow`` gets any number of ``output``
before its one reply, ``followed``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from minilambda.fields import Count, Flag, JobId, Label, RequestId, Size, one_of
from minilambda.messages.parts import Body, Message, Reply, Request, State

Stream = Annotated[str, one_of("stdout", "stderr")]

# --- client to broker --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Follow(Request):
    """Tell what a job writes, from these offsets on, and when it has ended. Answered with ``followed`` then."""

    TYPE: ClassVar[str] = "follow"
    job: JobId
    credit: Size  # so much output may be on its way, bytes; ``credit`` gives more
    attempt: Count = 0  # the attempt that the offsets are about; of another one all is told; 0: whichever there is
    stdout: Size = 0  # of this stream all before this offset is known already, bytes
    stderr: Size = 0  # likewise
    principal: Label = ""  # whose job, for an admin; "": the sender's own


@dataclass(slots=True, unsafe_hash=True)
class Credit(Message):
    """So much more output may be sent. Gets no reply."""

    TYPE: ClassVar[str] = "credit"
    request: RequestId  # of the ``follow``
    bytes: Size


@dataclass(slots=True, unsafe_hash=True)
class Unfollow(Message):
    """Answer a ``follow`` now. Gets no reply of its own."""

    TYPE: ClassVar[str] = "unfollow"
    request: RequestId  # of the ``follow``


@dataclass(slots=True, unsafe_hash=True)
class Input(Request):
    """More standard input for a job whose spec says ``stream``. Answered with ``taken`` once the guest has room."""

    TYPE: ClassVar[str] = "input"
    job: JobId
    offset: Size  # of ``data`` in all that came by ``input``, bytes
    eof: Flag = False  # nothing comes after this
    data: Body = b""


# --- broker to client --------------------------------------------------------------------------------


@dataclass(slots=True, unsafe_hash=True)
class Output(Reply):
    """A piece of what the job has written. Not the reply to the ``follow``, only on the way to it.

    One without data, at most one for a ``follow``: all was sent that had been written when the ``follow`` came.
    """

    TYPE: ClassVar[str] = "output"
    job: JobId
    attempt: Count  # a higher one than before: the job runs anew, and its output begins at 0 again
    stream: Stream
    offset: Size  # of ``data`` in the stream, bytes
    data: Body = b""


@dataclass(slots=True, unsafe_hash=True)
class Followed(Reply):
    """All that the job has written was sent, and it has ended; or the follower did not want more."""

    TYPE: ClassVar[str] = "followed"
    job: JobId
    attempt: Count  # whose output was sent last
    state: State


@dataclass(slots=True, unsafe_hash=True)
class Taken(Reply):
    """So much of the input has reached the guest's pipe."""

    TYPE: ClassVar[str] = "taken"
    job: JobId
    received: Size  # of all that came by ``input``, bytes


REQUESTS: tuple[type[Message], ...] = (Follow, Credit, Unfollow, Input)
REPLIES: tuple[type[Message], ...] = (Output, Followed, Taken)
