"""The standard streams, whatever is at their other ends: a pipe that nobody reads, a full disk, nothing at all."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from minilambda.errors import MinilambdaError


class OutputLost(MinilambdaError):
    """What should go to stdout can't be written."""

    code = "output_lost"
    sentence = "The output can't be written."


class ReaderGone(MinilambdaError):
    """Nobody reads stdout any more."""

    code = "reader_gone"
    sentence = "Nobody reads the output any more."


def occupy() -> None:
    """Give the standard streams that were closed a place, so that no socket or file of ours takes theirs.

    What is printed on stdout then fails, as it does on a full disk; what is said on stderr is lost.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            found = os.open(os.devnull, mode)
            if found != number:
                os.dup2(found, number)
                os.close(found)
            os.set_inheritable(number, True)  # the same goes for the processes that we start
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - open to the end
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where the locale has no such sign, as ASCII has no …


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Print on stdout within. A reader that goes away ends that quietly, and nothing else.

    Raises ``OutputLost`` for anything else that keeps the output from being written.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard()
    except OSError as error:
        _discard()
        raise OutputLost(f"The output can't be written: {error.strerror}.") from None


def write_output(data: bytes) -> None:
    """Bytes for stdout, at once. Raises ``ReaderGone`` where its reader has gone away, ``OutputLost`` for all else."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _discard()
        raise ReaderGone() from None
    except OSError as error:
        _discard()
        raise OutputLost(f"The output can't be written: {error.strerror}.") from None


def say(text: str) -> None:
    """A line on stdout for whoever still reads there."""
    with contextlib.suppress(OutputLost), printing():
        print(text)


def complain(text: str) -> None:
    """Lines on stderr. Nothing is to be done about a stderr that takes none."""
    write_error(text.encode("utf-8", "backslashreplace") + b"\n")


def write_error(data: bytes) -> None:
    """Bytes for stderr, as far as it takes them."""
    try:
        sys.stderr.flush()
        sys.stderr.buffer.write(data)
        sys.stderr.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is left in buffers goes there


def end_line() -> None:
    """Begin a new line on the terminal, behind a prompt and the ^C that it shows; elsewhere do nothing."""
    if sys.stderr.isatty():
        write_error(b"\n")
    elif sys.stdout.isatty():
        say("")


def _discard() -> None:
    """What is left in the buffers of stdout goes nowhere, also when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
