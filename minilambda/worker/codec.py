"""What the messages between the agent and the processes under it say, as msgpack arrays that begin with a kind.

The agent trusts nothing that runners and compilers say: ``unpack_untrusted``, ``decode_outcome`` and the checks
at the end of this file answer every surprise with ``ChannelError``.
"""

from __future__ import annotations

from collections.abc import Callable
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


def encode_outcome(outcome: Outcome, left_output: bool) -> bytes:
    """The message that tells the agent how a run ended. Long texts are cut.

    With ``left_output`` the output is in the memory files, otherwise it is in the message.
    """
    message, trap, backtrace = outcome.message, outcome.trap, outcome.backtrace
    return pack(
        "done",
        outcome.code,
        message and cut(message, MAX_TEXT),
        outcome.exit_code,
        outcome.value,
        trap and cut(trap, MAX_TEXT),
        backtrace and cut(backtrace, MAX_BACKTRACE),
        outcome.load_ms,
        outcome.run_ms,
        outcome.cpu_ms,
        outcome.peak_memory_bytes,
        None if left_output else outcome.stdout,
        None if left_output else outcome.stderr,
    )


def decode_outcome(fields: list[Any], max_value: int, take_output: Callable[[], tuple[bytes, bytes]]) -> Outcome:
    """The outcome in a runner's message. Raises ChannelError for any field out of range.

    ``max_value`` bounds the value, and each stream that is in the message; ``take_output`` is called for the streams
    where they are not.
    """
    try:
        code, message, exit_code, value, trap, backtrace, load_ms, run_ms, cpu_ms, peak_memory, stdout, stderr = fields
    except ValueError as error:
        raise ChannelError("An outcome had the wrong number of fields.") from error
    if code is not None and (not isinstance(code, str) or code not in RUNNER_CODES):
        raise ChannelError("An outcome had a code that is not a runner's to give.")
    return Outcome(
        code,
        message if message == "" else text(message, MAX_TEXT),
        None if exit_code is None else whole(exit_code, -(1 << 31), (1 << 32) - 1),
        None if value is None else _binary(value, max_value),
        *(take_output() if stdout is None else (_binary(stdout, max_value), _binary(stderr, max_value))),
        None if trap is None else text(trap, MAX_TEXT),
        None if backtrace is None else text(backtrace, MAX_BACKTRACE),
        milliseconds(load_ms),
        milliseconds(run_ms),
        milliseconds(cpu_ms),
        whole(peak_memory, 0, (1 << 63) - 1),
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
    if type(value) not in (float, int) or not 0 <= value <= _MAX_MS:  # type: ignore[operator]
        raise ChannelError("A time in a message was missing or out of range.")
    return float(value)  # type: ignore[arg-type]


def _binary(value: object, max_bytes: int) -> bytes:
    if type(value) is not bytes or len(value) > max_bytes:
        raise ChannelError("Bytes in an outcome were malformed or too many.")
    return value
