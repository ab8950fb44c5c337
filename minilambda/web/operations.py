"""What the gateway can do, one entry for each method of each path: the router and the OpenAPI document go by them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from minilambda.web.gateway import Asked
from minilambda.web.options import DIGEST, JOB_ID, NAME, for_use
from minilambda.web.schema import Schema

Handler = Callable[[Asked], Awaitable[Response]]


class Parameter(NamedTuple):
    """One parameter of a path, a query or a header."""

    name: str
    where: str  # "path", "query" or "header"
    schema: Schema
    says: str = ""

    def object(self) -> dict[str, Any]:
        """As OpenAPI has it."""
        required = {"required": True} if self.where == "path" else {}
        return {"name": self.name, "in": self.where, "schema": self.schema, "description": self.says, **required}


class Answer(NamedTuple):
    """One way in which an operation succeeds."""

    says: str
    media: str = ""  # "": there is no body
    schema: Schema | None = None  # of the body
    headers: tuple[str, ...] = ()
    bytes: str = ""  # media type of the bytes that come where the query asks for them


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: str
    path: str  # as the router has it, with the kinds of its parameters
    handler: Handler
    says: str  # in a line
    scope: str | None  # what a token must be good for; None: everybody may
    tag: str
    answers: Mapping[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: Mapping[str, Schema] = field(default_factory=dict)  # by media type
    problems: tuple[int, ...] = ()  # statuses of errors, besides those that each operation may have
    more: str = ""  # what else there is to say
    body_needed: bool = True
    calls: bool = False  # it changes something, whatever its method is
    always: bool = False  # also while there is too much to do

    @property
    def query(self) -> Mapping[str, Schema]:
        """The parameters that its query may have."""
        return {each.name: each.schema for each in self.parameters if each.where == "query"}


class _Pattern(Convertor[str]):
    """A parameter that is a text of a certain form; other texts are other paths."""

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


KINDS: dict[str, Schema] = {
    "job": JOB_ID,
    "name": NAME,
    "alias": {"type": "string", "pattern": "^[^/]+$"},  # a wrong one is no path of a function's own
    "digest": DIGEST,
    "version": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    "file": {"type": "string", "pattern": "^[a-z0-9_-]+[.][a-z]+$"},
}
"""Kinds of parameters in a path, besides ``path`` for all the rest of it."""

for _kind, _schema in KINDS.items():
    _convertor = type(f"_{_kind}", (_Pattern,), {"regex": _schema["pattern"][1:-1]})
    register_url_convertor(f"ml_{_kind}", _convertor())


def query_parameters(*uses: str) -> tuple[Parameter, ...]:
    """The options that may stand in a query."""
    found = []
    for name, option in for_use(*uses).items():
        schema = option.schema
        if schema.get("type") == "object":
            schema = {"type": "array", "items": {"type": "string", "pattern": "^[^=\\u0000]+=[^\\u0000]*$"}}
        found.append(Parameter(option.query or name, "query", schema, option.says))
    return tuple(found)
