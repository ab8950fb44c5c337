"""What the messages between the agent and the processes under it say: msgpack arrays that begin with a kind.

An order to a runner has no kind, since a runner is told nothing else: it is the fields of ``RunOrder``.

The agent trusts nothing that runners and compilers say: ``unpack_untrusted``, ``decode_outcome`` and the checks
at the end of this file answer every surprise with ``ChannelError``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from minilambda.worker.channel import MAX_PACKET, ChannelError
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


_pack: Callable[[object], bytes] = msgpack.Packer(unicode_errors="replace").pack
"""For what is small: to make a packer each time takes longer than to pack, but one that is kept keeps its buffer."""


def unpack(payload: bytes) -> tuple[Any, ...]:
    """A message of a process that is trusted: the template's, or the agent's own."""
    message: tuple[Any, ...] = msgpack.unpackb(payload, use_list=False)
    return message


def unpack_untrusted(payload: bytes | memoryview) -> tuple[str, list[Any]]:
    """Kind and fields of a message of a runner or a compiler. Raises ChannelError for anything else.

    The limits matter: the decoder makes room for an array as its header announces it, before it has read it.
    """
    try:
        message = msgpack.unpackb(payload, max_array_len=_MAX_ITEMS, max_map_len=0, max_ext_len=0)
    except Exception as error:  # the decoder has many ways to refuse hostile bytes
        raise ChannelError("A message was not valid msgpack.") from error
    if type(message) is not list or not message or type(message[0]) is not str:
        raise ChannelError("A message had no kind.")
    return message[0], message[1:]


# --- orders and outcomes ------------------------------------------------------------------------------


def encode_order(order: RunOrder) -> bytes:
    """The message that gives a runner its order."""
    if len(order.stdin) < MAX_PACKET and (order.values is None or len(order.values) < MAX_PACKET):
        return _pack(order)
    packed: bytes = msgpack.packb(order, unicode_errors="replace")
    return packed


def decode_order(message: tuple[Any, ...]) -> RunOrder:
    """The order in a message of the agent's."""
    return RunOrder._make(message)


def encode_outcome(outcome: Outcome, left_output: bool) -> bytes:
    """The message that tells the agent how a run ended. Long texts are cut.

    With ``left_output`` the output is in the memory files, otherwise it is in the message.
    """
    message, trap, backtrace = outcome.message, outcome.trap, outcome.backtrace
    fields = (
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
    small = outcome.value is None and len(outcome.stdout) + len(outcome.stderr) < MAX_PACKET
    return _pack(fields) if small else pack(*fields)


def decode_outcome(fields: list[Any], max_value: int, take_output: Callable[[], tuple[bytes, bytes]]) -> Outcome:
    """The outcome in a runner's message. Raises ChannelError for any field out of range.

    ``max_value`` bounds the value, and each stream that is in the message; ``take_output`` is called for the streams
    where they are not.
    """
    try:
        code, message, exit_code, value, trap, backtrace, load_ms, run_ms, cpu_ms, peak_memory, stdout, stderr = fields
    except ValueError as error:
        raise ChannelError("An outcome had the wrong number of fields.") from error
    if (  # how nearly every run ends, in few instructions; whatever else comes is looked at field by field
        code is value is trap is backtrace is None
        and message == ""
        and type(exit_code) is type(peak_memory) is int
        and 0 <= exit_code < 1 << 32
        and 0 <= peak_memory < 1 << 63
        and type(load_ms) is type(run_ms) is type(cpu_ms) is float
        and 0.0 <= load_ms <= _MAX_MS
        and 0.0 <= run_ms <= _MAX_MS
        and 0.0 <= cpu_ms <= _MAX_MS
        and type(stdout) is type(stderr) is bytes
        and len(stdout) <= max_value
        and len(stderr) <= max_value
    ):
        return Outcome(None, "", exit_code, None, stdout, stderr, None, None, load_ms, run_ms, cpu_ms, peak_memory)
    if code is not None and (type(code) is not str or code not in RUNNER_CODES):
        raise ChannelError("An outcome had a code that is not a runner's to give.")
    return Outcome(
        code,
        "" if message == "" else text(message, MAX_TEXT),
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
