"""``minilambda keygen``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from minilambda.cli import keyring, options, streams
from minilambda.cli.serving import report

USAGE = """Make a pair of keys: a secret one to keep, and a public one for others.

Usage:
  minilambda keygen [options] <name>
  minilambda keygen (-h | --help)

Options:
  --keys=<dir>  Where the two files are put.
                Default: minilambda/keys in the user's configuration.
  -h --help     Show this.

NAME.secret is for this user only, NAME.public for anybody; the public key is printed. Files
that are there are never overwritten. The commands take a pair by its name, as in --key broker,
or by the path of a file.

A public key has signs that a shell would obey: put it between single quotes, or pass its file
on.
Exit codes: 0 done, 1 could not, 2 wrong usage.

Examples:
  minilambda keygen broker
  minilambda authorize "$(minilambda keygen alice)" --role client
"""

PROGRAM = "minilambda keygen"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = options.parse(PROGRAM, USAGE, ["keygen", *(sys.argv[1:] if argv is None else argv)])
    name = args["<name>"]
    if not _NAME.fullmatch(name):
        options.reject(PROGRAM, USAGE, "a name has 1 to 64 letters, digits, dots, dashes and underscores.")

    def make() -> int:
        from minilambda.curve import make_pair  # noqa: PLC0415 - only once the options are right
        from minilambda.keyfiles import write_pair  # noqa: PLC0415

        pair = make_pair()
        secret, public = write_pair(keyring.own_folder(options.Options(args)), name, pair)
        streams.complain(f"{PROGRAM}: the secret key is in {secret}, the public one in {public}")
        with streams.printing():
            print(pair.public)
        return 0

    return report(PROGRAM, make)


if __name__ == "__main__":
    sys.exit(main())
