"""Where the guest's standard input comes from."""

from __future__ import annotations

import errno
import os
import sys
from typing import BinaryIO

from minilambda.client.sync import Client
from minilambda.errors import InputTooLarge
from minilambda.notation import MIB

_UNASKED = 16 * MIB  # so much is read before the broker is asked for its limit, bytes
_PIECE = MIB


def read_stdin(client: Client, source: str) -> bytes:
    """All of a file, or of our own stdin for ``-``. Raises ``OSError``, and ``InputTooLarge`` for one without end."""
    if source != "-":
        with open(source, "rb") as file:
            return _read(client, file)
    try:
        if sys.stdin is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return _read(client, sys.stdin.buffer)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard input") from None


def _read(client: Client, file: BinaryIO) -> bytes:
    data, limit = bytearray(), _UNASKED
    while True:
        while len(data) <= limit:
            piece = file.read(min(_PIECE, limit + 1 - len(data)))
            if not piece:
                return bytes(data)
            data += piece
        allowed = client.limits().max_stdin_bytes
        if allowed <= limit:
            raise InputTooLarge(f"The standard input has more than the {allowed} bytes that the broker takes.")
        limit = allowed
