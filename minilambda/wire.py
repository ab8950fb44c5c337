"""Frames to messages and back.

A message is ``[header, body frame …]``: the header is a msgpack map that begins with the version ``v``. Its key
``bodies`` lists the message's bodies: a small one in place, a larger one by its size, to follow in frames of at most
``MAX_FRAME`` bytes. Every frame costs each hop a few microseconds, so there are as few as possible. Sizes are checked
before anything is decoded, and every field before a message is built. The envelope (routing ids up to the empty
frame) is not this module's business, but for ``split_envelope``.
"""

from __future__ import annotations

import dataclasses
import operator
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

import msgpack

from minilambda.errors import BadRequest, RequestError, UnsupportedVersion
from minilambda.fields import MAX_FRAME, Check, JobId
from minilambda.messages import JobRef, Message

VERSION = 1
"""Version of the protocol, in the key ``v`` of every header."""

MAX_IN_PLACE = 4096
"""Bodies up to this size may stand in the header, bytes."""

MAX_ENVELOPE = 8
"""Most frames that an envelope may have; more is dropped."""

RESERVED = frozenset({"stream", "files", "scratch", "collect"})
"""Header keys that version 1 keeps for parts that are not built: refused, so that nobody believes them honoured."""

MAX_REFS = 4096
"""Most job references in one message."""

Frames = Sequence[bytes]
Decoder = Callable[[Any], Any]


