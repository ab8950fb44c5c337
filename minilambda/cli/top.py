"""``minilambda top``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from minilambda.cli import exits, keyring, options, render, streams
from minilambda.cli.serving import FAILED
from minilambda.errors import MinilambdaError
from minilambda.extras import MissingExtra
from minilambda.notation import DEFAULT_ADDRESS

USAGE = """Watch a broker in the terminal: load, queue, outcomes, jobs, workers, clients, functions.

Usage:
  minilambda top [options]
  minilambda top (-h | --help | --version)

Options:
  -s --server=<addr>   The broker: HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT or ipc://PATH.
                       Default: 127.0.0.1:8080.
  -k --key=<key>       Your own key, by name or path (see `minilambda keygen --help`).
  --server-key=<key>   The broker's public key, or the name or path of its file; needed
                       with --key.
  --every=<time>       Ask the broker so often, 200ms at least. Default: 1s.
  --once               Print it all as text and leave. It looks twice, --every apart, to see how
                       many jobs end.
  --json               The same as one JSON object.
  -h --help            Show this.
  --version            Show the version.

It runs on any machine that reaches the broker. A key with the role observer sees everything but
what jobs read and write; an admin's sees that too, and cancels jobs; a client's sees its own
jobs. The key ? shows what the keys do.
Every option can be set by a variable: --server by MINILAMBDA_SERVER, and so on. NO_COLOR=1 does
without colours.
Exit codes: 0 left as asked, 1 no broker answered --once or --json, or something went wrong, 2
wrong usage.

Examples:
  minilambda top
  minilambda top --server broker.example:8080 --key watcher --server-key broker.public
  minilambda top --json | jq .overview.queued
"""

PROGRAM = "minilambda top"
_SOONEST = 0.2  # seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = options.parse(PROGRAM, USAGE, ["top", *words], as_json="--json" in words)
    found = options.Options(args)
    as_json = False
    try:
        as_json = found.flag("--json")
        once = as_json or found.flag("--once")
        return _show(found, once, as_json)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except (MinilambdaError, OSError) as error:
        if as_json:
            streams.say(_json(error))
        else:
            streams.complain(f"{PROGRAM}: {render.sentence(error)}")
        return options.USAGE_EXIT if isinstance(error, (options.BadOption, MissingExtra)) else FAILED


def _show(found: options.Options, once: bool, as_json: bool) -> int:
    every = found.duration("--every", 1.0)
    if every < _SOONEST:
        raise options.BadOption(f"--every: {every:g} s is too often; 200ms is the least.")
    server = found.peer("--server", DEFAULT_ADDRESS)
    key, server_key = keyring.named_keys(found)
    if not once and not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise options.BadOption("this is no terminal; --once prints the same as text, --json as an object.")
    from minilambda.top.run import connect, look_once, run_top  # noqa: PLC0415 - help does without it

    client = connect(server, key, server_key)
    if not once:
        return run_top(client, every)
    from minilambda.top import plain  # noqa: PLC0415

    watch = look_once(client, every)
    with streams.printing():
        if as_json:
            render.print_json(plain.as_object(watch, client.endpoint))
        else:
            print("\n".join(plain.lines(watch, client.endpoint)))
    return 0


def _json(error: Exception) -> str:
    return render.json_line(render.failure_object(error, render.code_of(error))).decode().rstrip("\n")


if __name__ == "__main__":
    sys.exit(main())
