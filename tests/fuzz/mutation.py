"""Hostile input: frames and messages, drawn from one seed, made of what was seen and of what is known to hurt."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import msgpack

from minilambda.fields import MAX_FRAME
from minilambda.messages import JobRef, Message
from minilambda.shapes import check_of, shape_of, without_none
from minilambda.wire import VERSION

Frames = list[bytes]

NUMBERS = (0, 1, 2, 255, 256, 4096, 65_535, 2**31 - 1, 2**31, 2**32, 2**48, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(-number for number in NUMBERS[1:-2]),
    *(0.0, -0.0, 0.5, 1e308, -1e308, float("inf"), float("-inf"), float("nan")),
    *(
        None,
        True,
        False,
        "",
        b"",
        "\0",
        "\N{SNOWMAN}",
        "x" * 129,
        "x" * 600,
        "a/b",
        b"\xff\xfe",
        [],
        {},
        [[]],
        {"": {}},
    ),
    *("sha256:" + "0" * 64, "local", "*", "completed", "running", "stdin", "j0/1/stdin/local"),
)
PIECES = (
    *(b"\xc1", b"\xff", b"\x00", b"\x80", b"\x90", b"\xc0", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"),
    *(b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xd6\xff" + bytes(4)),
    *(b"\x91" * 600, b"\x81" * 600, b"\x81\xa1a" * 600, b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xa1\xff"),
)


class Mutator:
    """Draws from one seed. ``pools`` are good values by the name of a field; the drawn ones come from there often."""

    def __init__(self, seed: int | random.Random, pools: dict[str, list[Any]] | None = None) -> None:
        self.random = seed if isinstance(seed, random.Random) else random.Random(seed)
        self.pools = pools if pools is not None else {}

    # --- frames ----------------------------------------------------------------------------------

    def frames(self, frames: Sequence[bytes], others: Sequence[Frames] = ()) -> Frames:
        """Something like ``frames``, changed at one to four places."""
        made = [bytes(frame) for frame in frames]
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 4))):
            made = self._step(made, others)
        return made

    def _step(self, frames: Frames, others: Sequence[Frames]) -> Frames:
        draw = self.random.random()
        if draw < 0.45 and frames:
            header = self._header(frames[0])
            if header is not None:
                return [header, *frames[1:]]
        if draw < 0.75 and frames:
            at = self.random.randrange(len(frames))
            return [*frames[:at], self.bytes(frames[at]), *frames[at + 1 :]]
        at = self.random.randrange(len(frames) + 1)
        if draw < 0.85:
            return frames[:at] + frames[at + 1 :]
        if draw < 0.9 and others:
            return frames[:at] + self.random.choice(others)
        extra = self.random.choice((b"", b"x", bytes(4096), bytes(4097), bytes(MAX_FRAME), bytes(MAX_FRAME + 1)))
        return [*frames[:at], extra, *frames[at:]][:64]

    def bytes(self, data: bytes) -> bytes:
        """Bytes changed at one place."""
        pick, made = self.random.randrange, bytearray(data)
        at = pick(len(made) + 1)
        how = pick(6)
        if how == 0 and at < len(made):
            made[at] ^= 1 << pick(8)
        elif how == 1 and at < len(made):
            made[at] = pick(256)
        elif how == 2:
            del made[at : at + self.random.choice((1, 2, 8, 64, len(made)))]
        elif how == 3:
            made[at:at] = self.random.choice(PIECES)
        elif how == 4:
            piece = self.random.choice(PIECES)
            made[at : at + len(piece)] = piece
        else:
            start = pick(len(made) + 1)
            made[at:at] = made[start : start + pick(65)]
        return bytes(made[: MAX_FRAME + 16])

    def _header(self, data: bytes) -> bytes | None:
        """A header that is still msgpack, with another key or value somewhere; None where there is none to change."""
        try:
            header = msgpack.unpackb(data, strict_map_key=False)
            if type(header) is not dict or not header:
                return None
            self._change(header)
            return bytes(msgpack.packb(header, unicode_errors="surrogatepass"))
        except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException):
            return None

    def _change(self, value: Any) -> None:
        """Change one thing in a map or list, however deep."""
        keys = list(value) if type(value) is dict else list(range(len(value)))
        if not keys or self.random.random() < 0.1:
            if type(value) is dict:
                value[self.random.choice(("x", "stream", "bodies", "session", 7, b"k"))] = self.value("")
            else:
                value.append(self.value(""))
            return
        key = self.random.choice(keys)
        inner = value[key]
        if type(inner) in (dict, list) and self.random.random() < 0.7:
            self._change(inner)
        elif self.random.random() < 0.15:
            del value[key]
        else:
            value[key] = self.value(key if type(key) is str else "")

    def value(self, name: str) -> Any:
        """Something that may stand in a field of that name."""
        pool = self.pools.get(name)
        if pool and self.random.random() < 0.6:
            return self.random.choice(pool)
        if self.random.random() < 0.05:
            return self._deep()
        return self.random.choice(VALUES)

    def _deep(self) -> Any:
        value: Any = None
        for _ in range(self.random.choice((3, 30, 300))):
            value = [value] if self.random.random() < 0.5 else {"a": value}
        return value

    # --- messages --------------------------------------------------------------------------------

    def message(self, cls: type[Message]) -> Frames:
        """Frames of a message of that class: mostly good ones, with values from the pools."""
        shape = shape_of(cls)
        header: dict[Any, Any] = {"v": VERSION, "type": cls.TYPE, **self._fields(cls)}
        bodies, frames = [], []
        for name in shape.bodies:
            pool = self.pools.get(name, [])
            body = self.random.choice(pool) if pool and self.random.random() < 0.5 else b""
            if body and self.random.random() < 0.5 and len(body) <= 4096:
                bodies.append([name, body])
            elif body:
                bodies.append([name, len(body)])
                frames += [body[at : at + MAX_FRAME] for at in range(0, len(body), MAX_FRAME)]
        if bodies:
            header["bodies"] = bodies
        return [bytes(msgpack.packb(header, unicode_errors="surrogatepass")), *frames]

    def _fields(self, cls: type[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in shape_of(cls).fields.items():
            if name in shape_of(cls).required or self.random.random() < 0.3:
                found[name] = self._field(name, field.hint)
        return found

    def _field(self, name: str, hint: Any) -> Any:
        """A value of the right kind, nearly always."""
        if self.random.random() < 0.01:
            return self.random.choice(VALUES)
        hint = without_none(hint)
        if hint is JobRef:
            return self.ref()
        if "refs" in getattr(hint, "__metadata__", ()):
            return [self.ref() for _ in range(self.random.choice((0, 1, 2, 5)))]
        if dataclasses.is_dataclass(hint):
            return self._fields(hint)  # type: ignore[arg-type]
        pool, check = self.pools.get(name), check_of(hint)
        if pool and self.random.random() < 0.9:
            return self.random.choice(pool)
        good = [value for value in VALUES if check is None or check.accept(value)]
        return self.random.choice(good or VALUES)

    def ref(self) -> list[Any]:
        """A reference to an attempt that may exist."""
        known = self.pools.get("ref")
        if known and self.random.random() < 0.6:
            return list(self.random.choice(known))
        jobs, principals = self.pools.get("job", ["j"]), self.pools.get("principal", ["local"])
        return [self.random.choice(principals), self.random.choice(jobs), self.random.choice((1, 1, 2, 3, 1_000_000))]
