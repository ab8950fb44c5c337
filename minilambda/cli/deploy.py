"""``minilambda deploy``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minilambda.cli import manage

if TYPE_CHECKING:
    from minilambda.cli.management import Management
    from minilambda.client.functions import FunctionVersion
    from minilambda.client.sync import Client

USAGE = f"""Keep a module at the broker under a name, as a new version of a function of that name.

Usage:
  minilambda deploy [options] [--env=<k=v>]... [--file=<g=h>]... [--dir=<g=h>]...
                    [--collect=<guest>]... <function> <wasm> [--] [<arg>...]
  minilambda deploy (-h | --help)

Options for every call of the function, unless the call says otherwise:
  -e --env=<k=v>            Set a variable for the guest; may be given again. A call may add to
                            them.
  --invoke=<export>         Call this function of the module; its parameters are the arguments.
  -t --timeout=<time>       Wall time from the guest's start. Default: the worker's.
  --queue-timeout=<time>    Fail when no worker has begun after so long. Default: wait.
  -m --memory=<size>        Memory of the guest, all together. Default: the worker's.
  --output-limit=<size>     What the guest may write, stdout and stderr together.
                            Default: the worker's.
  --retries=<n>             Run again at most so often when a worker is lost. Default: 2.
  --priority=<n>            From -100 to 100; higher goes first. Default: 0.
  --group=<label>           The broker is fair between the groups of one client. Default: none.
  --unknown-imports=<what>  error refuses a module with imports that are not offered; trap runs
                            it and traps when one is called. Default: error.
  --if-no-workers=<what>    wait, or fail at once. Default: wait.
  --file=<guest=host>       A file that the guest can read; may be given again, like the next
                            two.
  --dir=<guest=host>        A folder that it can read, and all below it.
  --collect=<guest>         A file or folder in its /tmp that comes back with the result.
  --scratch=<size>          A /tmp of this size that it can write to. Default: none;
                            with --collect 64M.

Options for the function:
  --alias=<alias>           What names the version from now on. Default: live, which is what a
                            call gets that says nothing else.
  --no-alias                Nothing does: it is called by its number until `minilambda alias`
                            names it.
  --shared                  Everybody may call the function. For an admin, where there are keys.

Options for the connection:
{manage.CONNECTION}

<wasm> is a file, or the sha256:… of a module that the broker has. The arguments behind it are
those of a call that brings none of its own. Prints what calls this very version, NAME@VERSION;
where nothing is new, that is the newest one. The broker keeps the 100 newest versions, and
those that aliases name.
{manage.VARIABLES}
Exit codes: 0 done, 2 wrong usage, 125 could not, 126 a file that can't be read, 127 no such
file.

Examples:
  minilambda deploy greet greet.wasm
  minilambda deploy greet greet.wasm --no-alias --timeout 2 -- --polite
  minilambda-client greet Alice
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return manage.command("deploy", USAGE, argv, _deploy)


def _deploy(call: Management, client: Client, args: Mapping[str, Any]) -> tuple[FunctionVersion, str]:
    from minilambda.cli import filing, named, requests  # noqa: PLC0415 - help and usage errors do without it
    from minilambda.cli.options import Options  # noqa: PLC0415
    from minilambda.messages import LIVE  # noqa: PLC0415

    name = named.function_name(args["<function>"])
    alias = "" if args["--no-alias"] else named.function_name(call.options.text("--alias", LIVE))
    requests.check_arguments(args["<arg>"])
    given = requests.run_options(Options({**args, "--collect": None}))
    del given["job_id"], given["traceparent"]
    if args["--collect"]:
        given["collect"] = args["--collect"]
    module = client.module(args["<wasm>"])
    call.send_ahead(client, [module, *filing.sources_of(given)])
    shared = call.options.flag("--shared")
    made = client.deploy(name, module, args["<arg>"], alias=alias, shared=shared, **given)
    return made, str(made)


if __name__ == "__main__":
    sys.exit(main())
