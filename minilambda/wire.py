"""Frames to messages and back.

A message is ``[header, body frame …]``: the header is a msgpack map that begins with the version ``v``. Its key
``bodies`` lists the message's bodies: a small one in place, a larger one by its size, to follow in frames of at most
``MAX_FRAME`` bytes. Every frame costs each hop a few microseconds, so there are as few as possible. Sizes are checked
before anything is decoded, and every field before a message is built. The envelope (routing ids up to the empty
frame) is not this module's business, but for ``split_envelope``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast, get_args

import msgpack

from minilambda.errors import BadRequest, InputTooLarge, RequestError, UnsupportedVersion
from minilambda.fields import MAX_FRAME, Check, JobId
from minilambda.messages import Message
from minilambda.shapes import Shape, fill, part_of, plain, shape_of, values_of

VERSION = 1
"""Version of the protocol, in the key ``v`` of every header."""

MAX_IN_PLACE = 4096
"""Bodies up to this size may stand in the header, bytes."""

MAX_ENVELOPE = 8
"""Most frames that an envelope may have; more is dropped."""

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
    """The envelope, its empty frame included, and the rest; None where there is no empty frame near the start."""
    for index, frame in enumerate(frames[:MAX_ENVELOPE]):
        if not frame:
            return tuple(frames[: index + 1]), frames[index + 1 :]
    return None


def encode(message: Message) -> list[bytes]:
    """The frames of a message, without an envelope. Bodies are not copied where they fit one frame."""
    shape = shape_of(type(message))
    header: dict[str, Any] = {"v": VERSION, "type": message.TYPE}
    fill(header, message, shape)
    frames: list[bytes] = [b""]
    if shape.bodies:
        listing: list[tuple[str, int | bytes]] = []
        for name in shape.bodies:
            body: bytes = getattr(message, name)
            if not body:
                continue
            if len(body) <= MAX_IN_PLACE:
                listing.append((name, bytes(body)))
            else:
                listing.append((name, len(body)))
                frames.extend(_cut(body))
        if listing:
            header["bodies"] = listing
    frames[0] = msgpack.packb(header)
    return frames


def decode(frames: Frames, accepted: dict[str, type[Message]], max_body: int) -> Message:
    """The message in the frames behind an envelope.

    ``accepted`` maps the wire names that the receiver takes to their classes (see ``by_name``); ``max_body`` is the
    most that all bodies together may have, bytes. Raises ``Malformed``, whose ``error`` says what is wrong.
    """
    if not frames or len(frames[0]) > MAX_FRAME:
        raise Malformed(BadRequest("A message is a header of at most 256 KiB, and its bodies."))
    header = _unpack(frames[0])
    request, job = _identity(header)
    try:
        _check_version(header.pop("v", None))
        name = header.pop("type", None)
        cls = accepted.get(name) if type(name) is str else None
        if cls is None:
            raise BadRequest(f"{_name(name)} is not a message that can be sent here.")
        shape = shape_of(cls)
        bodies = _bodies(header.pop("bodies", ()), frames[1:], shape, max_body)
        values = values_of(header, shape, "")
        return cls(**values, **bodies)
    except RequestError as error:
        raise Malformed(error, request, job) from None


def pack(part: Any) -> bytes:
    """A part of a message by itself, such as a ``JobSpec``, to be kept somewhere."""
    packed: bytes = msgpack.packb(plain(part))
    return packed


def unpack(cls: type[Part], data: bytes) -> Part:
    """The part that ``pack`` made bytes of. Raises ``BadRequest``."""
    return cast(Part, part_of(_unpack(data), shape_of(cls)))


def by_name(classes: Iterable[type[Message]]) -> dict[str, type[Message]]:
    """Wire name to class, for ``decode``. The classes are ready for use afterwards, without a slow first time."""
    prepare(classes)
    return {cls.TYPE: cls for cls in classes}


def prepare(classes: Iterable[type[Message]]) -> None:
    """Makes ready what is needed to encode and decode these messages."""
    for cls in classes:
        shape_of(cls)


# --- encoding ----------------------------------------------------------------------------------------


def _cut(body: bytes) -> list[bytes]:
    if len(body) <= MAX_FRAME:
        return [body]
    view = memoryview(body)
    return [cast(bytes, view[at : at + MAX_FRAME]) for at in range(0, len(body), MAX_FRAME)]


# --- decoding ----------------------------------------------------------------------------------------


def _unpack(header: bytes) -> dict[str, Any]:
    try:
        value = msgpack.unpackb(header, strict_map_key=True, raw=False, use_list=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
        raise Malformed(BadRequest("The header is not valid msgpack.")) from None
    if type(value) is not dict:
        raise Malformed(BadRequest("The header is not a msgpack map."))
    return value


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


def _bodies(listing: Any, frames: Frames, shape: Shape, max_body: int) -> dict[str, bytes]:
    """The bodies by name; every size is checked against the frames before any are joined."""
    if type(listing) not in (list, tuple) or len(listing) > len(shape.bodies):
        raise BadRequest("bodies: must be a list of the bodies that this message has.")
    found: dict[str, bytes] = {}
    total, at = 0, 0
    for entry in listing:
        if type(entry) not in (list, tuple) or len(entry) != 2:
            raise BadRequest("bodies: each entry must be [name, size] or [name, binary].")
        name, body = entry
        if name not in shape.bodies or name in found:
            raise BadRequest(f"bodies: {_name(name)} is unknown or named twice.")
        in_place = type(body) is bytes
        size = len(body) if in_place else body
        if type(size) is not int or size <= 0:
            raise BadRequest("bodies: each body must have a positive size, or be binary that is not empty.")
        total += size
        if total > max_body:
            raise InputTooLarge(f"bodies: {total} bytes or more together, at most {max_body} are accepted.")
        if in_place:
            if size > MAX_IN_PLACE:
                raise BadRequest(f"bodies: {name} has {size} bytes in place, more than {MAX_IN_PLACE}.")
            found[name] = body
        else:
            found[name], at = _framed(name, size, frames, at)
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
