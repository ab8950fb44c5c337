"""What a visitor is told when something goes wrong: a problem document (RFC 9457) with the wire code."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from minilambda.errors import BY_CODE, JobError, MinilambdaError

PROBLEM = "application/problem+json"
"""Media type of every answer that is an error."""

STATUS: dict[str, int] = {
    # the request
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "foreign_page": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "slow_request": 408,
    "conflict": 409,
    "cancelled": 409,
    "expired": 410,
    "module_too_large": 413,
    "input_too_large": 413,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "wrong_host": 421,
    # the guest
    "invalid_module": 422,
    "wrong_digest": 422,
    "trap": 422,
    "stack_overflow": 422,
    "out_of_memory": 422,
    "output_limit": 422,
    "unknown_import": 422,
    "unknown_import_called": 422,
    "unknown_export": 422,
    "bad_arguments": 422,
    "compile_limit": 422,
    "job_failed": 422,
    # how much there is to do
    "busy": 429,
    "quota_exceeded": 429,
    # what stands behind the gateway
    "internal": 500,
    "guest_failed": 500,
    "bad_reply": 500,
    "unsupported": 501,
    "runner_crashed": 502,
    "worker_lost": 502,
    "poisoned": 502,
    "key_refused": 502,
    "unsupported_version": 502,
    "request_failed": 502,
    "unreachable": 503,
    "no_workers": 503,
    "queue_timeout": 503,
    "storage_failed": 503,
    "overloaded": 503,
    "stopping": 503,
    "deadline_exceeded": 504,
    "not_finished": 504,
}
"""Code to HTTP status: those of the protocol, and the gateway's own."""

SENTENCES: dict[str, str] = {
    "unauthorized": "A bearer token is needed.",
    "foreign_page": "A page of another site may not use this gateway.",
    "method_not_allowed": "This path does not take that method.",
    "slow_request": "The request's body came too slowly.",
    "body_too_large": "The request's body is larger than the gateway takes.",
    "unsupported_media_type": "The body has a media type that is not taken here.",
    "wrong_host": "The gateway is not known by this name.",
    "wrong_digest": "The body is not what its digest says.",
    "guest_failed": "The function ended with an exit code other than 0.",
    "bad_reply": "What came from the function can't be a reply.",
    "overloaded": "The gateway has as much to do as it can take.",
    "stopping": "The gateway is being stopped.",
    "not_finished": "The job did not end in time.",
}
"""What the gateway's own codes say."""

RETRY = {"busy": 1.0, "quota_exceeded": 1.0, "overloaded": 1.0, "unreachable": 2.0, "no_workers": 2.0, "stopping": 5.0}
"""Codes for which trying again is of use, and after how long where nobody says, seconds."""


class Problem(Exception):
    """A request ends with this. Not an error of minilambda: it never leaves the gateway but as a reply."""

    def __init__(
        self, code: str, detail: str = "", headers: Mapping[str, str] | None = None, status: int = 0, **more: Any
    ) -> None:
        super().__init__(code)
        self.code = code
        self.status = status or STATUS.get(code, 500)
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more  # further members of the document

    def response(self) -> Response:
        """The reply."""
        document = {
            "type": f"urn:minilambda:{self.code}",
            "title": title(self.code),
            "status": self.status,
            "code": self.code,
            "detail": self.detail or title(self.code),
            **self.more,
        }
        return Response(json.dumps(document) + "\n", self.status, self.headers, PROBLEM)


def title(code: str) -> str:
    """The sentence of a code that is the same each time."""
    if code in SENTENCES:
        return SENTENCES[code]
    cls = BY_CODE.get(code)
    return cls.sentence if cls is not None else f"The code is {code!r}."


def problem_of(error: Exception, **more: Any) -> Problem | None:
    """The problem that an error of the client is; None for one that is a fault of the gateway's own."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):  # two classes before Python 3.11
        return Problem("not_finished", str(error), **more)
    if not isinstance(error, MinilambdaError):
        return None
    return failure(error.code, error.message, getattr(error, "retry_after", None), isinstance(error, JobError), **more)


def failure(code: str, detail: str, retry_after: float | None = None, job: bool = False, **more: Any) -> Problem:
    """The problem for a wire code; one that this version does not know is the job's fault, or the broker's."""
    status = STATUS.get(code) or (422 if job else 502)
    headers = {}
    wait = retry_after if retry_after is not None else RETRY.get(code)
    if wait is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
        more["retry_after_ms"] = round(wait * 1000)
    return Problem(code, detail, headers, status, **more)


def http_problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem for an error that the HTTP library found."""
    if status == HTTPStatus.NOT_FOUND:
        detail = "There is nothing at this path; see /docs."
    code = next((code for code, known in STATUS.items() if known == status), "bad_request")
    return Problem(code, "" if detail == HTTPStatus(status).phrase else detail, headers, status)
