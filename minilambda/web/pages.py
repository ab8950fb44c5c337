"""The pages and their files, the OpenAPI document, and how the gateway itself is."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

from starlette.responses import Response

from minilambda.web.gateway import Asked
from minilambda.web.problems import Problem, failure
from minilambda.web.replies import Bytes, json_reply
from minilambda.web.sse import EventStream

MEDIA = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Kinds of files that are served, by what their names end in."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The pages run their own scripts only, and talk to this gateway only."""


@cache
def files() -> dict[str, tuple[bytes, str]]:
    """The files that are served: name to content and its tag. Read once, so nothing else can be asked for."""
    found = {}
    for each in resources.files("minilambda.web").joinpath("page").iterdir():
        if each.is_file() and each.name.rpartition(".")[2] in MEDIA:
            data = each.read_bytes()
            found[each.name] = (data, f'"{hashlib.sha256(data).hexdigest()[:32]}"')
    return found


async def index(asked: Asked) -> Response:
    """The live page."""
    return _file(asked, "index.html")


async def docs(asked: Asked) -> Response:
    """The page that shows the OpenAPI document."""
    return _file(asked, "docs.html")


async def file(asked: Asked) -> Response:
    """A file of the pages."""
    return _file(asked, asked.path["file"])


async def document(asked: Asked) -> Response:
    """The OpenAPI document."""
    return json_reply(asked.gateway.document)


async def health(asked: Asked) -> Response:
    """The gateway runs."""
    return json_reply({"status": "ok"})


async def ready(asked: Asked) -> Response:
    """The broker answers."""
    problem = await asked.gateway.live.up()
    if problem is not None:
        raise failure(problem["code"], problem["detail"])
    return json_reply({"status": "ok"})


async def state(asked: Asked) -> Response:
    """How the cluster does."""
    return json_reply(await asked.gateway.live.state())


async def events(asked: Asked) -> Response:
    """How the cluster does, again and again."""
    await asked.all_of_body()
    asked.begin_stream()
    return EventStream(asked.gateway.live.events(), asked.body, asked.settings.beat, asked.gateway.stopping)


def _file(asked: Asked, name: str) -> Response:
    found = files().get(name)
    if found is None:
        raise Problem("not_found", "There is no such page.")
    data, tag = found
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
    if asked.request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Bytes(data, 200, headers, MEDIA[name.rpartition(".")[2]])
