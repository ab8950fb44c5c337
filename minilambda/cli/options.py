"""Where the value of an option comes from: the command line, then the environment, then the default."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar, get_args

import docopt

from minilambda._version import __version__
from minilambda.cli import streams
from minilambda.errors import MinilambdaError
from minilambda.fields import JobId, Label, is_guest_path
from minilambda.notation import endpoint, parse_count, parse_duration, parse_size, peer_endpoint

USAGE_EXIT = 2
"""Exit code of every command for a call that it does not understand."""

UNPRINTED_EXIT = 125
"""Exit code of every command whose help can't be printed."""

_T = TypeVar("_T")
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"", "0", "false", "no", "off"})
_JOB_ID, _LABEL = get_args(JobId)[1], get_args(Label)[1]  # what the protocol takes for them


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
            return parse(utf8(text))
        except (MinilambdaError, ValueError) as error:
            raise BadOption(f"{source}: {error}") from None

    def text(self, option: str, default: str) -> str:
        return self.get(option, str, default)

    def path(self, option: str, default: str) -> str:
        """The name of a file; it need not be UTF-8."""
        return self._find(option)[1] or default

    def label(self, option: str, default: str) -> str:
        """A short text."""
        return self.get(option, _label, default)

    def job_id(self, option: str, default: str) -> str:
        return self.get(option, job_id, default)

    def address(self, option: str, default: str) -> str:
        """A ZeroMQ endpoint to listen on."""
        return self.get(option, endpoint, endpoint(default))

    def peer(self, option: str, default: str) -> str:
        """A ZeroMQ endpoint to connect to."""
        return self.get(option, peer_endpoint, endpoint(default))

    def duration(self, option: str, default: float, *, zero: bool = False) -> float:
        """Seconds; 0 only where it makes sense."""
        return self.get(option, lambda text: _above(parse_duration(text), text, zero), default)

    def size(self, option: str, default: int, zero: bool = False) -> int:
        """Bytes, more than 0 unless ``zero`` may be."""
        return self.get(option, lambda text: _above(parse_size(text), text, zero), default)

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

    def pairs(self, option: str) -> dict[str, str]:
        """An option of K=V that may be given more than once; its variable has one a line."""
        source, given = self._repeated(option)
        try:
            return dict(map(_pair, given))
        except ValueError as error:
            raise BadOption(f"{source}: {error}") from None

    def places(self, option: str, *, folders: bool = False) -> dict[str, str]:
        """An option of GUEST=HOST that may be given more than once; its variable has one a line.

        HOST need not be UTF-8. ``folders``: GUEST may name one, with a slash at its end, or be the root.
        """
        source, given = self._repeated(option)
        found: dict[str, str] = {}
        for text in given:
            guest, equals, host = text.partition("=")
            guest = guest.rstrip("/") if folders and guest.rstrip("/") else guest
            if not equals or not host:
                raise BadOption(f"{source}: {text!r} is not GUEST=HOST.")
            if not (is_guest_path(guest) or (folders and guest == "/")):
                raise BadOption(f"{source}: {guest!r} can't be a path in the guest: it begins with /, without . and ..")
            if guest in found:
                raise BadOption(f"{source}: {guest} is named twice.")
            found[guest] = host
        return found

    def _repeated(self, option: str) -> tuple[str, list[str]]:
        """Where the values of an option come from that may be given more than once, and the values."""
        given: list[str] = self._args.get(option) or []
        if given:
            return option, given
        name = variable(option)
        return name, [line for line in self._environment.get(name, "").split("\n") if line]

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


def parse(
    program: str, usage: str, argv: Sequence[str], *, options_first: bool = False, as_json: bool = False
) -> dict[str, Any]:
    """The arguments as ``usage`` has them. Prints help or version and leaves where that was asked for.

    A call that does not fit ends the process as ``reject`` does.
    """
    streams.occupy()
    version = f"{program} {__version__}"
    try:
        with streams.printing():
            return dict(docopt.docopt(usage, list(argv), version=version, options_first=options_first))
    except docopt.DocoptExit as error:
        reject(program, usage, _reason(str(error), usage, argv), as_json=as_json)
    except docopt.DocoptLanguageError as error:
        reject(program, usage, f"{error}.", as_json=as_json)
    except streams.OutputLost as error:
        streams.complain(f"{program}: {error}")
        sys.exit(UNPRINTED_EXIT)
    except SystemExit:
        pass
    sys.exit(0)  # help or version was printed, as far as anyone read it


def reject(program: str, usage: str, reason: str, *, as_json: bool = False) -> NoReturn:
    """End the process with ``USAGE_EXIT`` and with one line and the usage, or with the object of ``--json``."""
    if as_json:
        from minilambda.cli import render  # noqa: PLC0415 - it takes time to import

        with contextlib.suppress(streams.OutputLost), streams.printing():
            render.print_json(render.failure_object(BadOption(reason), BadOption.code))
        sys.exit(USAGE_EXIT)
    lines = usage.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("Usage:"))
    end = next((number for number in range(start, len(lines)) if not lines[number].strip()), len(lines))
    streams.complain("\n".join([f"{program}: {reason}", *lines[start:end], f"See {program} --help."]))
    sys.exit(USAGE_EXIT)


def _reason(message: str, usage: str, argv: Sequence[str]) -> str:
    """What docopt found wrong, for people; it tells by the names of its own classes, and all that it could not place.

    So an option that the usage knows is to blame only if it stands there twice.
    """
    first = message.partition("\n")[0]
    if first.endswith(("requires argument", "must not have an argument")):
        return first.replace("requires argument", "needs a value") + "."
    found = re.findall(r"Option\((?:None|'(-[^']*)'), (?:None|'(--[^']*)')", first)
    known = {name for pair in re.findall(r"^ +(-[\w-]+)(?: (--[\w-]+))?", usage, re.M) for name in pair}
    for short, long in found:
        if (long or short) not in known:
            return f"{long or short} is not an option here."
    for names in found:
        if sum(bool(word) and word.partition("=")[0] in names for word in argv) > 1:
            return f"{names[1] or names[0]} is given twice."
    argument = re.search(r"Argument\(None, ('[^']*')\)", first)
    if argument is not None:
        return f"{argument[1]} is one argument too many."
    return "an argument is missing."


def utf8(text: str) -> str:
    """The text, if it is one: Python hides bytes that are not UTF-8 in it. Raises ``ValueError``."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the value is not UTF-8.") from None
    return text


def job_id(text: str) -> str:
    """A job's id. Raises ``ValueError`` for what can't be one."""
    if not _JOB_ID.accept(text):
        rule = "a job's id has 1 to 64 letters, digits, dots, dashes and underscores, the first a letter or digit."
        raise ValueError(f"{text!r} can't be one: {rule}")
    return text


def _label(text: str) -> str:
    if not _LABEL.accept(text):
        raise ValueError(f"{_LABEL.what} is needed, this has {len(text)}.")
    return text


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = utf8(text).partition("=")
    if not equals or not name:
        raise ValueError(f"{text!r} is not K=V.")
    return name, value


def _above(number: _T, text: str, zero: bool) -> _T:
    if not zero and not number:
        raise ValueError(f"{text!r} must be more than 0.")
    return number
