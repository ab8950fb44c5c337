"""What each message class looks like on the wire: derived once from its annotations, then used for every message.

A field annotated with a ``Check`` is a header key that is checked; one annotated as a body travels behind the header; a
dataclass is a map; a ``JobRef`` is a short list.
"""

from __future__ import annotations

import dataclasses
import operator
import types
from collections.abc import Callable
from typing import Any, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from minilambda.errors import BadRequest
from minilambda.fields import Check
from minilambda.messages import JobRef

RESERVED = frozenset({"stream", "files", "scratch", "collect"})
"""Header keys that version 1 keeps for parts that are not built: refused, so that nobody believes them honoured."""

MAX_REFS = 4096
"""Most job references in one message."""

Decoder = Callable[[Any], Any]


class Shape(NamedTuple):
    """What a message class looks like on the wire."""

    cls: type[Any]
    fields: dict[str, Decoder]  # header key to decoder
    names: tuple[str, ...]  # header keys
    assumed: tuple[Any, ...]  # for each key the value that may be left out
    read: Callable[[Any], tuple[Any, ...]]  # a message's values, in the order of the keys
    required: frozenset[str]
    bodies: tuple[str, ...]  # names of the body fields, in order


_SHAPES: dict[type[Any], Shape] = {}
_NEVER = object()  # equal to no value: a required field is never left out
_PLAIN = frozenset({int, str, bool, float, bytes, dict, type(None)})  # goes into msgpack as it is


def shape_of(cls: type[Any]) -> Shape:
    shape = _SHAPES.get(cls)
    if shape is None:
        shape = _SHAPES[cls] = _make_shape(cls)
    return shape


def _make_shape(cls: type[Any]) -> Shape:
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
    return Shape(cls, decoders, names, tuple(assumed), _reader(names), frozenset(required), tuple(bodies))


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
        shape = shape_of(cast("type[Any]", hint))
        return lambda value: part_of(value, shape)
    raise TypeError(f"{hint!r} has no check")


def _checked(check: Check, base: Any) -> Decoder:
    accept, what = check.accept, check.what
    tuples = get_origin(base) is tuple

    def decoder(value: Any) -> Any:
        if not accept(value):
            raise BadRequest(f"must be {what}.")
        return tuple(value) if tuples else value

    return decoder


def part_of(value: Any, shape: Shape) -> Any:
    if type(value) is not dict:
        raise BadRequest("must be a map.")
    return shape.cls(**values_of(value, shape, ""))


def _ref(value: Any) -> JobRef:
    if type(value) not in (list, tuple) or len(value) != 3:
        raise BadRequest("must be [principal, job, attempt].")
    checks = shape_of(JobRef).fields
    return JobRef(checks["principal"](value[0]), checks["job"](value[1]), checks["attempt"](value[2]))


def _refs(value: Any) -> tuple[JobRef, ...]:
    if type(value) not in (list, tuple) or len(value) > MAX_REFS:
        raise BadRequest(f"must be a list of at most {MAX_REFS} jobs.")
    return tuple(_ref(item) for item in value)


# --- a message's values to plain ones and back ---------------------------------------------------------


def fill(header: dict[str, Any], value: Any, shape: Shape) -> None:
    for name, item, default in zip(shape.names, shape.read(value), shape.assumed, strict=True):
        if item != default:
            header[name] = item if type(item) in _PLAIN else plain(item)


def plain(item: Any) -> Any:
    kind = type(item)
    if kind is JobRef:
        return (item.principal, item.job, item.attempt)
    if kind is tuple and item and type(item[0]) is JobRef:
        return [(ref.principal, ref.job, ref.attempt) for ref in item]
    if kind is tuple:
        return item
    part: dict[str, Any] = {}
    fill(part, item, shape_of(kind))
    return part


def values_of(header: dict[str, Any], shape: Shape, where: str) -> dict[str, Any]:
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
