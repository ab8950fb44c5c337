"""Running a module, or a function as one calls it from a program: wait for the result, or come back for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from starlette.responses import Response

from minilambda.cli.render import status_object
from minilambda.client.async_job import AsyncJob
from minilambda.client.listings import Status
from minilambda.client.results import RunResult
from minilambda.errors import BadRequest, MinilambdaError
from minilambda.web.gateway import Asked
from minilambda.web.problems import Problem
from minilambda.web.replies import json_reply, result_object, result_problem, rows, stdout_reply, text_or_base64
from minilambda.web.sse import EventStream, Position, event, parse_position
from minilambda.web.submission import Submission, read_submission

RUN, SUBMIT = ("run", "call", "wait"), ("run", "call")
"""The options that a run takes which somebody waits for, and one that goes on by itself."""


async def run(asked: Asked) -> Response:
    """Run to the end and tell the result; the job is cancelled when the visitor hangs up."""
    found = await read_submission(asked.request, asked.body, asked.settings, RUN)
    output = found.options.pop("output", "json")
    wait = min(found.options.pop("wait", asked.settings.wait), asked.settings.wait)
    result = asked.keep(await asked.unless_gone(_run(asked, found, wait)))
    if result.error is not None:
        raise result_problem(result, asked.settings.max_inline_bytes)
    if output == "stdout":
        return stdout_reply(result, "application/octet-stream")
    return json_reply(result_object(result, asked.settings.max_inline_bytes))


async def submit(asked: Asked) -> Response:
    """Hand the job over; it goes on whatever becomes of this request."""
    found = await read_submission(asked.request, asked.body, asked.settings, SUBMIT)
    args, options = _options(asked, found)
    if found.function:
        job = await asked.client.submit_function(found.function, args, **options)
    else:
        assert found.module is not None
        job = await asked.client.submit(found.module, args or (), **options)
    return _accepted(job.id)


async def listed(asked: Asked) -> Response:
    """The jobs of the gateway's principal, newest first."""
    query = asked.query()
    return json_reply({"jobs": rows(await asked.client.jobs(query.get("state", ""), query.get("limit", 100)))})


async def status(asked: Asked) -> Response:
    """Where a job is; with ``story``, what happened to it so far, too."""
    story, job = asked.query().get("story", False), asked.client.job(asked.path["job"])
    return json_reply(await _told(job, await job.status(story=story)))


async def cancel(asked: Asked) -> Response:
    """Cancel a job; one that has ended stays as it is."""
    job = asked.client.job(asked.path["job"])
    return json_reply(await _told(job, await job.cancel()))


async def again(asked: Asked) -> Response:
    """Run an ended job once more."""
    try:
        return _accepted((await asked.client.job(asked.path["job"]).run_again()).id)
    except BadRequest as error:  # its input is not kept any more: nothing is wrong with the request
        raise Problem(error.code, error.message, status=409) from None


async def result(asked: Asked) -> Response:
    """The result of a job: at once, or when it has ended within ``wait`` seconds."""
    query, job = asked.query(), asked.client.job(asked.path["job"])
    await asked.all_of_body()
    try:
        wait = min(query.get("wait", 0), asked.settings.wait)
        found = asked.keep(await asked.unless_gone(job.result(wait, check=False)))
    except TimeoutError:
        return json_reply(await _told(job, await job.status()), 202, {"Retry-After": "1"})
    if query.get("output") == "stdout":
        return stdout_reply(found, "application/octet-stream")
    return json_reply(result_object(found, asked.settings.max_inline_bytes))


async def output(asked: Asked) -> Response:
    """What a job writes, as it writes it, and its end."""
    job = asked.client.job(asked.path["job"])
    position = parse_position(asked.request.headers.get("last-event-id", ""))
    await asked.all_of_body()
    await job.status()  # one that nobody knows is told in the usual way
    if position.ended:
        return Response(status_code=204)  # the end was told: an EventSource asks no more
    asked.begin_stream()

    async def events() -> AsyncGenerator[bytes, None]:
        at = position
        async for chunk in job.output():
            data, offset = _unseen(at, chunk)
            if chunk.attempt != at.attempt:
                at = Position(chunk.attempt)
            if not data:
                continue
            end = offset + len(data)
            at = at._replace(stdout=end) if chunk.stream == "stdout" else at._replace(stderr=end)
            value = {"attempt": chunk.attempt, "offset": offset, "size": len(data), **text_or_base64(data)}
            yield event(chunk.stream, value, at.text())
        yield event("end", await _told(job, await job.status()), at._replace(ended=True).text())

    return EventStream(events(), asked.body, asked.settings.beat, asked.gateway.stopping)


def _unseen(at: Position, chunk: Any) -> tuple[bytes, int]:
    """What a piece has that was not told yet, and its offset."""
    known = getattr(at, chunk.stream) if chunk.attempt == at.attempt else 0
    skip = max(0, known - chunk.offset)
    return chunk.data[skip:], chunk.offset + skip


async def _told(job: AsyncJob, status: Status) -> dict[str, Any]:
    """Where a job is, and why it failed, as far as the broker still knows."""
    error = None
    if status.state == "failed":
        with contextlib.suppress(MinilambdaError, TimeoutError):
            error = (await job.result(0, check=False)).error
    return status_object(status, error)


def _run(asked: Asked, found: Submission, wait: float) -> Coroutine[Any, Any, RunResult]:
    args, options = _options(asked, found)
    if found.function:
        return asked.client.run_function(found.function, args, check=False, wait=wait, **options)
    assert found.module is not None
    return asked.client.run(found.module, args or (), check=False, wait=wait, **options)


def _options(asked: Asked, found: Submission) -> tuple[list[str] | None, dict[str, Any]]:
    """The arguments, and the options as the client has them."""
    options = dict(found.options)
    args = options.pop("args", None)
    options["stdin"] = found.stdin
    group = asked.group(options.pop("group", ""))
    if group:
        options["group"] = group
    if found.files:
        options["files"] = found.files
    return args, options


def _accepted(job_id: str) -> Response:
    value = {"job_id": job_id, "state": "accepted", "url": f"/jobs/{job_id}"}
    return json_reply(value, 202, {"Location": f"/jobs/{job_id}"})
