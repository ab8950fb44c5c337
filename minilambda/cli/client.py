"""``minilambda-client``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from minilambda.cli import exits, options

USAGE = """Run a WebAssembly module on a broker's workers, or look after jobs.

Usage:
  minilambda-client [options] (status | result | logs | cancel | run-again)
                    [--collect=<g=h>]... <job>
  minilambda-client [options] (jobs | modules | workers | clients | overview)
  minilambda-client [options] functions [<function>]
  minilambda-client [options] [--env=<k=v>]... [--file=<g=h>]... [--dir=<g=h>]...
                    [--collect=<g=h>]... <wasm> [--] [<arg>...]
  minilambda-client (-h | --help | --version)

<wasm> is a file, or the sha256:… of a module that the broker has. All that follows it goes to
the guest, so options stand before it. A file with the name of a subcommand is written with its
folder: ./status.
A plain word (letters, digits, - and _, maybe with @VERSION or @ALIAS) that is no file names a
function, and calls it; see `minilambda deploy --help`.

Options for every call:
  -s --server=<addr>          The broker: HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT or ipc://PATH.
                              Default: 127.0.0.1:8080.
  -k --key=<key>              Your own key, by name or path (see `minilambda keygen --help`).
  --server-key=<key>          The broker's public key, or the name or path of its file; needed
                              with --key.
  --connect-timeout=<time>    Give up when no broker answers for so long. Default: 5s.
  --json                      Print one JSON object, or a list of them, instead of anything
                              else.
  -q --quiet                  No progress on a terminal.
  -h --help                   Show this.
  --version                   Show the version.

Options for a run:
  -i --stdin=<file>           The guest's standard input; - is the client's own. Default: empty.
  -e --env=<k=v>              Set a variable for the guest; may be given again. Nothing else is
                              passed on.
  --invoke=<export>           Call this function; its parameters are the arguments, its value is
                              printed.
  -t --timeout=<time>         Wall time from the guest's start. Default: the worker's.
  --queue-timeout=<time>      Fail when no worker has begun after so long. Default: wait.
  -m --memory=<size>          Memory of the guest, all together. Default: the worker's.
  --output-limit=<size>       What the guest may write, stdout and stderr together.
                              Default: the worker's.
  --retries=<n>               Run again at most so often when a worker is lost. Default: 2.
  --priority=<n>              From -100 to 100; higher goes first. Default: 0.
  --group=<label>             The broker is fair between the groups of one client.
                              Default: none.
  --unknown-imports=<what>    error refuses a module with imports that are not offered; trap
                              runs it and traps when one is called. Default: error.
  --if-no-workers=<what>      wait, or fail at once. Default: wait.
  --job=<id>                  The job's id; the same job under the same id runs once.
                              Default: a new one.
  --traceparent=<context>     The trace that the job belongs to, as W3C writes it.
                              Default: none.
  -d --detach                 Print the job's id when the broker has accepted it, and leave.
  -f --follow                 Show the output while the guest writes it, as is done on a
                              terminal anyway. With logs, go on until the job has ended.
                              Default: what there is so far.
  --interactive               Give the guest what comes by our own standard input as it comes,
                              and follow. Such a job never runs again; its timeout is the
                              worker's ceiling by default.
  --file=<guest=host>         A file that the guest can read; may be given again, like the next
                              two.
  --dir=<guest=host>          A folder that it can read, and all below it.
  --collect=<guest=host>      A file or folder that it leaves in its /tmp, and where to write it
                              when the job has ended, also when it failed. After --detach give
                              it to result again.
  --scratch=<size>            A /tmp of this size that it can write to. Default: none;
                              with --collect 64M.

Options for status, result, logs, cancel and jobs:
  --principal=<principal>     Whose job, for an admin or an observer; for jobs also *,
                              everybody's. Default: your own.
  --story                     With status, tell what happened to the job so far.

Options for result:
  -w --wait=<time>            Give up when the job has not ended after so long; 0 only asks.
                              Default: wait.

