"""What the commands that manage functions share: how they are called, and the options for the connection."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minilambda.cli import exits, options

if TYPE_CHECKING:
    from minilambda.cli.management import Management
    from minilambda.client.functions import FunctionVersion
    from minilambda.client.sync import Client

CONNECTION = """\
  -s --server=<addr>        The broker. Default: 127.0.0.1:8080.
  -k --key=<key>            Your own key, by name or path (see `minilambda keygen --help`).
  --server-key=<key>        The broker's public key, or the name or path of its file; needed
                            with --key.
  --connect-timeout=<time>  Give up when no broker answers for so long. Default: 5s.
  --json                    Print a JSON object instead.
  -h --help                 Show this."""
"""The options of all these commands, as their help has them."""

VARIABLES = "Every option can be set by a variable: --server by MINILAMBDA_SERVER, and so on."
"""A line of their help."""

Act = Callable[["Management", "Client", Mapping[str, Any]], "tuple[FunctionVersion, str]"]
"""Does what a command is for; returns what is so now, and that in words."""


def command(name: str, usage: str, argv: Sequence[str] | None, act: Act) -> int:
    """Run such a command; returns its exit code."""
    program = f"minilambda {name}"
    try:
        args = options.parse(program, usage, [name, *(sys.argv[1:] if argv is None else argv)])
        from minilambda.cli.management import Management  # noqa: PLC0415 - help and usage errors do without it

        return Management(options.Options(args), program, act).perform(args)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
