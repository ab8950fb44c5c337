"""What the messages between the agent and the processes under it say, as msgpack arrays that begin with a kind.

The agent trusts nothing that runners and compilers say: ``unpack_untrusted``, ``decode_outcome`` and the checks
at the end of this file answer every surprise with ``ChannelError``.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgpack

from minilambda.worker.channel import ChannelError
from minilambda.worker.events import Outcome, RunOrder

MAX_TEXT = 4 * 1024
"""Longest sentence that a process may send, bytes of UTF-8."""

MAX_REASON = 2 * 1024
"""Longest reason for refusing a module, bytes of UTF-8."""

MAX_BACKTRACE = 8 * 1024
"""Longest backtrace that a process may send, bytes of UTF-8."""

RUNNER_CODES = frozenset(
    {
        "bad_arguments",
        "deadline_exceeded",
        "internal",
        "invalid_module",
        "out_of_memory",
        "output_limit",
        "stack_overflow",
        "trap",
        "unknown_export",
        "unknown_import",
        "unknown_import_called",
    }
)
"""The wire codes that a runner may give an outcome; the others are not a runner's to say."""

_MAX_ITEMS = 64  # items of one array from an untrusted process
_MAX_MS = 1e10  # longest time that an outcome may claim, milliseconds


def pack(*message: object) -> bytes:
    """One message: its kind and its fields."""
    packed: bytes = msgpack.packb(message, unicode_errors="replace")
    return packed


def unpack(payload: bytes) -> tuple[Any, ...]:
    """A message of a process that is trusted: the template's, or the agent's own."""
    message: tuple[Any, ...] = msgpack.unpackb(payload, use_list=False)
    return message


def unpack_untrusted(payload: bytes) -> tuple[str, list[Any]]:
    """Kind and fields of a message of a runner or a compiler. Raises ChannelError for anything else.

    The limits matter: the decoder makes room for an array as its header announces it, before it has read it.
    """
    try:
        message = msgpack.unpackb(payload, max_array_len=_MAX_ITEMS, max_map_len=0, max_ext_len=0)
    except Exception as error:  # the decoder has many ways to refuse hostile bytes
        raise ChannelError("A message was not valid msgpack.") from error
    if not isinstance(message, list) or not message or not isinstance(message[0], str):
        raise ChannelError("A message had no kind.")
    return message[0], message[1:]


# --- orders and outcomes ------------------------------------------------------------------------------

_ORDER_FIELDS = attrgetter(*RunOrder.__slots__)


def encode_order(order: RunOrder) -> bytes:
    """The message that gives a runner its order."""
    return pack("run", *_ORDER_FIELDS(order))


def decode_order(message: tuple[Any, ...]) -> RunOrder:
    """The order in a message of the agent's."""
    return RunOrder(*message[1:])


def encode_outcome(outcome: Outcome) -> bytes:
    """The message that tells the agent how a run ended: everything but the output. Long texts are cut."""
    return pack(
        "done",
        outcome.code,
        cut(outcome.message, MAX_TEXT),
        outcome.exit_code,
        outcome.value,
        None if outcome.trap is None else cut(outcome.trap, MAX_TEXT),
        None if outcome.backtrace is None else cut(outcome.backtrace, MAX_BACKTRACE),
        outcome.load_ms,
        outcome.run_ms,
        outcome.cpu_ms,
        outcome.peak_memory_bytes,
    )


def decode_outcome(fields: list[Any], max_value: int, stdout: bytes = b"", stderr: bytes = b"") -> Outcome:
    """The outcome in a runner's message, and the output beside it. Raises ChannelError for any field out of range."""
    try:
        code, message, exit_code, value, trap, backtrace, load_ms, run_ms, cpu_ms, peak_memory = fields
    except ValueError as error:
        raise ChannelError("An outcome had the wrong number of fields.") from error
    return Outcome(
        code=_code(code),
        message=text(message, MAX_TEXT),
        exit_code=None if exit_code is None else whole(exit_code, -(1 << 31), (1 << 32) - 1),
        value=None if value is None else _binary(value, max_value),
        stdout=stdout,
        stderr=stderr,
        trap=None if trap is None else text(trap, MAX_TEXT),
        backtrace=None if backtrace is None else text(backtrace, MAX_BACKTRACE),
        load_ms=milliseconds(load_ms),
        run_ms=milliseconds(run_ms),
        cpu_ms=milliseconds(cpu_ms),
        peak_memory_bytes=whole(peak_memory, 0, (1 << 63) - 1),
    )


def refused_artifact(why: str) -> Outcome:
    """The outcome of a run that did not begin, since the runner could not load the artifact."""
    message = cut(f"The compiled module could not be loaded: {why}", MAX_TEXT)
    return Outcome("internal", message, None, None, b"", b"", None, None, 0.0, 0.0, 0.0, 0)


def cut(value: str, max_bytes: int) -> str:
    """``value`` without what is beyond ``max_bytes`` of UTF-8."""
    return value.encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")


def text(value: object, max_bytes: int) -> str:
    """``value`` if it is a text of at most ``max_bytes`` of UTF-8. Raises ChannelError."""
    if not isinstance(value, str) or len(value.encode()) > max_bytes:
        raise ChannelError("A text in a message was missing or too long.")
    return value


def whole(value: object, low: int, high: int) -> int:
    """``value`` if it is a whole number from ``low`` to ``high``. Raises ChannelError."""
    if type(value) is not int or not low <= value <= high:
        raise ChannelError("A number in a message was missing or out of range.")
    return value


def milliseconds(value: object) -> float:
    """``value`` if it is a plausible time. Raises ChannelError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_MS:
        raise ChannelError("A time in a message was missing or out of range.")
    return float(value)


def _code(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in RUNNER_CODES:
        raise ChannelError("An outcome had a code that is not a runner's to give.")
    return value


def _binary(value: object, max_bytes: int) -> bytes:
    if not isinstance(value, bytes) or len(value) > max_bytes:
        raise ChannelError("A value in an outcome was malformed or too large.")
    return value
