"""``minilambda undeploy``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minilambda.cli import manage

if TYPE_CHECKING:
    from minilambda.cli.management import Management
    from minilambda.client.functions import FunctionVersion
    from minilambda.client.sync import Client

USAGE = f"""Forget a function, or one version of it that no alias names.

Usage:
  minilambda undeploy [options] <function> [<version>]
  minilambda undeploy (-h | --help)

Options:
{manage.CONNECTION}

Jobs that were called before go on. A function that is deployed under the name later begins with
version 1.
{manage.VARIABLES}
Exit codes: 0 done, 2 wrong usage, 125 could not.

Examples:
  minilambda undeploy greet 2
  minilambda undeploy greet
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return manage.command("undeploy", USAGE, argv, _undeploy)


def _undeploy(call: Management, client: Client, args: Mapping[str, Any]) -> tuple[FunctionVersion, str]:
    from minilambda.cli import named  # noqa: PLC0415 - help and usage errors do without it
    from minilambda.client.functions import FunctionVersion  # noqa: PLC0415

    name = named.function_name(args["<function>"])
    number = 0 if args["<version>"] is None else named.version(args["<version>"])
    client.undeploy(name, number)
    gone = FunctionVersion(name, number)
    return gone, f"{gone if number else name} is gone"


if __name__ == "__main__":
    sys.exit(main())
