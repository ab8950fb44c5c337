"""Calls of functions by their names: what on the command line is one, and what may be said with it."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any, get_args

from minilambda.cli.options import BadOption, Options
from minilambda.client.functions import CallOptions
from minilambda.errors import NotFound
from minilambda.messages.functions import Name, Reference

_REFERENCE, _NAME = get_args(Reference)[1], get_args(Name)[1]  # what the protocol takes for them

_OF_VERSIONS = (
    "--queue-timeout",
    "--memory",
    "--output-limit",
    "--retries",
    "--priority",
    "--unknown-imports",
    "--if-no-workers",
    "--interactive",
    "--file",
    "--dir",
    "--scratch",
)
"""Options that a version of a function has, and its calls have not."""


def is_function(word: str) -> bool:
    """Whether a word that stands for what is to be run names a function: it can be one, and there is no such file."""
    return bool(_REFERENCE.accept(word)) and not os.path.lexists(word)


def call_options(options: Options, args: Mapping[str, Any]) -> CallOptions:
    """The options of a call. Raises ``BadOption`` for one that a call can't have."""
    for option in _OF_VERSIONS:
        if args.get(option):
            raise BadOption(f"{option} is for a module; what a function has of it, its version says.")
    found: CallOptions = {
        "job_id": options.job_id("--job", os.urandom(8).hex()),
        "env": options.pairs("--env"),
        "group": options.label("--group", ""),
        "traceparent": options.label("--traceparent", ""),
    }
    if options.given("--invoke"):
        found["invoke"] = options.label("--invoke", "")
    if options.given("--timeout"):
        found["timeout"] = options.duration("--timeout", 0)
    return found


def neither(word: str, error: NotFound) -> FileNotFoundError:
    """Why a word is neither a file nor a function."""
    return FileNotFoundError(errno.ENOENT, f"No such file here; at the broker: {error.message}", word)


def function_name(text: str) -> str:
    """The name of a function or an alias. Raises ``BadOption``."""
    if not _NAME.accept(text):
        raise BadOption(f"{text!r} can't be a name: {_NAME.what} is needed.")
    return text


def version(text: str) -> int:
    """The number of a version. Raises ``BadOption``."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**63):
        raise BadOption(f"{text!r} is not the number of a version.")
    return int(text)