class Malformed(BadRequest):
    """Frames that are no message. ``request`` and ``job`` are what could be read, for the reply."""

    def __init__(self, error: RequestError, request: int = 0, job: str | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.request = request
        self.job = job


class _Shape(NamedTuple):
    """What a message class looks like on the wire."""

    cls: type[Any]
    fields: dict[str, Decoder]  # header key to decoder
    names: tuple[str, ...]  # header keys
    assumed: tuple[Any, ...]  # for each key the value that may be left out
    read: Callable[[Any], tuple[Any, ...]]  # a message's values, in the order of the keys
    required: frozenset[str]
    bodies: tuple[str, ...]  # names of the body fields, in order


def split_envelope(frames: list[bytes]) -> tuple[tuple[bytes, ...], list[bytes]] | None:
    """The envelope, its empty frame included, and the rest; None where there is no empty frame near the start."""
    for index, frame in enumerate(frames[:MAX_ENVELOPE]):
        if not frame:
            return tuple(frames[: index + 1]), frames[index + 1 :]
    return None


def encode(message: Message) -> list[bytes]:
    """The frames of a message, without an envelope. Bodies are not copied where they fit one frame."""
    shape = _shape(type(message))
    header: dict[str, Any] = {"v": VERSION, "type": message.TYPE}
    _fill(header, message, shape)
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
        shape = _shape(cls)
        bodies = _bodies(header.pop("bodies", ()), frames[1:], shape, max_body)
        values = _values(header, shape, "")
        return cls(**values, **bodies)
    except RequestError as error:
        raise Malformed(error, request, job) from None


def by_name(classes: Iterable[type[Message]]) -> dict[str, type[Message]]:
    """Wire name to class, for ``decode``. The classes are ready for use afterwards, without a slow first time."""
    prepare(classes)
    return {cls.TYPE: cls for cls in classes}


def prepare(classes: Iterable[type[Message]]) -> None:
    """Makes ready what is needed to encode and decode these messages."""
    for cls in classes:
        _shape(cls)


# --- encoding ----------------------------------------------------------------------------------------


def _fill(header: dict[str, Any], value: Any, shape: _Shape) -> None:
    for name, item, default in zip(shape.names, shape.read(value), shape.assumed, strict=True):
        if item != default:
            header[name] = item if type(item) in _PLAIN else _plain(item)


def _plain(item: Any) -> Any:
    kind = type(item)
    if kind is JobRef:
        return (item.principal, item.job, item.attempt)
    if kind is tuple and item and type(item[0]) is JobRef:
        return [(ref.principal, ref.job, ref.attempt) for ref in item]
    if kind is tuple:
        return item
    part: dict[str, Any] = {}
    _fill(part, item, _shape(kind))
    return part


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
    return repr(value[:64]) if type(value) is str else f"a {type(value).__name__}"


def _values(header: dict[str, Any], shape: _Shape, where: str) -> dict[str, Any]:
    fields = shape.fields
    values: dict[str, Any] = {}
    for name, value in header.items():
        decoder = fields.get(name)
        if decoder is None:
            if name in RESERVED:
                raise BadRequest(f"{where}{name}: this side does not offer it; see the features in welcome.")
            continue  # a later version of the protocol may add keys
        try:
            values[name] = decoder(value)
        except BadRequest as error:
            raise BadRequest(f"{where}{name}: {error.message}") from None
    missing = shape.required - values.keys()
    if missing:
        raise BadRequest(f"{where}{min(missing)}: missing.")
    return values


def _bodies(listing: Any, frames: Frames, shape: _Shape, max_body: int) -> dict[str, bytes]:
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
        if type(size) is not int or size <= 0 or (total := total + size) > max_body:
            raise BadRequest(f"bodies: sizes must be positive and at most {max_body} together.")
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


# --- shapes, made once for each class ----------------------------------------------------------------

_SHAPES: dict[type[Any], _Shape] = {}
_NEVER = object()  # equal to no value: a required field is never left out
_PLAIN = frozenset({int, str, bool, float, bytes, dict, type(None)})  # goes into msgpack as it is


def _shape(cls: type[Any]) -> _Shape:
    shape = _SHAPES.get(cls)
    if shape is None:
        shape = _SHAPES[cls] = _make_shape(cls)
    return shape


def _make_shape(cls: type[Any]) -> _Shape:
    hints = get_type_hints(cls, include_extras=True)
    decoders: dict[str, Decoder] = {}
    assumed: list[Any] = []
    bodies: list[str] = []
    required: set[str] = set()
    for item in dataclasses.fields(cls):
        marks = getattr(hints[item.name], "__metadata__", ())
        if "body" in marks:
            bodies.append(item.name)
            continue
        decoders[item.name] = _decoder(hints[item.name])
        if item.default is not dataclasses.MISSING:
            assumed.append(item.default)
        elif item.default_factory is not dataclasses.MISSING:
            assumed.append(item.default_factory())
        else:
            assumed.append(_NEVER)
            required.add(item.name)
    names = tuple(decoders)
    return _Shape(cls, decoders, names, tuple(assumed), _reader(names), frozenset(required), tuple(bodies))


def _reader(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _decoder(hint: Any) -> Decoder:
    if get_origin(hint) in (Union, types.UnionType):
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        some = _decoder(inner)
        return lambda value: None if value is None else some(value)
    marks = getattr(hint, "__metadata__", ())
    if "refs" in marks:
        return _refs
    for mark in marks:
        if isinstance(mark, Check):
            return _checked(mark, get_args(hint)[0])
    if hint is JobRef:
        return _ref
    if dataclasses.is_dataclass(hint):
        shape = _shape(cast("type[Any]", hint))
        return lambda value: _part(value, shape)
    raise TypeError(f"{hint!r} has no check")


def _checked(check: Check, base: Any) -> Decoder:
    accept, what = check.accept, check.what
    tuples = get_origin(base) is tuple

    def decoder(value: Any) -> Any:
        if not accept(value):
            raise BadRequest(f"must be {what}.")
        return tuple(value) if tuples else value

    return decoder


def _part(value: Any, shape: _Shape) -> Any:
    if type(value) is not dict:
        raise BadRequest("must be a map.")
    return shape.cls(**_values(value, shape, ""))


def _ref(value: Any) -> JobRef:
    if type(value) not in (list, tuple) or len(value) != 3:
        raise BadRequest("must be [principal, job, attempt].")
    checks = _shape(JobRef).fields
    return JobRef(checks["principal"](value[0]), checks["job"](value[1]), checks["attempt"](value[2]))


def _refs(value: Any) -> tuple[JobRef, ...]:
    if type(value) not in (list, tuple) or len(value) > MAX_REFS:
        raise BadRequest(f"must be a list of at most {MAX_REFS} jobs.")
    return tuple(_ref(item) for item in value)
