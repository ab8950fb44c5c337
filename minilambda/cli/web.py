"""``minilambda web``."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from minilambda.cli import keyring, options, render, streams
from minilambda.cli.serving import report, serve
from minilambda.extras import MissingExtra
from minilambda.notation import DEFAULT_ADDRESS

USAGE = """Serve a broker over HTTP: a gateway for programs, and a page for people.

Usage:
  minilambda web [options]
  minilambda web token [options] <name>
  minilambda web revoke [options] <name>
  minilambda web tokens [options]
  minilambda web (-h | --help | --version)

Commands:
  token   Make a bearer token and print it; only its hash is kept.
  revoke  Forget a token, at once.
  tokens  List the tokens.

Options:
  -b --bind=<addr>       Where to listen for HTTP: HOST:PORT or [IPV6]:PORT; port 0 takes any
                         free one. Default: 127.0.0.1:8000.
  -s --server=<addr>     The broker: HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT or ipc://PATH.
                         Default: 127.0.0.1:8080.
  -k --key=<key>         The gateway's own key, by name or path (see
                         `minilambda keygen --help`).
  --server-key=<key>     The broker's public key, or the name or path of its file; needed
                         with --key.
  --tokens=<file>        Let in only who has a token of this file. Default:
                         minilambda/web-tokens in the user's configuration; where that is
                         missing, nobody needs a token.
  --may=<scopes>         What the token is good for, with commas between: read (look), call
                         (functions), run (jobs, modules), deploy (functions).
                         Default: read,call,run,deploy.
  --host=<names>         Names that the gateway is reached by, besides its addresses, with
                         commas between. Without tokens, requests by any other name are refused.
  --insecure             Listen on an address that other machines reach, although nobody has to
                         show a token: whoever reaches it can run code on the workers.
  --max-body=<size>      Largest body of a request. Default: 64M.
  --wait=<time>          A request waits for its job at most so long; then the job is cancelled.
                         Default: 5m.
  --log-format=<form>    The log on stderr: text, lines for people; json, an object a line.
                         Default: text.
  -v --verbose           Say more on stderr.
  -h --help              Show this.
  --version              Show the version.

The page is at /, the interface at /docs. All visitors act as the one client that the gateway is
to the broker.
Tokens pass readable through plain HTTP: beyond this machine, put a proxy with TLS before it.
The first line on stdout is `minilambda web listening on URL`. Ctrl-C or SIGTERM ends the
gateway.
Every option can be set by a variable: --bind by MINILAMBDA_BIND, and so on.
Exit codes: 0 ended as asked, 1 could not start or go on, 2 wrong usage.

Examples:
  minilambda web
  minilambda web token alice
  minilambda web --bind 0.0.0.0:8000 --server host7:8080 --key gateway --server-key broker
"""

PROGRAM = "minilambda web"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NEEDED = ("starlette", "uvicorn", "h11", "python_multipart", "anyio")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = options.parse(PROGRAM, USAGE, ["web", *(sys.argv[1:] if argv is None else argv)])
    found = options.Options(args)
    if args["token"] or args["revoke"]:
        name = args["<name>"]
        if not _NAME.fullmatch(name):
            options.reject(PROGRAM, USAGE, "a name has 1 to 64 letters, digits, dots, dashes and underscores.")
        return report(PROGRAM, lambda: _token(found, name) if args["token"] else _revoke(found, name))
    if args["tokens"]:
        return report(PROGRAM, lambda: _list(found))
    return serve(PROGRAM, lambda: _prepare(found), found)


def _prepare(found: options.Options) -> Callable[[], int]:
    """Read the options, and return what runs the gateway. Raises ``BadOption`` and ``BadSetting``."""
    from minilambda.web.binding import DEFAULT_BIND, parse_bind  # noqa: PLC0415 - help does without it
    from minilambda.web.settings import WebSettings  # noqa: PLC0415

    base = WebSettings()
    max_body = found.size("--max-body", base.max_body_bytes)
    settings = WebSettings(
        max_body_bytes=max_body,
        bodies_bytes=max(base.bodies_bytes, 4 * max_body),
        wait=found.duration("--wait", base.wait),
        hosts=frozenset(found.text("--host", "").lower().replace(",", " ").split()) | {socket.gethostname().lower()},
    )
    binding = found.get("--bind", parse_bind, parse_bind(DEFAULT_BIND))
    server, insecure = found.peer("--server", DEFAULT_ADDRESS), found.flag("--insecure")
    key, server_key = keyring.named_keys(found)
    tokens = _file(found)
    if found.given("--tokens") and not tokens.exists():
        raise options.BadOption(f"--tokens: {tokens} does not exist; `minilambda web token NAME` makes a token.")
    used = tokens if tokens.exists() else None

    def run() -> int:
        try:
            from minilambda.web.server import run_web  # noqa: PLC0415 - it needs the extra
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _NEEDED:
                raise
            raise MissingExtra(PROGRAM, error.name or "", "web") from None
        return run_web(
            settings, binding, server, _say_bound, key=key, server_key=server_key, tokens=used, insecure=insecure
        )

    return run


def _file(found: options.Options) -> Path:
    from minilambda.web.tokens import user_file  # noqa: PLC0415 - only where tokens are used

    given = found.path("--tokens", "")
    return Path(given) if given else user_file()


def _token(found: options.Options, name: str) -> int:
    from minilambda.web.tokens import SCOPES, Tokens, change_tokens, parse_scopes  # noqa: PLC0415

    may, made = parse_scopes(found.text("--may", ",".join(SCOPES))), ""

    def add(known: Tokens) -> Tokens:
        nonlocal made
        tokens, made = known.with_token(name, may)
        return tokens

    change_tokens(_file(found), add)
    streams.complain(f"{PROGRAM}: this token is shown once; its hash is in {_file(found)}")
    with streams.printing():
        print(made)
    return 0


def _revoke(found: options.Options, name: str) -> int:
    from minilambda.web.tokens import change_tokens  # noqa: PLC0415

    change_tokens(_file(found), lambda known: known.without(name))
    with streams.printing():
        print(f"the token {name} is good for nothing any more")
    return 0


def _list(found: options.Options) -> int:
    from minilambda.web.tokens import SCOPES, read_tokens  # noqa: PLC0415

    rows = [[each.name, ",".join(s for s in SCOPES if s in each.may)] for each in read_tokens(_file(found)).entries]
    with streams.printing():
        render.table(["name", "may"], rows, "There are no tokens.")
    return 0


def _say_bound(url: str) -> None:
    streams.say(f"{PROGRAM} listening on {url}")


if __name__ == "__main__":
    sys.exit(main())
