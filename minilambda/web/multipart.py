"""Reading a multipart body as it comes, with bounds on all that it has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from minilambda.web.problems import Problem

MAX_HEAD = 8 * 1024
"""The headers of one part have at most so many bytes."""


class Part(NamedTuple):
    """One part of a form."""

    name: str
    data: bytes


class _Parts:
    """Takes the parser's events."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._field = self._value = b""
        self._name = ""
        self._data = bytearray()
        self._head = 0  # bytes of the part's headers so far
        self.found: list[Part] = []
        self.complete = False

    def on_part_begin(self) -> None:
        if len(self.found) >= self._most:
            raise Problem("body_too_large", f"The body has more than {self._most} parts.")
        self._field, self._value, self._name, self._data = b"", b"", "", bytearray()
        self._head = 0

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, parameters = parse_options_header(self._value)
            self._name = parameters.get(b"name", b"").decode("utf-8", "replace")
        self._field, self._value = b"", b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def on_part_end(self) -> None:
        if not self._name:
            raise Problem("bad_request", "A part of the body has no name.")
        self.found.append(Part(self._name, bytes(self._data)))
        self._data = bytearray()

    def on_end(self) -> None:
        self.complete = True

    def _count(self, size: int) -> None:
        """Not all versions of the parser bound what they take for headers."""
        self._head += size
        if self._head > MAX_HEAD:
            raise Problem("bad_request", f"A part of the body has more than {MAX_HEAD} bytes of headers.")


async def read_parts(content_type: str, pieces: AsyncIterator[bytes], most: int) -> list[Part]:
    """The parts of a form, in order. Raises ``Problem`` for a body that is none."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:
        raise Problem("bad_request", "The Content-Type has no boundary.")
    parts = _Parts(most)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": parts.on_part_begin,
            "on_header_field": parts.on_header_field,
            "on_header_value": parts.on_header_value,
            "on_header_end": parts.on_header_end,
            "on_part_data": parts.on_part_data,
            "on_part_end": parts.on_part_end,
            "on_end": parts.on_end,
        },
    )
    try:
        async for piece in pieces:
            parser.write(piece)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Problem("bad_request", f"The body is not a form: {error}.") from None
    if not parts.complete:
        raise Problem("bad_request", "The body ends before the form does.")
    return parts.found
