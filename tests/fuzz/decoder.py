"""The wire decoder: any frames are a message or ``Malformed``, and both ways of reading them agree."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from minilambda import wire
from minilambda.messages import BROKER_MESSAGES, CLIENT_MESSAGES, REPLIES, WORKER_MESSAGES, Message
from minilambda.wire import Malformed, by_name, decode, encode
from tests.fuzz import corpus
from tests.fuzz.mutation import Frames, Mutator

SIDES = (by_name(CLIENT_MESSAGES + WORKER_MESSAGES), by_name(BROKER_MESSAGES), by_name(REPLIES))
"""What a broker, a worker and a client take."""

MAX_BODY = 1 << 20


def one_input(frames: Sequence[bytes]) -> None:
    """Give frames to all three sides. Raises ``AssertionError``, or whatever escapes from the decoder."""
    frames = list(frames)
    wire.split_envelope(frames)
    for accepted in SIDES:
        try:
            message = decode(frames, accepted, MAX_BODY)
        except Malformed as error:
            assert error.error.message and error.error.code in ("bad_request", "unsupported_version", "input_too_large")
            assert 0 <= error.request < 2**63
            assert len(error.error.message) < 1000, "a sentence repeats what it was sent"
            encode_refusal(error)
            continue
        carefully = wire._careful(wire._unpack(frames[0]), frames, accepted, MAX_BODY)
        assert same(carefully, message), f"{carefully} is {message} by the quick way"
        again = decode(encode(message), {message.TYPE: type(message)}, MAX_BODY)
        assert again == message or no_zeros(again) == no_zeros(message), f"{message} came back as {again}"


def encode_refusal(error: Malformed) -> None:
    """What a broker answers can be sent and read."""
    from minilambda.messages import Refused

    refused = Refused(error.request, error.error.code, error.error.message, job=error.job)
    assert decode(encode(refused), SIDES[2], MAX_BODY) == refused


def same(one: Message, other: Message) -> bool:
    """Equal to the last bit: a value of another type, or another kind of zero, is another value."""
    return repr(one) == repr(other)


def no_zeros(message: Message) -> str:
    """The message, no matter which kind of zero it has where: one that is a default is not sent. NaN equals itself."""
    return re.sub(r"-?\b0(\.0)?\b", "0", repr(message))


def fuzz(mutator: Mutator, rounds: int, *, kind: str = "", guided: bool = True) -> int:
    """Feed that many inputs; answers how many led to a new place in the decoder. ``kind``: keep those as files."""
    pool = corpus.load()
    seen: set[tuple[str, int]] = set()
    for frames in pool:
        trace(frames, seen)
    classes = [cls for side in SIDES for cls in side.values()]
    found = 0
    for number in range(rounds):
        if number % 4:
            frames = mutator.frames(mutator.random.choice(pool), pool)
        else:
            frames = mutator.message(mutator.random.choice(classes))
        try:
            new = trace(frames, seen) if guided else one_input(frames)
        except BaseException:
            corpus.keep(frames, "fault")
            raise
        if new:
            found += 1
            pool.append(frames)
            if kind:
                corpus.keep(frames, kind)
    return found


def trace(frames: Frames, seen: set[tuple[str, int]]) -> bool:
    """``one_input``, and whether it went through a line that none before it did."""
    before = len(seen)

    def lines(frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
        return lines

    def calls(frame: FrameType, _event: str, _arg: Any) -> Any:
        name = frame.f_code.co_filename
        return lines if name.startswith("<") or name.endswith(("wire.py", "shapes.py", "fields.py")) else None

    old = sys.gettrace()
    sys.settrace(calls)
    try:
        one_input(frames)
    finally:
        sys.settrace(old)
    return len(seen) > before
