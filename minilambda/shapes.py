"""What each message class looks like on the wire, derived once from its annotations, and how a header is checked.

A field annotated with a ``Check`` is a header key that is checked; one annotated as a body travels behind the header; a
dataclass is a map; a ``JobRef`` is a short list. The decoders here go by the table and say what is wrong with a value;
``codegen`` makes functions of the same table that are quicker with values that are right.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from minilambda.errors import BadRequest
from minilambda.fields import Check
from minilambda.messages import JobRef

MAX_REFS = 4096
"""Most job references in one message."""

Decoder = Callable[[Any], Any]


class Field(NamedTuple):
    """One header key of a message class."""

    name: str
    hint: Any  # its annotation: a check, a part, a reference, references, or one of these or None
    default: Any  # the value that may be left out; ``REQUIRED`` where none may
    decode: Decoder  # raises ``BadRequest`` for what it does not take


class Shape(NamedTuple):
    """What a message class looks like on the wire."""

    cls: type[Any]
    fields: dict[str, Field]  # by header key, in order
    required: frozenset[str]
    bodies: tuple[str, ...]  # names of the body fields, in order


_SHAPES: dict[type[Any], Shape] = {}
REQUIRED: Any = object()
"""In place of a default: the field is never left out."""


def shape_of(cls: type[Any]) -> Shape:
    shape = _SHAPES.get(cls)
    if shape is None:
        shape = _SHAPES[cls] = _make_shape(cls)
    return shape


def _make_shape(cls: type[Any]) -> Shape:
    hints = get_type_hints(cls, include_extras=True)
    fields: dict[str, Field] = {}
    bodies: list[str] = []
    for name, default in _defaults(cls):
        if "body" in getattr(hints[name], "__metadata__", ()):
            bodies.append(name)
        else:
            fields[name] = Field(name, hints[name], default, _decoder(hints[name]))
    required = frozenset(field.name for field in fields.values() if field.default is REQUIRED)
    return Shape(cls, fields, required, tuple(bodies))


def _defaults(cls: type[Any]) -> Iterator[tuple[str, Any]]:
    """Each field with its default, in order."""
    if cls is JobRef:
        yield from dict.fromkeys(JobRef._fields, REQUIRED).items()
        return
    for item in dataclasses.fields(cls):
        if item.default_factory is not dataclasses.MISSING:
            yield item.name, item.default_factory()
        else:
            yield item.name, REQUIRED if item.default is dataclasses.MISSING else item.default


def _decoder(hint: Any) -> Decoder:
    inner = without_none(hint)
    if inner is not hint:
        some = _decoder(inner)
        return lambda value: None if value is None else some(value)
    if "refs" in getattr(hint, "__metadata__", ()):
        return _refs
    check = check_of(hint)
    if check is not None:
        return _checked(check, is_tuple(hint))
    if hint is JobRef:
        return _ref
    if dataclasses.is_dataclass(hint):
        shape = shape_of(cast("type[Any]", hint))
        return lambda value: part_of(value, shape)
    raise TypeError(f"{hint!r} has no check")


def without_none(hint: Any) -> Any:
    """The annotation of the value, where it may be None besides."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(arg for arg in get_args(hint) if arg is not type(None))
    return hint


def check_of(hint: Any) -> Check | None:
    """The check of an annotation, if it has one."""
    return next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Check)), None)


def is_tuple(hint: Any) -> bool:
    """Whether a list of the wire becomes a tuple."""
    return get_origin(get_args(hint)[0]) is tuple


def _checked(check: Check, tuples: bool) -> Decoder:
    accept, what = check.accept, check.what

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
    return JobRef(*(field.decode(item) for field, item in zip(shape_of(JobRef).fields.values(), value, strict=True)))


def _refs(value: Any) -> tuple[JobRef, ...]:
    if type(value) not in (list, tuple) or len(value) > MAX_REFS:
        raise BadRequest(f"must be a list of at most {MAX_REFS} jobs.")
    return tuple(_ref(item) for item in value)


def values_of(header: dict[str, Any], shape: Shape, where: str) -> dict[str, Any]:
    fields = shape.fields
    values: dict[str, Any] = {}
    for name, value in header.items():
        field = fields.get(name)
        if field is None:
            continue  # a later version of the protocol may add keys
        try:
            values[name] = field.decode(value)
        except BadRequest as error:
            raise BadRequest(f"{where}{name}: {error.message}") from None
    missing = shape.required - values.keys()
    if missing:
        raise BadRequest(f"{where}{min(missing)}: missing.")
    return values
