"""``minilambda authorize``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from minilambda.cli import keyring, options, render, streams
from minilambda.cli.serving import report

USAGE = """Let a key talk to a broker, at once and from now on.

Run it on the broker's machine, as its user or as root.

Usage:
  minilambda authorize [options] --role=<role> <public>
  minilambda authorize [options] --list
  minilambda authorize (-h | --help)

Options:
  -r --role=<role>   What the key may do:
                     client    run jobs, see and cancel its own
                     worker    run the jobs of others
                     admin     what a client may, see workers and clients, see and cancel
                               everybody's jobs
                     observer  see workers, clients and everybody's jobs, but neither their
                               input nor output
  --name=<name>      What people call the key, without spaces. Default: the name of its file, or
                     the first signs of its principal.
  --list             Print those that may talk: role, name, principal, public key.
  --state-dir=<dir>  The broker's state directory, where the list is kept.
                     Default: minilambda/broker in the user's state directory.
  --keys=<dir>       Where the list is kept instead, as with the broker's --keys.
  -h --help          Show this.

<public> is the key itself, between single quotes, or the name or path of its file. A key that
may talk already gets the new role. The broker need not run; one that runs takes note within a
second.
Exit codes: 0 done, 1 could not, 2 wrong usage.

Examples:
  minilambda authorize alice.public --role client
  minilambda authorize 'PUBLIC-KEY' --role worker --name host7
"""

PROGRAM = "minilambda authorize"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = options.parse(PROGRAM, USAGE, ["authorize", *(sys.argv[1:] if argv is None else argv)])
    found = options.Options(args)

    def authorize() -> int:
        from minilambda.broker import authorized  # noqa: PLC0415 - only once the options are right
        from minilambda.broker.authority import make_entry  # noqa: PLC0415
        from minilambda.keyfiles import read_public  # noqa: PLC0415
        from minilambda.keys import looks_like_key, principal_of  # noqa: PLC0415

        path = keyring.list_file(found)
        if args["--list"]:
            entries = authorized.read(path).entries
            rows = [[entry.role, entry.name, entry.principal, entry.public] for entry in entries]
            with streams.printing():
                render.table(["role", "name", "principal", "public key"], rows, "No key may talk to this broker.")
            return 0
        source = args["<public>"]
        public = read_public(source, keyring.own_folder(found))
        name = args["--name"] or (principal_of(public)[:12] if looks_like_key(source) else Path(source).stem)
        entry = make_entry(args["--role"], public, name)
        authorized.change(path, lambda known: known.with_key(entry.role, entry.public, entry.name))
        with streams.printing():
            print(f"{entry.name} may talk as {entry.role}; its principal is {entry.principal}")
        return 0

    return report(PROGRAM, authorize)


if __name__ == "__main__":
    sys.exit(main())
