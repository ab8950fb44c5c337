"""Components' values between Python and wasmtime's raw form, and their types as ``values.Type``.

Raw parameters live in memory of ours, which ``Lowered`` keeps; wasmtime copies what it needs from there.
Raw results are wasmtime's, read here and freed by the caller.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Final

import wasmtime.component as wc

from minilambda.errors import BadArguments, OutputLimit
from minilambda.worker import engine
from minilambda.worker.valuetypes import Signature, Type

_CODES: Final = {
    name: code
    for code, name in enumerate(
        "bool s8 u8 s16 u16 s32 u32 s64 u64 f32 f64 char string "
        "list record tuple variant enum option result flags".split()
    )
}  # wasmtime's tag of a raw value
_MEMBERS: Final = {"bool": "boolean", "char": "character"}  # of the raw union, where it is not the kind's name
_FORMATS: Final = dict(zip("bool s8 u8 s16 u16 s32 u32 s64 u64 f32 f64".split(), "?bBhHiIqQfd", strict=True))
_TYPE_NODES: Final = 10_000  # types of one signature, counted with repetition: a small file can spell a huge type


# --- types ----------------------------------------------------------------------------------------------


def signature_of(name: str, func_type: wc.FuncType) -> Signature:
    """What a component's function takes and answers. Raises BadArguments for a type too large to handle."""
    budget = [_TYPE_NODES]
    try:
        params = tuple((param, _describe(type_, budget)) for param, type_ in func_type.params)
        result = func_type.result
        results = () if result is None else (_describe(result, budget),)
    except _TooLarge:
        raise BadArguments(f"The type of {name} is too large: over {_TYPE_NODES} parts.") from None
    except TypeError as error:  # a kind of type that wasmtime's Python does not know
        raise BadArguments(f"{name} can't be called from outside: {error}.") from None
    return Signature(name, params, results)


class _TooLarge(Exception):
    pass


def _describe(type_: wc.ValType, budget: list[int]) -> Type:
    budget[0] -= 1
    if budget[0] < 0:
        raise _TooLarge

    def sub(inner: wc.ValType | None) -> Type | None:
        return None if inner is None else _describe(inner, budget)

    if isinstance(type_, wc.ListType):
        return Type("list", (("", sub(type_.element)),))
    if isinstance(type_, wc.RecordType):
        return Type("record", tuple((n, sub(t)) for n, t in type_.fields))
    if isinstance(type_, wc.TupleType):
        return Type("tuple", tuple(("", sub(t)) for t in type_.elements))
    if isinstance(type_, wc.VariantType):
        return Type("variant", tuple((n, sub(t)) for n, t in type_.cases))
    if isinstance(type_, wc.EnumType):
        return Type("enum", tuple((n, None) for n in type_.names))
    if isinstance(type_, wc.OptionType):
        return Type("option", (("some", sub(type_.payload)),))
    if isinstance(type_, wc.ResultType):
        return Type("result", (("ok", sub(type_.ok)), ("err", sub(type_.err))))
    if isinstance(type_, wc.FlagsType):
        return Type("flags", tuple((n, None) for n in type_.names))
    return Type(type(type_).__name__.removesuffix("Type").lower())


# --- Python to raw --------------------------------------------------------------------------------------