Options for jobs:
  --state=<what>              Those in a state, or that failed with a code, such as poisoned.
                              Default: all.
  --limit=<n>                 The newest ones, at most 1000. Default: 100.

logs shows what a job writes, from any machine: stdout on stdout, stderr on stderr. Its exit
code is 0.
A job that loses its worker runs again; a line on stderr then says that its output begins anew.
With --follow, --json prints an object for each piece of output, before that of the result.

run-again runs an ended job once more, as another job, and prints its id; its input must still
be there, as it is for a while where the job failed with its workers (poisoned, worker_lost).
functions lists what can be called by name, or all versions of one function. To a call, one may
give the options --stdin, --env, --invoke, --timeout, --group, --job, --detach, --follow
and --collect (of what the version brings back); the rest is as the version has it.
clients lists those who have jobs, or had some; overview tells how the broker does. Where there
are keys they are for an admin or an observer.

A time, memory or output limit above the worker's ceiling is cut to the ceiling.
Sizes are bytes or numbers with K, M or G (of 1024); times are seconds or numbers with ms, s, m
or h.
Every option can be set by a variable: --server by MINILAMBDA_SERVER, and so on (--env: one K=V
a line).

Exit codes: the low 8 bits of the guest's own (255 where they are 0 and the guest's is not), or
  2 wrong usage                  124 the guest was stopped at its deadline
  125 the platform or the request failed, another limit ended the job, the output can't be
      written, or the guest has succeeded and not left what was to be collected
  126 not valid or not linkable WebAssembly, or a file that can't be read
  127 no such file               130 interrupted: Ctrl-C cancels the job
  134 the guest trapped          137 the guest needed more memory than it may have
  141 nobody reads what is followed (as in `| head`): that cancels the job
  143 terminated: SIGTERM cancels the job, as does SIGHUP (129), when the terminal goes away

Examples:
  minilambda-client hello.wasm
  minilambda-client --stdin data.csv --timeout 5 count.wasm -- --lines
  minilambda-client --invoke add add.wasm -- 2 3
  job=$(minilambda-client --detach slow.wasm); minilambda-client result $job
  minilambda-client logs --follow $job
  minilambda-client --dir /lib=lib --file /in=in.csv --collect /tmp/out=out.csv report.wasm
  minilambda-client --interactive python.wasm -- -i -q
  minilambda-client jobs --state poisoned
  minilambda-client greet@stable Alice
"""

PROGRAM = "minilambda-client"
LISTS = ("jobs", "modules", "workers", "clients", "overview", "functions")
SUBCOMMANDS = ("status", "result", "logs", "cancel", "run-again", *LISTS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parse(words, _asks_for_json(words))
        from minilambda.cli.requests import Requests  # noqa: PLC0415 - help and usage errors do without it

        return Requests(options.Options(args)).perform(args)
    except KeyboardInterrupt:
        return exits.INTERRUPTED


def _parse(words: Sequence[str], as_json: bool) -> dict[str, Any]:
    args = options.parse(PROGRAM, USAGE, words, options_first=True, as_json=as_json)
    if args["<wasm>"] in SUBCOMMANDS or (args["<job>"] or "").startswith("-"):  # here, options may stand anywhere
        args = options.parse(PROGRAM, USAGE, words, as_json=as_json)
        if args["<wasm>"] in SUBCOMMANDS:
            needs = "takes no argument" if args["<wasm>"] in LISTS else "needs one job id"
            needs = "takes one function at most" if args["<wasm>"] == "functions" else needs
            options.reject(PROGRAM, USAGE, f"{args['<wasm>']} {needs}.", as_json=as_json)
    return args


def _asks_for_json(words: Sequence[str]) -> bool:
    """Whether a call that can't be understood is answered by JSON; a wrong value of the variable is told later."""
    ours = words[: words.index("--")] if "--" in words else words
    try:
        return options.Options({"--json": "--json" in ours}).flag("--json")
    except options.BadOption:
        return False


if __name__ == "__main__":
    sys.exit(main())
