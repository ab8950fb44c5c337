"""Where the value of an option comes from: the command line, then the environment, then the default."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import docopt

from minilambda._version import __version__
from minilambda.errors import MinilambdaError
from minilambda.settings import endpoint, parse_count, parse_duration, parse_size

USAGE_EXIT = 2
"""Exit code of every command for a call that it does not understand."""

_T = TypeVar("_T")
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"", "0", "false", "no", "off"})


class BadOption(MinilambdaError):
    """An option has a value that it can't have; the message names where the value came from."""

    code = "bad_option"
    sentence = "An option has a value that it can't have."


class Options:
    """The options of one call. ``--some-name`` may also be set by ``MINILAMBDA_SOME_NAME``.

    Every method takes the option's name and its default and raises ``BadOption``.
    """

    def __init__(self, args: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> None:
        self._args = args
        self._environment = os.environ if environment is None else environment

    def get(self, option: str, parse: Callable[[str], _T], default: _T) -> _T:
        """The value as ``parse`` reads it."""
        source, text = self._find(option)
        if text is None:
            return default
        try:
            return parse(text)
        except (MinilambdaError, ValueError) as error:
            raise BadOption(f"{source}: {error}") from None

    def text(self, option: str, default: str) -> str:
        return self.get(option, str, default)

    def address(self, option: str, default: str) -> str:
        """A ZeroMQ endpoint."""
        return self.get(option, endpoint, endpoint(default))

    def duration(self, option: str, default: float, *, zero: bool = False) -> float:
        """Seconds; 0 only where it makes sense."""
        return self.get(option, lambda text: _above(parse_duration(text), text, zero), default)

    def size(self, option: str, default: int) -> int:
        """Bytes, more than 0."""
        return self.get(option, lambda text: _above(parse_size(text), text, False), default)

    def count(self, option: str, default: int, low: int = 0, high: int = 2**31) -> int:
        """A whole number within bounds."""
        return self.get(option, lambda text: parse_count(text, "the value", low, high), default)

    def choice(self, option: str, words: Sequence[str], default: str) -> str:
        """One of a few words."""

        def parse(text: str) -> str:
            if text not in words:
                raise ValueError(f"{text!r} is not one of {', '.join(words)}.")
            return text

        return self.get(option, parse, default)

    def flag(self, option: str) -> bool:
        """Whether a switch is on; its variable takes 1 or 0, true or false, yes or no, on or off."""
        if self._args.get(option):
            return True
        text = self._environment.get(variable(option), "").strip().lower()
        if text not in _ON | _OFF:
            raise BadOption(f"{variable(option)}: {text!r} is neither 1 nor 0.")
        return text in _ON

    def texts(self, option: str) -> list[str]:
        """The values of an option that may be given more than once; its variable has one a line."""
        given: list[str] = self._args.get(option) or []
        return given or [line for line in self._environment.get(variable(option), "").splitlines() if line]

    def given(self, option: str) -> bool:
        """Whether the option has a value other than its default."""
        return self._find(option)[1] is not None

    def _find(self, option: str) -> tuple[str, str | None]:
        value = self._args.get(option)
        if value is not None:
            return option, str(value)
        name = variable(option)
        return name, self._environment.get(name) or None


def variable(option: str) -> str:
    """The environment variable of an option."""
    return "MINILAMBDA_" + option.lstrip("-").replace("-", "_").upper()


def parse(program: str, usage: str, argv: Sequence[str], *, options_first: bool = False) -> dict[str, Any]:
    """The arguments as ``usage`` has them. Prints help or version and leaves where that was asked for.

    A call that does not fit ends the process with one line, the usage, and ``USAGE_EXIT``.
    """
    version = f"{program} {__version__}"
    try:
        return dict(docopt.docopt(usage, list(argv), version=version, options_first=options_first))
    except docopt.DocoptExit as error:
        reject(program, usage, _reason(str(error)))
    except docopt.DocoptLanguageError as error:
        reject(program, usage, f"{error}.")
    except (SystemExit, BrokenPipeError):  # help or version was printed
        with quiet_pipe():
            sys.exit(0)


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """A reader of stdout that goes away ends what is printed within, and nothing else."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in buffers goes there


def reject(program: str, usage: str, reason: str) -> NoReturn:
    """End the process with one line and the usage."""
    lines = usage.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("Usage:"))
    end = next((number for number in range(start, len(lines)) if not lines[number].strip()), len(lines))
    print(f"{program}: {reason}", *lines[start:end], f"See {program} --help.", sep="\n", file=sys.stderr)
    sys.exit(USAGE_EXIT)


def _reason(message: str) -> str:
    """What docopt found wrong, for people; it tells by the names of its own classes."""
    first = message.partition("\n")[0]
    if first.endswith(("requires argument", "must not have an argument")):
        return first.replace("requires argument", "needs a value") + "."
    option = re.search(r"Option\((?:None|'(-[^']*)'), (?:None|'(--[^']*)')", first)
    if option is not None:
        return f"{option[2] or option[1]} is not an option here, or is given twice."
    argument = re.search(r"Argument\(None, ('[^']*')\)", first)
    if argument is not None:
        return f"{argument[1]} is one argument too many."
    return "an argument is missing."


def _above(number: _T, text: str, zero: bool) -> _T:
    if not zero and not number:
        raise ValueError(f"{text!r} must be more than 0.")
    return number
