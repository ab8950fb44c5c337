"""``minilambda``: the umbrella over the other commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from minilambda.cli import options, streams

USAGE = """Run untrusted WebAssembly on a pool of machines, with millisecond latency.

Usage:
  minilambda (up | client | broker | worker | top | web) [<arg>...]
  minilambda (deploy | alias | rollback | undeploy) [<arg>...]
  minilambda (keygen | authorize | revoke) [<arg>...]
  minilambda (-h | --help | --version)

Commands:
  up         Run a broker and workers on this machine until Ctrl-C.
  client     Run a module, or look after jobs: the same as minilambda-client.
  broker     Take jobs and hand them to workers: the same as minilambda-broker.
  worker     Run the jobs of a broker: the same as minilambda-worker.
  top        Watch a broker in the terminal.
  web        Serve a broker over HTTP: a gateway for programs, a page for people.
  deploy     Keep a module at the broker under a name, to be called by that.
  alias      Let an alias of a deployed function name another version.
  rollback   Let it name the version that it named before.
  undeploy   Forget a deployed function, or one version of it.
  keygen     Make a pair of keys, for a broker, a worker or a client.
  authorize  Let a key talk to the broker of this machine, or list those that may.
  revoke     Cut a key off.

Each has a --help of its own.

Options:
  -h --help  Show this.
  --version  Show the version.

Examples:
  minilambda up
  minilambda client examples/hello.wasm
"""

PROGRAM = "minilambda"
SERVICES = ("broker", "worker", "client", "up", "top", "web", "keygen", "authorize", "revoke")
COMMANDS = (*SERVICES, "deploy", "alias", "rollback", "undeploy")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    streams.occupy()
    if not words or words[0] not in COMMANDS:
        if words and not words[0].startswith("-"):
            options.reject(PROGRAM, USAGE, f"{words[0]!r} is not a command.")
        options.parse(PROGRAM, USAGE, words, options_first=True)
    command = import_module(f"minilambda.cli.{words[0]}")
    code: int = command.main(words[1:])
    return code


if __name__ == "__main__":
    sys.exit(main())
