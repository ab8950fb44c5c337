"""The types of exported functions' values, and how they are written in a message. Pure: knows no wasmtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INTEGERS: Final = {
    f"{sign}{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) if sign == "s" else (0, (1 << bits) - 1)
    for sign in "su"
    for bits in (8, 16, 32, 64)
}
"""Integer types of components: lowest and highest value."""

CORE_INTEGERS: Final = {f"i{bits}": (-(1 << bits - 1), (1 << bits) - 1) for bits in (32, 64)}
"""Integer types of core modules take the signed and the unsigned range."""

FLOATS: Final = ("f32", "f64")
SIMPLE: Final = frozenset((*INTEGERS, *CORE_INTEGERS, *FLOATS, "bool", "char", "string"))
COMPOUND: Final = frozenset(("list", "record", "tuple", "variant", "enum", "option", "result", "flags"))

_SIGNATURE_SHOWN: Final = 400  # characters of a signature in a message


def shorten(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


@dataclass(frozen=True, slots=True)
class Type:
    """A value type. ``parts`` are (name, type) of what it is made of; the name is empty where there is none."""

    kind: str  # a name of SIMPLE or COMPOUND, else a type that can't cross (``own``, ``v128`` …)
    parts: tuple[tuple[str, Type | None], ...] = ()  # fields, elements, cases or flags, in order

    def __str__(self) -> str:
        if self.kind in ("list", "tuple", "option"):
            return f"{self.kind}<{', '.join(str(t) for _, t in self.parts)}>"
        if self.kind == "result":
            ok, err = (t for _, t in self.parts)
            inside = "" if ok is err is None else f"<{ok or '_'}>" if err is None else f"<{ok or '_'}, {err}>"
            return "result" + inside
        if self.kind == "record":
            return "record {" + ", ".join(f"{n}: {t}" for n, t in self.parts) + "}"
        if self.kind in ("variant", "enum", "flags"):
            return f"{self.kind} {{" + ", ".join(n if t is None else f"{n}({t})" for n, t in self.parts) + "}"
        return self.kind

    def foreign(self) -> str | None:
        """The kind of a part that can't cross the boundary, None where all can."""
        if self.kind not in SIMPLE and self.kind not in COMPOUND:
            return self.kind
        return next((f for _, t in self.parts if t is not None and (f := t.foreign())), None)


@dataclass(frozen=True, slots=True)
class Signature:
    """An exported function as its caller sees it."""

    name: str
    params: tuple[tuple[str, Type], ...]  # (name, type); names are empty for core modules
    results: tuple[Type, ...]  # at most one for components

    def __str__(self) -> str:
        params = ", ".join(f"{n}: {t}" if n else str(t) for n, t in self.params)
        results = ", ".join(map(str, self.results))
        arrow = "" if not self.results else f" -> {results}" if len(self.results) == 1 else f" -> ({results})"
        return shorten(f"{self.name}({params}){arrow}", _SIGNATURE_SHOWN)