class Lowered:
    """The raw parameters of one call, in ``params``; valid while this object lives."""

    def __init__(self, signature: Signature, values: list[Any]) -> None:
        self._kept: list[Any] = []  # the memory that raw values point to
        self.params = (engine.RawValue * len(values))()
        for raw, (_, type_), value in zip(self.params, signature.params, values, strict=True):
            self._lower(type_, value, raw)

    def _lower(self, type_: Type, value: Any, raw: Any) -> None:
        kind = type_.kind
        raw.kind = _CODES[kind]
        if kind in _FORMATS:
            setattr(raw.of, _MEMBERS.get(kind, kind), value)
        elif kind == "char":
            raw.of.character = ord(value)
        elif kind == "string":
            self._name(value, raw.of.string)
        elif kind == "enum":
            self._name(value, raw.of.enumeration)
        elif kind == "list":
            self._list(type_, value, raw.of.list)
        elif kind == "flags":
            names = self._array(engine.RawName, len(value), raw.of.flags)
            for name, text in zip(names, value, strict=True):
                self._name(text, name)
        elif kind in ("record", "tuple"):
            self._fields(type_, value, raw)
        elif kind == "option":
            if value is not None:
                raw.of.option = self._boxed(type_.parts[0][1], value[0])
        else:
            case, payload = value
            inner = dict(type_.parts)[case]
            target = raw.of.result if kind == "result" else raw.of.variant
            if kind == "result":
                target.is_ok = case == "ok"
            else:
                self._name(case, target.discriminant)
            if inner is not None:
                target.val = self._boxed(inner, payload)

    def _array(self, of: Any, count: int, owner: Any) -> Any:
        array = (of * count)()
        self._kept.append(array)
        owner.size = count
        owner.data = ctypes.cast(array, ctypes.POINTER(of))
        return array

    def _boxed(self, type_: Type | None, value: Any) -> Any:
        assert type_ is not None
        raw = engine.RawValue()
        self._kept.append(raw)
        self._lower(type_, value, raw)
        return ctypes.pointer(raw)

    def _name(self, text: str, name: Any) -> None:
        data = text.encode()
        ctypes.memmove(self._array(engine.RawByte, len(data), name), data, len(data))

    def _list(self, type_: Type, value: Any, owner: Any) -> None:
        element = type_.parts[0][1]
        assert element is not None
        array = self._array(engine.RawValue, len(value), owner)
        if isinstance(value, bytes):
            view = memoryview(array).cast("B")
            step, offset = ctypes.sizeof(engine.RawValue), engine.RawValue.of.offset
            view[::step] = bytes((_CODES["u8"],)) * len(value)
            view[offset::step] = value
            return
        for raw, item in zip(array, value, strict=True):
            self._lower(element, item, raw)

    def _fields(self, type_: Type, value: Any, raw: Any) -> None:
        if type_.kind == "tuple":
            for item, (_, inner), one in zip(
                self._array(engine.RawValue, len(value), raw.of.tuple), type_.parts, value, strict=True
            ):
                assert inner is not None
                self._lower(inner, one, item)
            return
        for entry, (name, inner), one in zip(
            self._array(engine.RawEntry, len(value), raw.of.record), type_.parts, value, strict=True
        ):
            assert inner is not None
            self._name(name, entry.name)
            self._lower(inner, one, entry.val)


# --- raw to Python --------------------------------------------------------------------------------------


class Lifter:
    """Reads raw results into what msgpack can hold; gives up once they are certain to pass the output limit."""

    def __init__(self, limit: int) -> None:
        self._left = limit  # bytes; each value takes one or more
        self._limit = limit  # bytes, for the message

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise OutputLimit(f"The result is larger than the output limit of {self._limit} bytes.")

    def lift(self, type_: Type, raw: Any) -> Any:
        """The Python value of a raw one. Raises OutputLimit."""
        kind = type_.kind
        self._spend(1)
        if kind in _FORMATS:
            return getattr(raw.of, _MEMBERS.get(kind, kind))
        if kind == "char":
            return chr(raw.of.character)
        if kind in ("string", "enum"):
            return self._name(raw.of.string)
        if kind == "list":
            return self._list(type_.parts[0][1], raw.of.list)
        if kind == "flags":
            return [self._name(raw.of.flags.data[i]) for i in range(raw.of.flags.size)]
        if kind == "tuple":
            return [self._inner(t, raw.of.tuple.data[i]) for i, (_, t) in enumerate(type_.parts)]
        if kind == "record":
            return {n: self._inner(t, raw.of.record.data[i].val) for i, (n, t) in enumerate(type_.parts)}
        if kind == "option":
            return self._option(type_.parts[0][1], raw.of.option)
        case, value = (
            ("ok" if raw.of.result.is_ok else "err", raw.of.result.val)
            if kind == "result"
            else (
                self._name(raw.of.variant.discriminant),
                raw.of.variant.val,
            )
        )
        inner = dict(type_.parts)[case]
        return {case: None if inner is None else self._inner(inner, value.contents)}

    def _inner(self, type_: Type | None, raw: Any) -> Any:
        assert type_ is not None
        return self.lift(type_, raw)

    def _name(self, name: Any) -> str:
        self._spend(name.size)
        return ctypes.string_at(name.data, name.size).decode() if name.size else ""

    def _option(self, payload: Type | None, pointer: Any) -> Any:
        assert payload is not None
        if not pointer:
            return None
        value = self.lift(payload, pointer.contents)
        return {"some": value} if payload.kind == "option" else value

    def _list(self, element: Type | None, raw: Any) -> Any:
        assert element is not None
        self._spend(raw.size)
        if element.kind not in _FORMATS or not raw.size:
            items = [self.lift(element, raw.data[i]) for i in range(raw.size)]
            return bytes(items) if element.kind == "u8" else items
        step, offset = ctypes.sizeof(engine.RawValue), engine.RawValue.of.offset
        buffer = (ctypes.c_uint8 * (step * raw.size)).from_address(ctypes.addressof(raw.data.contents))
        if element.kind == "u8":
            return bytes(memoryview(buffer).cast("B")[offset::step])
        one = _FORMATS[element.kind]
        pattern = f"={offset}x{one}{step - offset - struct.calcsize('=' + one)}x"
        return [item for (item,) in struct.iter_unpack(pattern, buffer)]
