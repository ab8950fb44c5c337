"""What the gateway answers: JSON objects with the members that ``minilambda-client --json`` has, and plain bytes."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minilambda.cli import render
from minilambda.client.results import RunResult
from minilambda.web.problems import Problem, failure

PIECE = 64 * 1024
"""A body is sent in such pieces, so that a visitor who stops reading is found out; bytes."""

MAX_NODES = 1_000_000
"""A returned value with more parts than this is not made into JSON."""


class Bytes(Response):
    """A reply whose body goes out piece by piece."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = bytes(self.body)
        for at in range(0, max(len(body), 1), PIECE):
            piece = body[at : at + PIECE]
            await send({"type": "http.response.body", "body": piece, "more_body": at + PIECE < len(body)})


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON document, as a line."""
    return Bytes(json.dumps(value).encode() + b"\n", status, headers, "application/json")


def result_object(result: RunResult, most: int) -> dict[str, Any]:
    """A job that has ended. Of each output and file at most so many bytes are in it; ``cut`` names what has more."""
    if _nodes(result.value) > MAX_NODES:
        raise Problem("output_limit", "The function's value is too large to be told in JSON.")
    cut = [name for name in ("stdout", "stderr") if len(getattr(result, name)) > most]
    shown = dataclasses.replace(result, stdout=result.stdout[:most], stderr=result.stderr[:most])
    found = render.result_object(shown)
    found.update(stdout_bytes=len(result.stdout), stderr_bytes=len(result.stderr))
    files: dict[str, bytes] = getattr(result, "files", None) or {}
    left, told = most, {}
    for path, content in files.items():
        if len(content) > left:
            cut.append(path)
            continue
        left -= len(content)
        told[path] = base64.b64encode(content).decode()
    found.update(files=told, missing=list(getattr(result, "missing", None) or ()), cut=cut)
    return found


def result_problem(result: RunResult, most: int) -> Problem:
    """The problem for a job that did not complete."""
    assert result.error is not None
    error = result.error
    return failure(error.code, error.message, job=True, job_id=result.job_id, result=result_object(result, most))


def stdout_reply(result: RunResult, media: str) -> Response:
    """Just what the guest wrote to its standard output."""
    headers = {"Minilambda-Job": result.job_id, "X-Content-Type-Options": "nosniff"}
    if result.exit_code is not None:
        headers["Minilambda-Exit-Code"] = str(result.exit_code)
    return Bytes(result.stdout, 200, headers, media)


def text_or_base64(data: bytes) -> dict[str, str]:
    """Bytes as JSON can hold them: as text where they are UTF-8."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def rows(values: Any) -> list[dict[str, Any]]:
    """A list of the broker's."""
    return [dataclasses.asdict(value) for value in values]


def _nodes(value: Any) -> int:
    """About how many values a value has in it, as JSON."""
    count, waiting = 0, [value]
    while waiting and count <= MAX_NODES:
        each = waiting.pop()
        count += 1
        if isinstance(each, bytes):
            count += len(each)
        elif isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, (list, tuple)):
            waiting.extend(each)
    return count
