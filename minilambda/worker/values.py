"""Typed values of exported functions: from text or msgpack to what a function takes, and the types' names.

Pure: knows types and values, not wasmtime. ``coerce`` and ``parse`` answer a value in its checked form,
which ``component_values`` and the core call then lower without further checks:

=====================  ==========================================================
type                   checked form
=====================  ==========================================================
bool, string, enum     bool, str, str
char                   str of one character
integers, floats       int in the type's range (core: signed), float
list; list<u8>         list; bytes
record, tuple          tuple, in the order of the type
variant, result        (case, value), the value None where the case has none
option                 None, or a tuple of one value
flags                  list of str, in the order of the type
=====================  ==========================================================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from minilambda.errors import BadArguments
from minilambda.worker.valuetypes import CORE_INTEGERS, FLOATS, INTEGERS, Signature, Type, shorten

_SHOWN: Final = 60  # characters of a refused value in a message
_MISSING: Final = object()


class _Unfit(Exception):
    """A value does not fit; holds where and why."""

    def __init__(self, where: str, type_: Type, value: object, why: str = "") -> None:
        super().__init__(where, type_, value, why)
        self.where, self.type, self.value, self.why = where, type_, value, why


def arguments(signature: Signature, texts: Sequence[str], packed: bytes | None) -> list[Any]:
    """The checked parameters of one call, from a msgpack list if there is one, else from texts.

    Raises BadArguments, which names the parameter, its type and the signature.
    """
    given: Sequence[Any] = texts if packed is None else _unpack(packed)
    _refuse_foreign(signature)
    if len(given) != len(signature.params):
        wanted = len(signature.params)
        raise BadArguments(f"{signature} takes {wanted} parameter{'s' * (wanted != 1)}, {len(given)} given.")
    checked = []
    for number, ((name, type_), value) in enumerate(zip(signature.params, given, strict=True), 1):
        try:
            checked.append(parse(type_, value) if packed is None else coerce(type_, value))
        except _Unfit as unfit:
            label = f'Parameter {number} ("{name}")' if name else f"Parameter {number}"
            place = f" at {unfit.where.lstrip('.')}" if unfit.where else ""
            shown = shorten(_show(unfit.value), _SHOWN)
            needed = shorten(str(unfit.type), _SHOWN)
            why = f" ({unfit.why})" if unfit.why else ""
            raise BadArguments(
                f"{label}{place} must be {needed}, got {shown}{why}; the function is {signature}."
            ) from None
    return checked


def _unpack(packed: bytes) -> list[Any]:
    try:
        given = msgpack.unpackb(packed, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack raises whatever the bytes provoke
        raise BadArguments(f"The values are not msgpack: {shorten(str(error), 100)}.") from None
    if not isinstance(given, list):
        raise BadArguments("The values must be a msgpack array, one element for each parameter.")
    return given


def _refuse_foreign(signature: Signature) -> None:
    for type_ in (*(t for _, t in signature.params), *signature.results):
        kind = type_.foreign()
        if kind is not None:
            raise BadArguments(f"{signature} can't be called from outside: values of {kind} can't be passed.")


def _show(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value[: 2 * _SHOWN], ensure_ascii=False)
    if isinstance(value, (list, dict, tuple, bytes)):
        return f"{type(value).__name__} of {len(value)}"
    return shorten(repr(value), _SHOWN) if not isinstance(value, int) or abs(value) < 1 << 256 else "a huge int"


# --- from text ------------------------------------------------------------------------------------------


def parse(type_: Type, text: str) -> Any:
    """A parameter given as text, checked. Simple types are bare, the others JSON. Raises on what does not fit."""
    kind = type_.kind
    if kind == "string" or kind in ("char", "enum"):
        return coerce(type_, _unquoted(text), shown=text)
    if kind == "bool":
        return coerce(type_, {"true": True, "false": False}.get(text.strip().lower(), text))
    if kind in INTEGERS or kind in CORE_INTEGERS:
        return coerce(type_, _number(int, text), shown=text)
    if kind in FLOATS:
        return coerce(type_, _number(float, text), shown=text)
    if kind == "option":
        if text.strip() in ("null", "none"):
            return None
        payload = type_.parts[0][1]
        if payload is not None and payload.kind != "option":
            return (parse(payload, text),)
    if kind in ("variant", "result") and text.strip() in {name for name, _ in type_.parts}:
        return coerce(type_, text.strip())
    if kind == "flags" and not text.lstrip().startswith("["):
        return coerce(type_, [part.strip() for part in text.split(",") if part.strip()])
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise _Unfit("", type_, text, "it is not JSON") from None
    return coerce(type_, value)


def _unquoted(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return value if isinstance(value, str) else text
    return text


def _number(kind: type[int] | type[float], text: str) -> Any:
    if len(text) > 400:
        return text
    try:
        return kind(text)
    except ValueError:
        try:
            return int(text, 0) if kind is int else text
        except ValueError:
            return text


# --- from values ----------------------------------------------------------------------------------------


def coerce(type_: Type, value: Any, where: str = "", shown: Any = _MISSING) -> Any:
    """A value in its checked form. Raises on what does not fit; ``where`` is the path for the message."""
    kind = type_.kind
    seen = value if shown is _MISSING else shown
    bounds = INTEGERS.get(kind) or CORE_INTEGERS.get(kind)
    if bounds is not None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _Unfit(where, type_, seen)
        if not bounds[0] <= value <= bounds[1]:
            raise _Unfit(where, type_, seen, f"the range is {bounds[0]} to {bounds[1]}")
        # A core integer has no sign of its own: above the signed range it wraps.
        half = (bounds[1] + 1) >> 1
        return value - (half << 1) if kind in CORE_INTEGERS and value >= half else value
    if kind in FLOATS:
        return _float(type_, value, where, seen)
    if kind == "bool":
        return _checked(isinstance(value, bool), type_, value, where, seen)
    if kind in ("string", "char"):
        fits = isinstance(value, str) and _encodes(value) and (kind == "string" or len(value) == 1)
        return _checked(fits, type_, value, where, seen)
    if kind == "enum":
        return _checked(isinstance(value, str) and value in dict(type_.parts), type_, value, where, seen)
    return _COMPOUND[kind](type_, value, where)


def _checked(fits: bool, type_: Type, value: Any, where: str, seen: Any) -> Any:
    if not fits:
        raise _Unfit(where, type_, seen)
    return value


def _encodes(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _float(type_: Type, value: Any, where: str, seen: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Unfit(where, type_, seen)
    try:
        return float(value)
    except OverflowError:
        raise _Unfit(where, type_, seen, "it is out of range") from None


def _list(type_: Type, value: Any, where: str) -> Any:
    element = type_.parts[0][1]
    assert element is not None
    if element.kind == "u8" and isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if not isinstance(value, (list, tuple)):
        raise _Unfit(where, type_, value)
    items = [coerce(element, item, f"{where}[{i}]") for i, item in enumerate(value)]
    return bytes(items) if element.kind == "u8" else items


def _record(type_: Type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _Unfit(where, type_, value)
    names = dict(type_.parts)
    if missing := [name for name in names if name not in value]:
        raise _Unfit(where, type_, value, f"the field {missing[0]} is missing")
    if extra := [name for name in value if name not in names]:
        raise _Unfit(where, type_, value, f"it has no field {shorten(str(extra[0]), _SHOWN)}")
    return tuple(coerce(t, value[n], f"{where}.{n}") for n, t in type_.parts if t is not None)


def _tuple(type_: Type, value: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != len(type_.parts):
        raise _Unfit(where, type_, value)
    pairs = zip(type_.parts, value, strict=True)
    return tuple(coerce(t, item, f"{where}[{i}]") for i, ((_, t), item) in enumerate(pairs) if t is not None)


def _variant(type_: Type, value: Any, where: str) -> Any:
    cases = dict(type_.parts)
    case, payload = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (value, None)
    if not isinstance(case, str) or case not in cases:
        raise _Unfit(where, type_, value, f"give one of {shorten(', '.join(cases), 120)}")
    wanted = cases[case]
    if wanted is not None:
        return case, coerce(wanted, payload, f"{where}.{case}")
    if payload is not None:
        raise _Unfit(where, type_, value, f"the case {case} has no value")
    return case, None


def _option(type_: Type, value: Any, where: str) -> Any:
    payload = type_.parts[0][1]
    assert payload is not None
    if value is None:
        return None
    if payload.kind == "option":  # null is the outer none; {"some": …} tells the levels apart
        if not isinstance(value, dict) or list(value) != ["some"]:
            raise _Unfit(where, type_, value, 'give null or {"some": value}')
        value = value["some"]
    return (coerce(payload, value, where),)


def _flags(type_: Type, value: Any, where: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _Unfit(where, type_, value)
    names = dict(type_.parts)
    for flag in value:
        if not isinstance(flag, str) or flag not in names:
            raise _Unfit(where, type_, flag, f"give some of {shorten(', '.join(names), 120)}")
    return [name for name in names if name in value]


_COMPOUND: Final = {
    "list": _list,
    "record": _record,
    "tuple": _tuple,
    "variant": _variant,
    "result": _variant,
    "option": _option,
    "flags": _flags,
}
