"""``minilambda alias``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minilambda.cli import manage

if TYPE_CHECKING:
    from minilambda.cli.management import Management
    from minilambda.client.functions import FunctionVersion
    from minilambda.client.sync import Client

USAGE = f"""Let an alias of a function name another version, or nothing any more.

Usage:
  minilambda alias [options] <function> <alias> <version>
  minilambda alias [options] --drop <function> <alias>
  minilambda alias (-h | --help)

Options:
  --drop                    Forget the alias. Its version stays.
{manage.CONNECTION}

A function is called as NAME, which is its alias live, as NAME@ALIAS or as NAME@VERSION. Prints
what the alias names now, NAME@VERSION. `minilambda-client functions NAME` lists the versions.
{manage.VARIABLES}
Exit codes: 0 done, 2 wrong usage, 125 could not.

Examples:
  minilambda alias greet stable 3
  minilambda alias greet live 3
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return manage.command("alias", USAGE, argv, _alias)


def _alias(call: Management, client: Client, args: Mapping[str, Any]) -> tuple[FunctionVersion, str]:
    from minilambda.cli import named  # noqa: PLC0415 - help and usage errors do without it

    name, alias = named.function_name(args["<function>"]), named.function_name(args["<alias>"])
    if args["--drop"]:
        return client.drop_alias(name, alias), f"{name}@{alias} is gone"
    made = client.set_alias(name, alias, named.version(args["<version>"]))
    return made, str(made)


if __name__ == "__main__":
    sys.exit(main())
