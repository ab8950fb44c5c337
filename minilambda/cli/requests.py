"""What ``minilambda-client`` does once its command line is understood."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from minilambda.cli import exits, keyring, progress, render, signals, sources
from minilambda.cli.options import USAGE_EXIT, BadOption, Options, job_id, utf8
from minilambda.cli.streams import OutputLost, complain, printing, write_error
from minilambda.client.job import Job
from minilambda.client.modules import Module
from minilambda.client.results import RunResult
from minilambda.client.spec import RunOptions
from minilambda.client.sync import Client
from minilambda.errors import MinilambdaError
from minilambda.messages import ErrorInfo
from minilambda.notation import DEFAULT_ADDRESS, BadSetting

PROGRAM = "minilambda-client"
_LARGE = 1024 * 1024  # a module above this is sent with a progress bar, bytes


class Requests:
    """One call of the command."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._json = False
        self._progress = False
        self._job_id: str | None = None  # of the job that the call is about

    def perform(self, args: Mapping[str, Any]) -> int:
        """Do what the arguments ask for; returns the exit code."""
        with signals.raised():
            try:
                return self._perform(args)
            except OutputLost as error:
                complain(f"{PROGRAM}: {error}")
                return exits.PLATFORM

    def _perform(self, args: Mapping[str, Any]) -> int:
        try:
            self._json = self._options.flag("--json")
            self._progress = not self._json and not self._options.flag("--quiet") and sys.stderr.isatty()
            server = self._options.peer("--server", DEFAULT_ADDRESS)
            connect = self._options.duration("--connect-timeout", 5.0)
            key, server_key = keyring.named_keys(self._options)
            with Client(server, connect_timeout=connect, key=key, server_key=server_key) as client:
                if args["<wasm>"] is not None:
                    return self._run(client, args["<wasm>"], args["<arg>"])
                if args["<job>"] is not None:
                    self._job_id = _checked_id(args["<job>"])
                    return self._job(client.job(self._job_id, self._options.label("--principal", "")), args)
                return self._list(client, args)
        except (BadOption, BadSetting) as error:
            self._complain(error)
            return USAGE_EXIT
        except FileNotFoundError as error:
            self._complain(error)
            return exits.NO_SUCH_FILE
        except OSError as error:
            self._complain(error)
            return exits.PLATFORM if isinstance(error, TimeoutError) else exits.NOT_RUNNABLE
        except OutputLost:
            raise
        except (MinilambdaError, ValueError) as error:
            self._complain(error)
            return exits.for_code(render.code_of(error))

    # --- a run ----------------------------------------------------------------------------------------

    def _run(self, client: Client, wasm: str, args: list[str]) -> int:
        _check_arguments(args)
        found = self._run_options()
        self._job_id = found["job_id"]
        module = client.module(wasm)
        source = self._options.path("--stdin", "")
        if source:
            found["stdin"] = sources.read_stdin(client, source)
        self._send_ahead(client, module)
        if self._options.flag("--detach"):
            job = client.submit(module, args, **found)
            self._say({"job_id": job.id, "state": "accepted", "exit_code": None, "error": None}, job.id)
            return 0
        with progress.waiting(client.endpoint, found["job_id"], self._progress):
            result = client.run(module, args, check=False, **found)
        return self._show(result)

    def _send_ahead(self, client: Client, module: Module) -> None:
        """A large module goes before its job, so that one sees how far it is."""
        if self._progress and module.size is not None and module.size > _LARGE:
            with progress.uploading(module.size) as advance:
                client.upload(module, progress=advance)

    def _run_options(self) -> RunOptions:
        options = self._options
        found: RunOptions = {
            "job_id": options.job_id("--job", os.urandom(8).hex()),
            "env": options.pairs("--env"),
            "priority": options.count("--priority", 0, -100, 100),
            "retries": options.count("--retries", 2, 0, 100),
            "group": options.label("--group", ""),
            "unknown_imports": options.choice("--unknown-imports", ("error", "trap"), "error"),
            "if_no_workers": options.choice("--if-no-workers", ("wait", "fail"), "wait"),
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

    # --- jobs and lists -------------------------------------------------------------------------------

    def _job(self, job: Job, args: Mapping[str, Any]) -> int:
        if args["result"]:
            wait = None
            if self._options.given("--wait"):
                wait = self._options.duration("--wait", 0, zero=True)
            with progress.waiting(job.endpoint, job.id, self._progress):
                result = job.result(wait, check=False)
            return self._show(result)
        if args["run-again"]:
            again = job.run_again()
            self._say({"job_id": again.id, "state": "accepted", "exit_code": None, "error": None}, again.id)
            return 0
        status = job.cancel() if args["cancel"] else job.status()
        error = _error_of(job) if status.state == "failed" else None
        self._say(render.status_object(status, error), render.status_line(status, error))
        return 0

    def _list(self, client: Client, args: Mapping[str, Any]) -> int:
        state, limit = self._options.label("--state", ""), self._options.count("--limit", 100, 1, 1000)
        principal = self._options.label("--principal", "")
        with printing():
            if args["jobs"]:
                jobs = client.jobs(state, limit, principal)
                render.print_json(render.rows(jobs)) if self._json else render.jobs_table(jobs)
            elif args["modules"]:
                found = client.modules()
                render.print_json(render.rows(found)) if self._json else render.modules_table(found)
            else:
                cluster = client.cluster()
                render.print_json(render.rows(cluster.workers)) if self._json else render.workers_table(cluster)
        return 0

    # --- output ---------------------------------------------------------------------------------------

    def _show(self, result: RunResult) -> int:
        if self._json:
            with printing():
                render.print_json(render.result_object(result))
        else:
            try:
                with printing():
                    sys.stdout.buffer.write(result.stdout)
                    text = render.value_text(result.value)
                    if text:
                        sys.stdout.buffer.write(text.encode() + b"\n")
            finally:
                write_error(result.stderr)
                if result.error is not None:
                    self._explain(result.error.code, result.error.message, result.error.backtrace)
        return exits.for_result(result)

    def _say(self, value: Any, text: str) -> None:
        with printing():
            render.print_json(value) if self._json else print(text)

    def _complain(self, error: Exception) -> None:
        code = render.code_of(error)
        if self._json:
            with printing():
                render.print_json(render.failure_object(error, code, self._job_id))
        elif isinstance(error, (BadOption, BadSetting)):
            complain(f"{PROGRAM}: {error}")
        else:
            self._explain(code, render.sentence(error), None)

    def _explain(self, code: str, message: str, backtrace: str | None) -> None:
        lines = [f"{PROGRAM}: {code}: {message}", *(backtrace or "").splitlines()]
        complain("\n    ".join(render.printable(line) for line in lines))


def _check_arguments(args: Sequence[str]) -> None:
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
