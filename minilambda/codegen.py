"""Quick functions that turn one class of messages or parts into a header and back, written from its ``Shape``.

For ``Refused`` and its like the two look so:

    def write(m):                                      def read(h, bodies, spare):
        h = {"v": 1, "type": "error",                      o = new(cls)
             "request": m.request, ...}                    v = h["request"]
        x = m.job                                          if not (type(v) is int and 0 <= v <= 9223372036854775807):
        if x is not None:                                      return None
            h["job"] = x                                   o.request = v
        return h                                           ...

A job's messages are encoded and decoded a dozen times on its way, and going by the table costs three times as much.
``read`` takes only what is plainly right: for anything else (a wrong value, a key that it does not know, an explicit
None) it returns None or raises ``KeyError`` or ``TypeError``; then ``shapes`` goes through the header again and says
what is wrong with it, if anything is. So whatever ``read`` returns, the table would return too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, cast

from minilambda.fields import Check
from minilambda.messages import JobRef, JobSpec
from minilambda.shapes import MAX_REFS, REQUIRED, Field, Shape, check_of, is_tuple, shape_of, without_none

MAX_SHARED = 1024
"""Parts of one class that are kept to be shared, at most."""

SHARED = frozenset({JobSpec})
"""Parts that are often the same again: one that has only its required key is made once for many messages."""

Writer = Callable[[Any], dict[str, Any]]
"""Message to header, with the key ``bodies`` as a list of [name, bytes] where there are any."""

Reader = Callable[..., Any]
"""Header, bodies by name and the number of keys that are not fields to message."""

_kept: dict[type[Any], dict[Any, Any]] = {}  # the parts that are shared, by their key
_writers: dict[type[Any], Writer] = {}
_readers: dict[type[Any], Reader] = {}


def writer_of(cls: type[Any], **first: int | str) -> Writer:
    """The function that makes a header of a message; ``first``: the keys that every header of the class begins with."""
    made = _writers.get(cls)
    if made is None:
        made = _writers[cls] = cast(Writer, _Source(shape_of(cls)).write(first))
    return made


def reader_of(cls: type[Any]) -> Reader:
    """The function that makes a message of a header that has nothing wrong."""
    made = _readers.get(cls)
    if made is None:
        source = _Source(shape_of(cls))
        made = _readers[cls] = cast(Reader, source.read_ref() if cls is JobRef else source.read())
    return made


class _Source:
    """The source of one function, and the values that its names stand for."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._lines: list[str] = []
        self._names: dict[str, Any] = {"cls": shape.cls, "new": object.__new__}

    def _add(self, *lines: str) -> None:
        self._lines += lines

    def _name(self, value: Any) -> str:
        """A name for a value."""
        name = f"_{len(self._names)}"
        self._names[name] = value
        return name

    def _literal(self, value: Any) -> str:
        """The source of a default value; a map is one and the same for all messages, which nobody changes."""
        return repr(value) if type(value) in (int, str, bytes, bool, float, type(None), tuple) else self._name(value)

    def _made(self, name: str) -> Any:
        source = f"def {name}:\n    " + "\n    ".join(self._lines)
        exec(compile(source, f"<{self._shape.cls.__name__}>", "exec"), self._names)  # of our own classes only
        return self._names[name.partition("(")[0]]

    # --- message to header -----------------------------------------------------------------------

    def write(self, first: dict[str, int | str]) -> Any:
        fields = self._shape.fields.values()
        if self._shape.cls in SHARED:  # one that is shared has only its key
            (key,) = self._shape.required
            self._names["shared"] = _shared(self._shape.cls)
            self._add(f"if shared.get(m.{key}) is m:", f"    return {{{key!r}: m.{key}}}")
        entries = [f"{name!r}: {value!r}" for name, value in first.items()]
        entries += [
            f"{field.name!r}: {self._plain(field.hint, 'm.' + field.name)}" for field in fields if _needed(field)
        ]
        self._add(f"h = {{{', '.join(entries)}}}")
        for field in fields:
            if not _needed(field):
                self._write_unless_assumed(field)
        if self._shape.bodies:
            self._add("b = []")
            for name in self._shape.bodies:
                self._add(f"x = m.{name}", "if x:", f"    b.append(({name!r}, x))")
            self._add("if b:", "    h['bodies'] = b")
        if self._shape.cls in SHARED:
            self._add(f"share = len(h) == 1 and m.{key} not in shared")
            self._remember("m")
        self._add("return h")
        return self._made("write(m)")

    def _write_unless_assumed(self, field: Field) -> None:
        name, default = field.name, field.default
        self._add(f"x = m.{name}")
        if default is None:
            self._add("if x is not None:", f"    h[{name!r}] = {self._plain(field.hint, 'x')}")
        elif dataclasses.is_dataclass(without_none(field.hint)):  # at its default when all of its fields are
            self._add(f"x = {self._plain(field.hint, 'x')}", "if x:", f"    h[{name!r}] = x")
        else:
            differs = f"x != {self._literal(default)}" if default else "x"
            self._add(f"if {differs}:", f"    h[{name!r}] = {self._plain(field.hint, 'x')}")

    def _plain(self, hint: Any, value: str) -> str:
        """The source of what goes into msgpack."""
        part = without_none(hint)
        if not dataclasses.is_dataclass(part):
            return value
        return f"{self._name(writer_of(cast('type[Any]', part)))}({value})"

    # --- header to message -----------------------------------------------------------------------

    def read(self) -> Any:
        fields = self._shape.fields.values()
        self._add(f"n = len(h) - spare - {len(self._shape.required)}")
        share = self._shape.cls in SHARED
        if share:
            self._recall()
        self._add("o = new(cls)")
        for field in fields:
            if _needed(field):
                self._add(f"v = h[{field.name!r}]")
                self._check(without_none(field.hint), "")
                self._add(f"o.{field.name} = v")
        assumed = [f"    o.{field.name} = {self._literal(field.default)}" for field in fields if not _needed(field)]
        if assumed:
            self._add("if not n:", *assumed, "else:")
            for field in fields:
                if not _needed(field):
                    self._read_optional(field)
        self._add("if n:", "    return None")  # there is a key that is no field, or an explicit None
        self._read_bodies()
        if share:
            self._remember("o")
        self._add("return o")
        return self._made("read(h, bodies, spare)")

    def _read_optional(self, field: Field) -> None:
        self._add(f"    if {field.name!r} in h:", f"        v = h[{field.name!r}]", "        n -= 1")
        self._check(without_none(field.hint), "        ")
        self._add(f"        o.{field.name} = v", "    else:")
        self._add(f"        o.{field.name} = {self._literal(field.default)}")

    def _check(self, hint: Any, indent: str) -> None:
        """Lines that return None unless ``v`` is right, and make of it what the message has."""
        check = check_of(hint)
        if hint is JobRef or "refs" in getattr(hint, "__metadata__", ()):
            read = reader_of(JobRef)
            self._add(f"{indent}v = {self._name(read if hint is JobRef else _refs_reader(read))}(v)")
            lines = ["if v is None:", "    return None"]
        elif check is None:  # a part
            lines = ["if type(v) is not dict:", "    return None"]
            lines += [f"v = {self._name(reader_of(hint))}(v, None, 0)", "if v is None:", "    return None"]
        else:
            lines = [f"if not ({self._test(check)}):", "    return None"]
            lines += ["v = tuple(v)"] if is_tuple(hint) else []
        self._add(*(indent + line for line in lines))

    def _test(self, check: Check, name: str = "v") -> str:
        """The source of what is true of a right value of this name."""
        if not check.test:
            return f"{self._name(check.accept)}({name})"
        return re.sub(r"\bv\b", name, re.sub(r"\busing\b", self._name(check.using), check.test))

    def read_ref(self) -> Any:
        """The function that makes a reference of a list."""
        self._names["new"] = tuple.__new__
        fields = self._shape.fields.values()
        self._add("if type(r) is not list or len(r) != 3:", "    return None")
        self._add(", ".join(f"v_{field.name}" for field in fields) + " = r")
        for field in fields:
            test = self._test(cast(Check, check_of(field.hint)), f"v_{field.name}")
            self._add(f"if not ({test}):", "    return None")
        self._add("return new(cls, r)")
        return self._made("read(r)")

    def _read_bodies(self) -> None:
        bodies = self._shape.bodies
        if not bodies:
            self._add("if bodies:", "    return None")
            return
        self._add("if bodies:", *(f"    o.{name} = bodies.pop({name!r}, b'')" for name in bodies))
        self._add("    if bodies:", "        return None")  # there is one that the message does not have
        self._add("else:", "    " + " = ".join(f"o.{name}" for name in bodies) + " = b''")

    def _recall(self) -> None:
        (key,) = self._shape.required
        self._names["shared"] = _shared(self._shape.cls)
        self._add("if not n:", f"    v = shared.get(h[{key!r}])", "    if v is not None:", "        return v")
        self._add("    share = True", "else:", "    share = False")

    def _remember(self, name: str) -> None:
        (key,) = self._shape.required
        self._add("if share:", f"    if len(shared) >= {MAX_SHARED}:", "        shared.clear()")
        self._add(f"    shared[h[{key!r}]] = {name}")


def _shared(cls: type[Any]) -> dict[Any, Any]:
    return _kept.setdefault(cls, {})


def _needed(field: Field) -> bool:
    return field.default is REQUIRED


def _refs_reader(read: Reader) -> Callable[[Any], tuple[JobRef, ...] | None]:
    def read_refs(value: Any) -> tuple[JobRef, ...] | None:
        if type(value) is not list or len(value) > MAX_REFS:
            return None
        refs = tuple(map(read, value))
        return None if None in refs else refs

    return read_refs
