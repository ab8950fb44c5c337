"""Frames to messages and back."""

from __future__ import annotations

import dataclasses

import msgpack
import pytest

from minilambda.fields import MAX_FRAME
from minilambda.messages import (
    BROKER_MESSAGES,
    CLIENT_MESSAGES,
    REPLIES,
    WORKER_MESSAGES,
    Done,
    ErrorInfo,
    Hello,
    JobRef,
    JobResult,
    JobSpec,
    Message,
    Put,
    Refused,
    Register,
    Report,
    Result,
    Run,
    Usage,
    WorkerList,
)
from minilambda.wire import MAX_IN_PLACE, VERSION, decode, encode
from tests.unit.wire_frames import ALL, BY_NAME, DIGEST, LIMIT, hello, there_and_back

# --- there and back ----------------------------------------------------------------------------------

SPEC = JobSpec(DIGEST, ("a", "\N{SNOWMAN}"), {"K": "v"}, "add", "trap", 1, 2, 3, 4, 5, -6, "g", "fail")
RESULT = Result("failed", None, ErrorInfo("trap", "m", "t", "b"), Usage(1.5, 2.0), "warm", "w", 3)


@pytest.mark.parametrize(
    "message",
    [
        Hello(2**63 - 1),
        Run(1, "j", SPEC, True, True, "00-0-0-01", b"wasm", b"stdin", b"values"),
        Run(1, "j", JobSpec(DIGEST)),
        Put(1, DIGEST, 10, 5, b"data"),
        JobResult(1, "j", RESULT, b"out", b"", b"value"),
        Refused(0, "busy", "x", 500, None),
        Register("w", "name", 4, held=(JobRef("p", "j", 1),), finished=(JobRef("p", "k", 2), JobRef("p", "l", 3))),
        Register("w", "name", 4, artifacts=(DIGEST,) * 32),
        Report(1, 2, 3, True, (JobRef("p", "j", 1),)),
        Done(1, JobRef("p", "j", 1), 2, 3, RESULT, {"stdout": 2**40}, b"", b"err"),
        WorkerList(1, ({"name": "w", "slots": 1},), 7),
    ],
    ids=lambda message: message.TYPE,
)
def test_a_message_comes_back_as_it_was(message: Message) -> None:
    assert there_and_back(message) == message


@pytest.mark.parametrize(
    "size", [1, MAX_IN_PLACE, MAX_IN_PLACE + 1, MAX_FRAME - 1, MAX_FRAME, MAX_FRAME + 1, 3 * MAX_FRAME + 1]
)
def test_a_body_travels_in_frames_of_a_bounded_size(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    frames = encode(Run(1, "j", JobSpec(DIGEST), stdin=body, values=b"next"))
    assert max(map(len, frames)) <= MAX_FRAME
    assert len(frames) == 1 + (-(-size // MAX_FRAME) if size > MAX_IN_PLACE else 0)
    message = there_and_back(Run(1, "j", JobSpec(DIGEST), stdin=body, values=b"next"))
    assert isinstance(message, Run)
    assert (message.stdin, message.values, message.wasm) == (body, b"next", b"")


def test_fields_at_their_default_do_not_travel() -> None:
    assert msgpack.unpackb(encode(Run(1, "j", JobSpec(DIGEST)))[0]) == {
        "v": VERSION,
        "type": "run",
        "request": 1,
        "job": "j",
        "spec": {"module": DIGEST},
    }


def test_a_field_of_a_later_version_is_ignored() -> None:
    assert decode(hello(colour="red"), BY_NAME, LIMIT) == Hello(1)


def test_every_message_has_a_name_of_its_own_in_its_direction() -> None:
    for group in (CLIENT_MESSAGES + WORKER_MESSAGES, REPLIES, BROKER_MESSAGES):
        assert len({cls.TYPE for cls in group}) == len(group)
    assert all(dataclasses.is_dataclass(cls) for cls in ALL)
