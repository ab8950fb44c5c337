"""Frames to messages and back.

A message is ``[header, body frame …]``: the header is a msgpack map that begins with the version ``v``. Its key
``bodies`` lists the message's bodies: a small one in place, a larger one by its size, to follow in frames of at most
``MAX_FRAME`` bytes. Every frame costs each hop a few microseconds, so there are as few as possible. Sizes are checked
before anything is decoded, and every field before a message is handed out: by functions that ``codegen`` makes of the
message classes, and where these find anything odd, once more by the tables in ``shapes``, which say what is wrong. The
envelope (routing ids up to the empty frame) is not this module's business, but for ``split_envelope``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast, get_args

import msgpack

from minilambda.codegen import Reader, Writer, reader_of, writer_of
from minilambda.errors import BadRequest, InputTooLarge, RequestError, UnsupportedVersion
from minilambda.fields import MAX_FRAME, Check, JobId
from minilambda.messages import Message
from minilambda.shapes import part_of, shape_of, values_of

VERSION = 1
"""Version of the protocol, in the key ``v`` of every header."""

MAX_IN_PLACE = 4096
"""Bodies up to this size may stand in the header, bytes."""

MAX_ENVELOPE = 8
"""Most frames that an envelope may have; more is dropped."""

MAX_HOP = 255
"""The longest frame of an envelope, as of a routing id, bytes: envelopes are kept for as long as an answer is due."""

Frames = Sequence[bytes]
Part = TypeVar("Part")


class Malformed(BadRequest):
    """Frames that are no message. ``request`` and ``job`` are what could be read, for the reply."""

    def __init__(self, error: RequestError, request: int = 0, job: str | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.request = request
        self.job = job


def split_envelope(frames: list[bytes]) -> tuple[tuple[bytes, ...], list[bytes]] | None:
    """The envelope, its empty frame included, and the rest; None where no empty frame is near the start."""
    for index, frame in enumerate(frames[:MAX_ENVELOPE]):
        if not frame:
            return tuple(frames[: index + 1]), frames[index + 1 :]
        if len(frame) > MAX_HOP:
            break
    return None


def encode(message: Message) -> list[bytes]:
    """The frames of a message, without an envelope. Bodies are not copied where they fit one frame."""
    cls = type(message)
    header = (_WRITERS.get(cls) or _writer(cls))(message)
    bodies: list[tuple[str, Any]] | None = header.get("bodies")
    if bodies is None:
        return [_pack(header)]
    frames: list[bytes] = [b""]
    for index, (name, body) in enumerate(bodies):
        if len(body) > MAX_IN_PLACE:
            bodies[index] = (name, len(body))
            frames += _cut(body)
    frames[0] = _pack(header)
    return frames


def decode(frames: Frames, accepted: dict[str, type[Message]], max_body: int) -> Message:
    """The message in the frames behind an envelope.

    ``accepted`` maps the wire names that the receiver takes to their classes (see ``by_name``); ``max_body`` is the
    most that all bodies together may have, bytes. Raises ``Malformed``, whose ``error`` says what is wrong.
    """
    if not frames or (size := len(frames[0])) > MAX_FRAME:
        raise Malformed(BadRequest("A message is a header of at most 256 KiB, and its bodies."))
    try:
        header = _unpackb(frames[0])
        cls = accepted[header["type"]]
        if header["v"] is VERSION:  # as every int of this size is; if not, the careful way is right as well
            read = _READERS.get(cls) or reader_of(cls)
            alone = len(frames) == 1
            if alone and "bodies" not in header:
                message: Message | None = read(header, None, 2)
            else:
                bodies = _in_place(header["bodies"]) if alone and size <= max_body else None
                if bodies is None:
                    bodies = _bodies(header.get("bodies", ()), frames, shape_of(cls).bodies, max_body)
                message = read(header, bodies, 3)
            if message is not None:
                return message
    except _ODD:
        pass
    return _careful(_unpack(frames[0]), frames, accepted, max_body)


def pack(part: Any) -> bytes:
    """A part of a message by itself, such as a ``JobSpec``, to be kept somewhere."""
    return _pack(writer_of(type(part))(part))


def unpack(cls: type[Part], data: bytes) -> Part:
    """The part that ``pack`` made bytes of. Raises ``BadRequest``."""
    return cast(Part, part_of(_unpack(data), shape_of(cls)))


def by_name(classes: Iterable[type[Message]], lazily: bool = False) -> dict[str, type[Message]]:
    """Wire name to class, for ``decode``. The classes are ready afterwards, without a slow first time.

    ``lazily``: each is made ready by its first message, where few of them will come.
    """
    found = {cls.TYPE: cls for cls in classes}
    if not lazily:
        for cls in classes:
            _READERS[cls] = reader_of(cls)
    return found


def prepare(classes: Iterable[type[Message]]) -> None:
    """Makes ready what is needed to encode these messages, which their first one would do else."""
    for cls in classes:
        _writer(cls)


_WRITERS: dict[type[Message], Writer] = {}
_READERS: dict[type[Message], Reader] = {}


def _writer(cls: type[Message]) -> Writer:
    made = _WRITERS[cls] = writer_of(cls, v=VERSION, type=cls.TYPE)
    return made


# --- encoding ----------------------------------------------------------------------------------------


_pack: Callable[[Any], bytes] = msgpack.Packer().pack
"""One packer for all: it holds the interpreter's lock while it packs, and making one each time costs as much again."""


