"""What ``minilambda-client`` does once its command line is understood."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from minilambda.cli import exits, filing, keyring, live, named, overviews, progress, render, signals, sources
from minilambda.cli.collecting import Collected, write_all
from minilambda.cli.options import USAGE_EXIT, BadOption, Options, job_id, utf8
from minilambda.cli.streams import OutputLost, ReaderGone, complain, end_line, printing, write_error
from minilambda.client.job import Job
from minilambda.client.modules import Module
from minilambda.client.results import RunResult
from minilambda.client.spec import RunOptions
from minilambda.client.sync import Client
from minilambda.errors import MinilambdaError, NotFound
from minilambda.messages import ErrorInfo
from minilambda.notation import DEFAULT_ADDRESS, MAX_DURATION, BadSetting

PROGRAM = "minilambda-client"
_LARGE = 1024 * 1024  # a module above this is sent with a progress bar, bytes


class Requests:
    """One call of the command."""

    def __init__(self, options: Options, program: str = PROGRAM) -> None:
        self._options = options
        self._program = program
        self._json = False
        self._progress = False
        self._job_id: str | None = None  # of the job that the call is about

    def perform(self, args: Mapping[str, Any]) -> int:
        """Do what the arguments ask for; returns the exit code."""
        with signals.raised():
            try:
                return self._perform(args)
            except OutputLost as error:
                complain(f"{self._program}: {error}")
                return exits.PLATFORM
            except ReaderGone:  # of logs it is no more than an end
                return exits.UNREAD if args["<wasm>"] is not None else 0

    def _perform(self, args: Mapping[str, Any]) -> int:
        try:
            self._json = self._options.flag("--json")
            self._progress = not self._json and not self._options.flag("--quiet") and sys.stderr.isatty()
            server = self._options.peer("--server", DEFAULT_ADDRESS)
            connect = self._options.duration("--connect-timeout", 5.0)
            key, server_key = keyring.named_keys(self._options)
            with Client(server, connect_timeout=connect, key=key, server_key=server_key) as client:
                return self._act(client, args)
        except (BadOption, BadSetting) as error:
            self._complain(error)
            return USAGE_EXIT
        except FileNotFoundError as error:
            self._complain(error)
            return exits.NO_SUCH_FILE
        except OSError as error:
            self._complain(error)
            return exits.PLATFORM if isinstance(error, TimeoutError) else exits.NOT_RUNNABLE
        except (OutputLost, ReaderGone):
            raise
        except (MinilambdaError, ValueError) as error:
            self._complain(error)
            return exits.for_code(render.code_of(error))

    def _act(self, client: Client, args: Mapping[str, Any]) -> int:
        if args["<wasm>"] is not None:
            return self._run(client, args)
        if args["<job>"] is not None:
            self._job_id = _checked_id(args["<job>"])
            return self._job(client.job(self._job_id, self._options.label("--principal", "")), args)
        return self._list(client, args)

    # --- a run ----------------------------------------------------------------------------------------

    def _run(self, client: Client, given: Mapping[str, Any]) -> int:
        wasm, args = given["<wasm>"], given["<arg>"]
        check_arguments(args)
        if named.is_function(wasm):
            return self._call(client, wasm, given)
        found = run_options(self._options)
        self._job_id = found["job_id"]
        module = client.module(wasm)
        source = self._options.path("--stdin", "")
        interactive = self._options.flag("--interactive")
        if interactive:
            self._check_interactive(source)
            found.setdefault("timeout", MAX_DURATION)
        if source:
            found["stdin"] = sources.read_stdin(client, source)
        self._send_ahead(client, [module, *filing.sources_of(found)])
        if self._options.flag("--detach"):
            return self._accepted(client.submit(module, args, **found))
        stdin_fd = 0 if interactive else None
        run = partial(client.run, module, args, check=False, stdin_fd=stdin_fd, **found)
        return self._attend(client, found["job_id"], run, interactive)

    def _call(self, client: Client, reference: str, given: Mapping[str, Any]) -> int:
        """Call a function; where there are no arguments, those of its version are taken."""
        found, args = named.call_options(self._options, given), given["<arg>"] or None
        self._job_id = found["job_id"]
        source = self._options.path("--stdin", "")
        if source:
            found["stdin"] = sources.read_stdin(client, source)
        try:
            if self._options.flag("--detach"):
                return self._accepted(client.submit_function(reference, args, **found))
            run = partial(client.run_function, reference, args, check=False, **found)
            return self._attend(client, found["job_id"], run, False)
        except NotFound as error:
            raise named.neither(reference, error) from None

    def _accepted(self, job: Job) -> int:
        self._say({"job_id": job.id, "state": "accepted", "exit_code": None, "error": None}, job.id)
        return 0

    def _attend(self, client: Client, job_id: str, run: Callable[..., RunResult], interactive: bool) -> int:
        """Wait for a job, and show what comes of it."""
        targets = filing.targets(self._options)
        follow = interactive or self._options.flag("--follow") or (not self._json and sys.stdout.isatty())
        with progress.waiting(client.endpoint, job_id, self._progress and not interactive) as stop:
            shown = live.Shown(PROGRAM, job_id, self._json, stop).show if follow else None
            try:
                result = run(on_output=shown)
            except KeyboardInterrupt:
                if follow:
                    end_line()
                raise
        return self._show(result, follow, write_all(targets, result))

    def _check_interactive(self, source: str) -> None:
        if source == "-":
            raise BadOption("--interactive feeds our own standard input already, so --stdin can't be -.")
        if self._options.flag("--detach"):
            raise BadOption("--interactive and --detach exclude each other.")

    def _send_ahead(self, client: Client, modules: Sequence[Module]) -> None:
        """What is large goes before its job, so that one sees how far it is."""
        large = {module: module.size for module in modules if module.size is not None and module.size > _LARGE}
        if self._progress and large:
            with progress.uploading(sum(large.values())) as advance:
                before = 0
                for module, size in large.items():
                    client.upload(module, progress=partial(_advance, advance, before))
                    before += size

    # --- jobs and lists -------------------------------------------------------------------------------

    def _job(self, job: Job, args: Mapping[str, Any]) -> int:
        if args["result"]:
            wait = None
            if self._options.given("--wait"):
                wait = self._options.duration("--wait", 0, zero=True)
            targets = filing.targets(self._options)
            with progress.waiting(job.endpoint, job.id, self._progress):
                result = job.result(wait, check=False)
            return self._show(result, collected=write_all(targets, result))
        if args["logs"]:
            live.logs(PROGRAM, job, self._json, self._options.flag("--follow"))
            return 0
        if args["run-again"]:
            return self._accepted(job.run_again())
        status = job.cancel() if args["cancel"] else job.status(story=self._options.flag("--story"))
        error = _error_of(job) if status.state == "failed" else None
        lines = [render.status_line(status, error), *render.story_lines(status)]
        self._say(render.status_object(status, error), "\n".join(lines))
        return 0

    def _list(self, client: Client, args: Mapping[str, Any]) -> int:
        state, limit = self._options.label("--state", ""), self._options.count("--limit", 100, 1, 1000)
        principal = self._options.label("--principal", "")
        with printing():
            if args["jobs"]:
                jobs = client.jobs(state, limit, principal)
                if self._json:
                    render.print_json(render.rows(jobs))
                else:
                    render.jobs_table(jobs, state=state, whose=principal == "*")
            elif args["modules"]:
                found = client.modules()
                render.print_json(render.rows(found)) if self._json else render.modules_table(found)
            elif args["functions"]:
                functions = client.functions(args["<function>"] or "", principal)
                render.print_json(render.rows(functions)) if self._json else overviews.functions_table(functions)
            elif args["clients"]:
                clients = client.clients()
                render.print_json(render.rows(clients)) if self._json else overviews.clients_table(clients)
            elif args["overview"]:
                overview = client.overview()
                render.print_json(dataclasses.asdict(overview)) if self._json else overviews.show(overview)
            else:
                cluster = client.cluster()
                render.print_json(render.rows(cluster.workers)) if self._json else render.workers_table(cluster)
        return 0

    # --- output ---------------------------------------------------------------------------------------

    def _show(self, result: RunResult, shown: bool = False, collected: Sequence[Collected] = ()) -> int:
        """What came of a job; ``shown``: its output was shown before; ``collected``: its files were written."""
        lost = [each for each in collected if each.error]
        if self._json:
            told = {"collected": filing.collected_object(collected)} if collected else {}
            with printing():
                render.print_json({**render.result_object(result), **told})
        else:
            try:
                with printing():
                    sys.stdout.buffer.write(b"" if shown else result.stdout)
                    text = render.value_text(result.value)
                    if text:
                        sys.stdout.buffer.write(text.encode() + b"\n")
            finally:
                write_error(b"" if shown else result.stderr)
                if result.error is not None:
                    self._explain(result.error.code, result.error.message, result.error.backtrace)
                for each in lost:
                    self._explain("not_collected", f"{each.path}: {each.error}", None)
        return exits.for_result(result) or (exits.PLATFORM if lost else 0)

    def _say(self, value: Any, text: str) -> None:
        with printing():
            render.print_json(value) if self._json else print(text)

    def _complain(self, error: Exception) -> None:
        code = render.code_of(error)
        if self._json:
            with printing():
                render.print_json(render.failure_object(error, code, self._job_id))
        elif isinstance(error, (BadOption, BadSetting)):
            complain(f"{self._program}: {error}")
        else:
            self._explain(code, render.sentence(error), None)

    def _explain(self, code: str, message: str, backtrace: str | None) -> None:
        lines = [f"{self._program}: {code}: {message}", *(backtrace or "").splitlines()]
        complain("\n    ".join(render.printable(line) for line in lines))


def run_options(options: Options) -> RunOptions:
    """The options of a run, as they were given, files read. Raises ``BadOption``, and for files as ``Files.ready``."""
    found: RunOptions = {
        "job_id": options.job_id("--job", os.urandom(8).hex()),
        "env": options.pairs("--env"),
        "priority": options.count("--priority", 0, -100, 100),
        "retries": options.count("--retries", 2, 0, 100),
        "group": options.label("--group", ""),
        "traceparent": options.label("--traceparent", ""),
        "unknown_imports": options.choice("--unknown-imports", ("error", "trap"), "error"),
        "if_no_workers": options.choice("--if-no-workers", ("wait", "fail"), "wait"),
        **filing.run_options(options),
    }
    if options.given("--invoke"):
        found["invoke"] = options.label("--invoke", "")
    if options.given("--timeout"):
        found["timeout"] = options.duration("--timeout", 0)
    if options.given("--queue-timeout"):
        found["queue_timeout"] = options.duration("--queue-timeout", 0)
    if options.given("--memory"):
        found["memory"] = options.size("--memory", 0)
    if options.given("--output-limit"):
        found["output_limit"] = options.size("--output-limit", 0)
    return found


def _advance(advance: Callable[[int, int], None], before: int, sent: int, size: int) -> None:
    """Tell how far one of several uploads is, ``before`` bytes of others being done."""
    advance(before + sent, size)


def check_arguments(args: Sequence[str]) -> None:
    """Raises ``BadOption`` for an argument of the guest that can't be sent."""
    for number, text in enumerate(args, 1):
        try:
            utf8(text)
        except ValueError:
            raise BadOption(f"argument {number} is not UTF-8.") from None


def _checked_id(text: str) -> str:
    try:
        return job_id(text)
    except ValueError as error:
        raise BadOption(f"<job>: {error}") from None


def _error_of(job: Job) -> ErrorInfo | None:
    """Why a job failed, as far as the broker still knows."""
    try:
        return job.result(0, check=False).error
    except (MinilambdaError, TimeoutError):
        return None
