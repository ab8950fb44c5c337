"""The part of JSON Schema that the gateway's own document uses: what is published is what is checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string", "maxLength": 262_144, "pattern": "^[^\\u0000]*$"}
"""A text that a guest can be given."""


def conform(schema: Schema, value: Any, where: str) -> Any:
    """The value, if it is as the schema says; a whole number is an int then. Raises ``ValueError`` naming ``where``."""
    if "anyOf" in schema:
        return _any_of(schema, value, where)
    if "enum" in schema:
        if type(value) is not str or value not in schema["enum"]:
            raise ValueError(f"{where} must be one of {', '.join(schema['enum'])}.")
        return value
    check = _CHECKS.get(schema.get("type", ""))
    return value if check is None else check(schema, value, where)


def parse_json(data: bytes) -> Any:
    """What a JSON text says. Raises ``ValueError``."""

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is not JSON.")

    try:
        return json.loads(data.decode(), parse_constant=refuse)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply.") from None


def _any_of(schema: Schema, value: Any, where: str) -> Any:
    for each in schema["anyOf"]:
        try:
            return conform(each, value, where)
        except ValueError:
            continue
    raise ValueError(f"{where} must be {schema.get('description', 'something else')}.")


def _string(schema: Schema, value: Any, where: str) -> Any:
    if type(value) is not str:
        raise ValueError(f"{where} must be text.")
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        raise ValueError(f"{where} has {len(value)} characters, which is not between the bounds.")
    pattern = schema.get("pattern")
    if pattern is not None and not re.fullmatch(pattern[1:-1], value, re.S):
        raise ValueError(f"{where} has characters that it can't have.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where} has half a character in it.") from None
    return value


def _integer(schema: Schema, value: Any, where: str) -> Any:
    if type(value) is float and value.is_integer():  # the same to JSON
        value = int(value)
    if type(value) is not int:
        raise ValueError(f"{where} must be a whole number.")
    return _bounded(schema, value, where)


def _number(schema: Schema, value: Any, where: str) -> Any:
    if type(value) not in (int, float):
        raise ValueError(f"{where} must be a number.")
    return _bounded(schema, value, where)


def _bounded(schema: Schema, value: Any, where: str) -> Any:
    low, high, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if (
        (low is not None and value < low)
        or (high is not None and value > high)
        or (above is not None and value <= above)
    ):
        at_least = f"more than {above}" if above is not None else f"at least {low}"
        raise ValueError(f"{where} must be {at_least} and at most {high}.")
    return value


def _boolean(schema: Schema, value: Any, where: str) -> Any:
    if type(value) is not bool:
        raise ValueError(f"{where} must be true or false.")
    return value


def _array(schema: Schema, value: Any, where: str) -> Any:
    if type(value) is not list or len(value) > schema.get("maxItems", len(value)):
        raise ValueError(f"{where} must be a list of at most {schema.get('maxItems')} values.")
    return [conform(schema.get("items", {}), each, f"a value of {where}") for each in value]


def _object(schema: Schema, value: Any, where: str) -> Any:
    if type(value) is not dict or len(value) > schema.get("maxProperties", len(value)):
        raise ValueError(f"{where} must be an object.")
    known, other, found = schema.get("properties", {}), schema.get("additionalProperties", {}), {}
    for name, each in value.items():
        if name not in known and other is False:
            raise ValueError(f"{where} has a member {name[:64]!r}, which is not known here.")
        if "propertyNames" in schema:
            conform(schema["propertyNames"], name, f"a name in {where}")
        found[name] = conform(known.get(name, other), each, f"{name[:64]!r}")
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        raise ValueError(f"{where} needs {missing[0]!r}.")
    return found


_CHECKS: dict[str, Callable[[Schema, Any, str], Any]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "array": _array,
    "object": _object,
}