def _cut(body: bytes) -> list[bytes]:
    if len(body) <= MAX_FRAME:
        return [body]
    view = memoryview(body)
    return [cast(bytes, view[at : at + MAX_FRAME]) for at in range(0, len(body), MAX_FRAME)]


# --- decoding ----------------------------------------------------------------------------------------


_unpackb: Callable[[bytes], Any] = msgpack.unpackb  # keys are text or binary, text is UTF-8, arrays are lists
_BROKEN = (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException)
_ODD = (KeyError, RequestError, *_BROKEN)
"""What the quick way raises at things that are not as they nearly always are."""


def _unpack(header: bytes) -> dict[str, Any]:
    try:
        value = _unpackb(header)
    except _BROKEN:
        raise Malformed(BadRequest("The header is not valid msgpack.")) from None
    if type(value) is not dict:
        raise Malformed(BadRequest("The header is not a msgpack map."))
    return value


def _careful(header: dict[str, Any], frames: Frames, accepted: dict[str, type[Message]], max_body: int) -> Message:
    """As ``decode``, by the tables; raises ``Malformed`` with the first thing that is wrong."""
    try:
        _check_version(header.get("v"))
        name = header.get("type")
        cls = accepted.get(name) if type(name) is str else None
        if cls is None:
            raise BadRequest(f"{_name(name)} is not a message that can be sent here.")
        shape = shape_of(cls)
        bodies = _bodies(header.get("bodies", ()), frames, shape.bodies, max_body)
        fields = {key: value for key, value in header.items() if key not in _OWN_KEYS}
        return cls(**values_of(fields, shape, ""), **bodies)
    except RequestError as error:
        raise Malformed(error, *_identity(header)) from None


_OWN_KEYS = frozenset({"v", "type", "bodies"})
"""Header keys that are no fields of a message."""

_IS_JOB_ID = cast(Check, get_args(JobId)[1]).accept


def _identity(header: dict[str, Any]) -> tuple[int, str | None]:
    """The request number and job id of a header that may be wrong elsewhere."""
    request, job = header.get("request"), header.get("job")
    good = type(request) is int and 0 <= request < 2**63
    return (cast(int, request) if good else 0), (cast(str, job) if _IS_JOB_ID(job) else None)


def _check_version(version: Any) -> None:
    if version == VERSION and type(version) is int:
        return
    if type(version) is int:
        raise UnsupportedVersion(f"This side speaks version {VERSION} of the protocol, not {version}.")
    raise BadRequest("v: must be the version of the protocol, an integer.")


def _name(value: Any) -> str:
    """A name that a peer sent, for a sentence. Only texts are shown: a deep value can't be."""
    return repr(value[:64]) if type(value) is str else "what is no text"


def _in_place(listing: Any) -> dict[str, bytes] | None:
    """The bodies by name where each is in the header, as nearly always; None where anything is different or odd.

    Which names there may be is left to who reads the message.
    """
    if type(listing) is not list:
        return None
    found: dict[str, bytes] = {}
    for entry in listing:
        name, body = entry
        if type(entry) is not list or type(body) is not bytes or not 0 < len(body) <= MAX_IN_PLACE or name in found:
            return None
        found[name] = body
    return found


def _bodies(listing: Any, frames: Frames, names: tuple[str, ...], max_body: int) -> dict[str, bytes]:
    """The bodies by name; every size is checked against the frames before any are joined."""
    if type(listing) not in (list, tuple) or len(listing) > len(names):
        raise BadRequest("bodies: must be a list of the bodies that this message has.")
    found: dict[str, bytes] = {}
    total, at = 0, 1
    for entry in listing:
        if type(entry) not in (list, tuple) or len(entry) != 2:
            raise BadRequest("bodies: each entry must be [name, size] or [name, binary].")
        name, body = entry
        if name not in names or name in found:
            raise BadRequest(f"bodies: {_name(name)} is unknown or named twice.")
        size = len(body) if type(body) is bytes else body
        if type(size) is not int or size <= 0:
            raise BadRequest("bodies: each body must have a positive size, or be binary that is not empty.")
        total += size
        if total > max_body:
            raise InputTooLarge(f"bodies: {total} bytes or more together, at most {max_body} are accepted.")
        if size is body:
            found[name], at = _framed(name, size, frames, at)
        elif size > MAX_IN_PLACE:
            raise BadRequest(f"bodies: {name} has {size} bytes in place, more than {MAX_IN_PLACE}.")
        else:
            found[name] = body
    if at != len(frames):
        raise BadRequest("bodies: there are frames that no entry names.")
    return found


def _framed(name: str, size: int, frames: Frames, start: int) -> tuple[bytes, int]:
    """A body from its frames, and the index behind them."""
    at, got = start, 0
    while got < size and at < len(frames):
        if not 0 < len(frames[at]) <= MAX_FRAME:
            raise BadRequest(f"bodies: a frame has {len(frames[at])} bytes, not 1 to {MAX_FRAME}.")
        got += len(frames[at])
        at += 1
    if got != size:
        raise BadRequest(f"bodies: {name} has {got} bytes in its frames, not {size}.")
    return (frames[start] if at == start + 1 else b"".join(frames[start:at])), at
