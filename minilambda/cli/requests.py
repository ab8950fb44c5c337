"""What ``minilambda-client`` does once its command line is understood."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from minilambda.cli import exits, progress, render
from minilambda.cli.options import USAGE_EXIT, BadOption, Options, quiet_pipe
from minilambda.client.job import Job
from minilambda.client.modules import Module
from minilambda.client.results import RunResult
from minilambda.client.spec import RunOptions
from minilambda.client.sync import Client
from minilambda.errors import MinilambdaError
from minilambda.settings import DEFAULT_ADDRESS, BadSetting

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
        before = signal.signal(signal.SIGTERM, _terminated)
        try:
            return self._perform(args)
        finally:
            signal.signal(signal.SIGTERM, before)

    def _perform(self, args: Mapping[str, Any]) -> int:
        try:
            self._json = self._options.flag("--json")
            self._progress = not self._json and not self._options.flag("--quiet") and sys.stderr.isatty()
            server = self._options.address("--server", DEFAULT_ADDRESS)
            connect = self._options.duration("--connect-timeout", 5.0)
            with Client(server, connect_timeout=connect) as client:
                if args["<wasm>"] is not None:
                    return self._run(client, args["<wasm>"], args["<arg>"])
                if args["<job>"] is not None:
                    self._job_id = args["<job>"]
                    return self._job(client.job(args["<job>"]), args)
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
        except (MinilambdaError, ValueError) as error:
            self._complain(error)
            return exits.for_code(render.code_of(error))

    # --- a run ----------------------------------------------------------------------------------------

    def _run(self, client: Client, wasm: str, args: list[str]) -> int:
        found = self._run_options()
        module = self._module(client, wasm)
        self._job_id = found["job_id"]
        if self._options.flag("--detach"):
            job = client.submit(module, args, **found)
            self._say({"job_id": job.id, "state": "accepted", "exit_code": None, "error": None}, job.id)
            return 0
        with progress.waiting(client.endpoint, found["job_id"], self._progress):
            result = client.run(module, args, check=False, **found)
        return self._show(result)

    def _module(self, client: Client, wasm: str) -> Module:
        """The module's handle; a large one is sent ahead, so that one sees how far it is."""
        handle = client.module(wasm)
        if self._progress and handle.size is not None and handle.size > _LARGE:
            with progress.uploading(handle.size) as advance:
                client.upload(handle, progress=advance)
        return handle

    def _run_options(self) -> RunOptions:
        options = self._options
        found: RunOptions = {
            "job_id": options.text("--job", os.urandom(8).hex()),
            "env": dict(map(_variable, options.texts("--env"))),
            "priority": options.count("--priority", 0, -100, 100),
            "retries": options.count("--retries", 2, 0, 100),
            "group": options.text("--group", ""),
            "unknown_imports": options.choice("--unknown-imports", ("error", "trap"), "error"),
            "if_no_workers": options.choice("--if-no-workers", ("wait", "fail"), "wait"),
        }
        if options.given("--invoke"):
            found["invoke"] = options.text("--invoke", "")
        if options.given("--timeout"):
            found["timeout"] = options.duration("--timeout", 0)
        if options.given("--queue-timeout"):
            found["queue_timeout"] = options.duration("--queue-timeout", 0)
        if options.given("--memory"):
            found["memory"] = options.size("--memory", 0)
        if options.given("--output-limit"):
            found["output_limit"] = options.size("--output-limit", 0)
        source = options.text("--stdin", "")
        if source:
            found["stdin"] = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
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
        self._say(render.status_object(status), render.status_line(status))
        return 0

    def _list(self, client: Client, args: Mapping[str, Any]) -> int:
        state, limit = self._options.text("--state", ""), self._options.count("--limit", 100, 1, 1000)
        with quiet_pipe():
            if args["jobs"]:
                jobs = client.jobs(state, limit)
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
            with quiet_pipe():
                render.print_json(render.result_object(result))
        else:
            with quiet_pipe():
                sys.stdout.buffer.write(result.stdout)
                text = render.value_text(result.value)
                if text:
                    sys.stdout.buffer.write(text.encode() + b"\n")
            sys.stderr.buffer.write(result.stderr)
            sys.stderr.flush()
            if result.error is not None:
                self._explain(result.error.code, result.error.message, result.error.backtrace)
        return exits.for_result(result)

    def _say(self, value: Any, text: str) -> None:
        with quiet_pipe():
            render.print_json(value) if self._json else print(text)

    def _complain(self, error: Exception) -> None:
        code = render.code_of(error)
        if self._json:
            with quiet_pipe():
                render.print_json(render.failure_object(error, code, self._job_id))
        elif isinstance(error, (BadOption, BadSetting)):
            print(f"{PROGRAM}: {error}", file=sys.stderr)
        else:
            self._explain(code, render.sentence(error), None)

    def _explain(self, code: str, message: str, backtrace: str | None) -> None:
        lines = [f"{PROGRAM}: {code}: {message}", *(backtrace or "").splitlines()]
        print("\n    ".join(render.printable(line) for line in lines), file=sys.stderr)


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadOption(f"--env: {text!r} is not K=V.")
    return name, value


def _terminated(*_: object) -> NoReturn:
    """SIGTERM: cancel the job as an interrupt does, and leave with the code that shells use for it."""
    raise SystemExit(128 + signal.SIGTERM)
