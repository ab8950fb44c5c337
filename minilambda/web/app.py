"""The ASGI application: each request is judged, counted, handled, and answered whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from minilambda.web.bodies import Body, Gone, Lease
from minilambda.web.gateway import Asked, Gateway
from minilambda.web.guard import bearer, check_host, check_page, check_size, unauthorized
from minilambda.web.openapi import document
from minilambda.web.operations import Operation
from minilambda.web.problems import Problem, failure, http_problem, problem_of
from minilambda.web.routes import by_path
from minilambda.web.sse import EventStream
from minilambda.web.tokens import Token

log = logging.getLogger(__name__)

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
}
"""What each reply has, unless it says otherwise itself."""


def application(open_gateway: Callable[[], Gateway]) -> Starlette:
    """The application. ``open_gateway`` is called once its event loop runs."""
    found: list[Gateway] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        found.append(open_gateway())
        found[0].document = document()
        try:
            yield
        finally:
            await found.pop().close()

    routes = [Route(path, Endpoint(found, operations)) for path, operations in by_path().items()]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _refused})
    app.router.redirect_slashes = False
    return app


class Endpoint:
    """All that one path can do."""

    def __init__(self, gateway: list[Gateway], operations: Mapping[str, Operation]) -> None:
        self._gateway = gateway
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway[0]
        lease = Lease(gateway.budget)
        body = Body(scope, receive, lease, gateway.settings)
        streams = False
        gateway.requests += 1
        try:
            response = _dressed(await self._answer(gateway, Request(scope, receive), body, lease))
            streams = isinstance(response, EventStream)
            gateway.streams += streams
            await response(scope, receive, send)
        except Gone:
            return
        finally:
            gateway.requests -= 1
            gateway.streams -= streams
            lease.release()

    async def _answer(self, gateway: Gateway, request: Request, body: Body, lease: Lease) -> Response:
        try:
            check_size(request.scope, gateway.settings.max_header_bytes)
            operation = self._operation(request.method)
            token = admit(gateway, operation, request)
            if gateway.requests > gateway.settings.max_requests and not operation.always:
                raise failure("overloaded", "There are too many requests at a time.")
            return await operation.handler(Asked(gateway, request, body, lease, token, operation.query))
        except Gone:
            raise
        except asyncio.CancelledError:
            if not gateway.stopping.is_set():
                raise
            return failure("stopping", "").response()
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                log.exception("a request failed")
                problem = Problem("internal")
            return problem.response()

    def _operation(self, method: str) -> Operation:
        found = self._operations.get(method) or (self._operations.get("GET") if method == "HEAD" else None)
        if found is None:
            raise Problem("method_not_allowed", headers={"Allow": ", ".join(sorted(self._operations))})
        return found


def admit(gateway: Gateway, operation: Operation, request: Request) -> Token | None:
    """The token of a request that may be made. Raises ``Problem`` for one that may not."""
    if gateway.tokens is None:
        check_host(request.headers.get("host", ""), gateway.settings.hosts)
        check_page(request.method, request.headers, request.url.scheme, operation.calls)
        return None
    if operation.scope is None:
        return None
    token = gateway.tokens.current().find(bearer(request.headers.get("authorization", "")))
    if token is None:
        raise unauthorized("The token is not known.", "invalid_token")
    if operation.scope not in token.may:
        raise Problem("forbidden", f"The token {token.name!r} may not {operation.scope}.")
    return token


def _refused(_: Request, error: Exception) -> Response:
    """The reply to what the router found wrong."""
    assert isinstance(error, HTTPException)
    return _dressed(http_problem(error.status_code, error.detail, error.headers).response())


def _dressed(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
