"""``minilambda rollback``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minilambda.cli import manage

if TYPE_CHECKING:
    from minilambda.cli.management import Management
    from minilambda.client.functions import FunctionVersion
    from minilambda.client.sync import Client

USAGE = f"""Let an alias of a function name the version that it named before.

Usage:
  minilambda rollback [options] <function>
  minilambda rollback (-h | --help)

Options:
  --alias=<alias>           Which alias. Default: live, which is what a call gets that says
                            nothing else.
{manage.CONNECTION}

Done again, it goes back by one more; the broker remembers the last 16 versions of each alias.
Prints what the alias names now, NAME@VERSION.
{manage.VARIABLES}
Exit codes: 0 done, 2 wrong usage, 125 could not.

Examples:
  minilambda rollback greet
  minilambda rollback greet --alias stable
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return manage.command("rollback", USAGE, argv, _roll_back)


def _roll_back(call: Management, client: Client, args: Mapping[str, Any]) -> tuple[FunctionVersion, str]:
    from minilambda.cli import named  # noqa: PLC0415 - help and usage errors do without it
    from minilambda.messages import LIVE  # noqa: PLC0415

    alias = named.function_name(call.options.text("--alias", LIVE))
    made = client.set_alias(named.function_name(args["<function>"]), alias)
    return made, str(made)


if __name__ == "__main__":
    sys.exit(main())
