"""The kinds of value that a header field may hold, each with its limits.

A message class annotates its fields with these (``job: JobId``); ``wire`` turns the annotations into
checks, so the class is the specification. A value that is out of its limits never reaches a core.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

MAX_FRAME = 256 * 1024
"""Largest frame of any message, bytes. A larger body travels in several."""

MAX_INT = 2**63 - 1

MAX_PATH = 1024
"""Longest path in a guest, characters."""

MAX_NAME = 255
"""Longest name of one file or folder in a path, bytes."""

MAX_FILES = 2048
"""Most files of one job."""

MAX_COLLECTED = 64
"""Most paths that one job brings back; a folder counts as one."""

MAX_AT_HAND = 32
"""Most modules that a worker names when it registers."""


@dataclass(frozen=True, slots=True)
class Check:
    """``accept(value)`` tells whether a decoded value may stand in a field; ``what`` says so for people.

    ``test`` says the same as ``accept`` as an expression of ``v`` and of ``using``, one value that it may need:
    ``codegen`` writes it in line. "": there is none, ``accept`` is called.
    """

    what: str
    accept: Callable[[Any], bool]
    test: str = ""
    using: Any = None


def _tested(what: str, test: str, using: Any = None) -> Check:
    return Check(what, eval(f"lambda v: {test}", {"using": using}), test, using)


def integer(low: int, high: int) -> Check:
    return _tested(f"an integer from {low} to {high}", f"type(v) is int and {low} <= v <= {high}")


def number(high: float) -> Check:
    return _tested(f"a number from 0 to {high:g}", f"(type(v) is float or type(v) is int) and 0 <= v <= {high!r}")


def text(limit: int) -> Check:
    return _tested(f"text of at most {limit} characters", f"type(v) is str and len(v) <= {limit}")


def pattern(regex: str, what: str) -> Check:
    return _tested(what, "type(v) is str and using(v) is not None", re.compile(regex).fullmatch)


def one_of(*words: str) -> Check:
    return _tested("one of " + ", ".join(words), "type(v) is str and v in using", frozenset(words))


def texts(count: int, limit: int) -> Check:
    def accept(value: Any) -> bool:
        return (
            type(value) in (list, tuple)
            and len(value) <= count
            and all(type(item) is str and len(item) <= limit and "\0" not in item for item in value)
        )

    return Check(f"a list of at most {count} texts", accept)


def text_map(count: int, limit: int) -> Check:
    def accept(value: Any) -> bool:
        return (
            type(value) is dict
            and len(value) <= count
            and all(
                type(k) is str and type(v) is str and 0 < len(k) <= limit and len(v) <= limit and "\0" not in k + v
                for k, v in value.items()
            )
        )

    return Check(f"a map of at most {count} texts to texts", accept)


def size_map(count: int) -> Check:
    def accept(value: Any) -> bool:
        return (
            type(value) is dict
            and len(value) <= count
            and all(type(k) is str and len(k) <= 16 and type(v) is int and 0 <= v <= MAX_INT for k, v in value.items())
        )

    return Check(f"a map of at most {count} names to sizes", accept)


def count_map(count: int) -> Check:
    def accept(value: Any) -> bool:
        return (
            type(value) is dict
            and len(value) <= count
            and all(type(k) is str and len(k) <= 64 and type(v) is int and 0 <= v <= MAX_INT for k, v in value.items())
        )

    return Check(f"a map of at most {count} names to numbers", accept)


_digest = re.compile(r"sha256:[0-9a-f]{64}").fullmatch


def is_guest_path(path: Any) -> bool:
    """Whether this is an absolute path that means the same to everybody: no dots, nothing empty, no odd characters."""
    if type(path) is not str or not 2 <= len(path) <= MAX_PATH or path[0] != "/" or not path.isprintable():
        return False
    return all(
        part not in ("", ".", "..") and len(part.encode("utf-8", "replace")) <= 255 for part in path[1:].split("/")
    )


def file_map(count: int) -> Check:
    def accept(value: Any) -> bool:
        return (
            type(value) is dict
            and len(value) <= count
            and all(is_guest_path(k) and type(v) is str and _digest(v) is not None for k, v in value.items())
        )

    return Check(f"a map of at most {count} absolute paths, without . and .., to the digests of files", accept)


def paths(count: int) -> Check:
    def accept(value: Any) -> bool:
        return type(value) in (list, tuple) and len(value) <= count and all(is_guest_path(item) for item in value)

    return Check(f"a list of at most {count} absolute paths, without . and ..", accept)


def digests(count: int) -> Check:
    def accept(value: Any) -> bool:
        return (
            type(value) in (list, tuple)
            and len(value) <= count
            and all(type(item) is str and _digest(item) is not None for item in value)
        )

    return Check(f"a list of at most {count} digests", accept)


Count = Annotated[int, integer(0, MAX_INT)]
Attempt = Annotated[int, integer(1, 1_000_000)]
Millis = Annotated[int, integer(0, 366 * 24 * 3600 * 1000)]
Duration = Annotated[float, number(1e15)]
Size = Annotated[int, integer(0, 2**48)]
Flag = Annotated[bool, _tested("true or false", "type(v) is bool")]
RequestId = Annotated[int, integer(0, MAX_INT)]
JobId = Annotated[str, pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 of the characters A-Z a-z 0-9 . _ -")]
Digest = Annotated[str, pattern(r"sha256:[0-9a-f]{64}", "'sha256:' and 64 hex digits in lower case")]
Handle = Annotated[str, text(512)]
Label = Annotated[str, text(128)]
Sentence = Annotated[str, text(16 * 1024)]
Code = Annotated[str, pattern(r"[a-z][a-z0-9_]{0,31}", "a code in lower case")]
Texts = Annotated[tuple[str, ...], texts(4096, MAX_FRAME)]
TextMap = Annotated[dict[str, str], text_map(4096, MAX_FRAME)]
SizeMap = Annotated[dict[str, int], size_map(8)]
FileMap = Annotated[dict[str, str], file_map(MAX_FILES)]
Paths = Annotated[tuple[str, ...], paths(MAX_COLLECTED)]
Digests = Annotated[tuple[str, ...], digests(MAX_AT_HAND)]
