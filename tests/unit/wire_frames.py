"""Frames of every kind for the tests of the wire format."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from minilambda.messages import BROKER_MESSAGES, CLIENT_MESSAGES, REPLIES, WORKER_MESSAGES, Message
from minilambda.wire import VERSION, Malformed, by_name, decode, encode

DIGEST = "sha256:" + "ab" * 32
ALL = tuple({cls.TYPE + str(index > 1): cls for index, group in enumerate(
    (CLIENT_MESSAGES, REPLIES, WORKER_MESSAGES, BROKER_MESSAGES)) for cls in group}.values())  # fmt: skip
BY_NAME = by_name(CLIENT_MESSAGES + REPLIES + WORKER_MESSAGES + BROKER_MESSAGES)
LIMIT = 1 << 30


def there_and_back(message: Message) -> Message:
    return decode([bytes(frame) for frame in encode(message)], by_name([type(message)]), LIMIT)


def header(**fields: Any) -> bytes:
    return msgpack.packb({"v": VERSION, **fields})


def refuse(*frames: bytes, max_body: int = LIMIT) -> Malformed:
    with pytest.raises(Malformed) as caught:
        decode(list(frames), BY_NAME, max_body)
    return caught.value


def hello(**fields: Any) -> list[bytes]:
    return [header(type="hello", request=1, **fields)]
