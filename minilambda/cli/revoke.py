"""``minilambda revoke``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from minilambda.cli import keyring, options, streams
from minilambda.cli.serving import report

USAGE = """Cut a key off: its connections are closed, and it gets in no more.

Run it on the broker's machine, as its user or as root.

Usage:
  minilambda revoke [options] <who>
  minilambda revoke (-h | --help)

Options:
  --state-dir=<dir>  The broker's state directory, where the list is kept.
                     Default: minilambda/broker in the user's state directory.
  --keys=<dir>       Where the list is kept instead, as with the broker's --keys.
  -h --help          Show this.

<who> is the name, the principal or the public key itself, as `minilambda authorize --list`
shows them, or the path of its file. A broker that runs takes note within a second. The jobs of
a worker that is cut off run elsewhere; those that a client has handed in go on, and nobody
hears of them but an admin, who can cancel them.
Exit codes: 0 done, 1 could not, 2 wrong usage.

Examples:
  minilambda revoke alice
"""

PROGRAM = "minilambda revoke"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = options.parse(PROGRAM, USAGE, ["revoke", *(sys.argv[1:] if argv is None else argv)])
    found = options.Options(args)

    def revoke() -> int:
        from minilambda.broker import authorized  # noqa: PLC0415 - only once the options are right
        from minilambda.keyfiles import PUBLIC, read_public  # noqa: PLC0415

        who = args["<who>"]
        if "/" in who or who.endswith(PUBLIC):
            who = read_public(who, keyring.own_folder(found))
        path = keyring.list_file(found)
        gone = authorized.read(path).without(who)[1]
        authorized.change(path, lambda known: known.without(gone.public)[0])
        with streams.printing():
            print(f"{gone.name} may not talk any more; it was {gone.role}")
        return 0

    return report(PROGRAM, revoke)


if __name__ == "__main__":
    sys.exit(main())
