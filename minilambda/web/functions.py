"""Functions: deployed, listed, moved and called over HTTP."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from minilambda.cli.render import plain
from minilambda.client.results import RunResult
from minilambda.errors import NotFound
from minilambda.web import cgi
from minilambda.web.gateway import Asked
from minilambda.web.options import NAME
from minilambda.web.problems import STATUS, Problem, failure
from minilambda.web.replies import Bytes, json_reply, result_object, rows
from minilambda.web.schema import Schema, conform, parse_json
from minilambda.web.submission import read_submission

DEPLOY = ("deploy",)

ALIAS_BODY: Schema = {
    "type": "object",
    "properties": {"version": {"type": "integer", "minimum": 0, "maximum": 2**53, "description": "0: roll back"}},
    "additionalProperties": False,
}
"""What moves an alias."""

SANDBOX = "sandbox allow-scripts allow-forms allow-popups; frame-ancestors 'none'"
"""The policy of each reply that a guest wrote: a browser gives it an origin of its own, and it has no part in ours."""

MAGIC = b"\0asm"
"""What each module and component begins with."""

_SAID = 2000  # so much of a failed guest's standard error is told, characters


async def deploy(asked: Asked) -> Response:
    """Make a version, and move an alias to it."""
    found = await read_submission(asked.request, asked.body, asked.settings, DEPLOY)
    assert found.module is not None
    start = found.module.data[:4] if found.module.data is not None else MAGIC
    if start != MAGIC:  # who deploys it is told, not who calls it
        raise Problem("invalid_module", f"The bytes are not WebAssembly: they start with {start.hex(' ')}.")
    options = dict(found.options)
    args = options.pop("args", ())
    if found.files:
        options["files"] = found.files
    name = asked.path["name"]
    made = await asked.client.deploy(name, found.module, args, **options)
    return json_reply(_deployed(made, options.get("alias", "live")), 200, {"Location": f"/functions/{name}"})


async def listed(asked: Asked) -> Response:
    """All functions that may be called."""
    return json_reply({"functions": rows(await asked.client.functions())})


async def versions(asked: Asked) -> Response:
    """One function with all its versions."""
    name = asked.path["name"]
    found = await asked.client.functions(name)
    if not found:
        raise NotFound(f"There is no function {name!r}.")
    return json_reply({"function": name, "versions": rows(found)})


async def undeploy(asked: Asked) -> Response:
    """Forget a function, or one version of it."""
    await asked.client.undeploy(asked.path["name"], asked.query().get("version", 0))
    return Response(status_code=204)


async def move(asked: Asked) -> Response:
    """Move an alias to a version, or back to the one before."""
    data = await asked.body.read(4096)
    try:
        given = conform(ALIAS_BODY, parse_json(data), "the body") if data.strip() else {}
    except ValueError as error:
        raise Problem("bad_request", str(error)) from None
    alias = _alias(asked)
    return json_reply(
        _deployed(await asked.client.set_alias(asked.path["name"], alias, given.get("version", 0)), alias)
    )


async def drop(asked: Asked) -> Response:
    """Drop an alias."""
    await asked.client.drop_alias(asked.path["name"], _alias(asked))
    return Response(status_code=204)


async def call(asked: Asked) -> Response:
    """Call a function as a web server calls a program: the reply is what it writes."""
    reference = asked.path["name"] + (f"@{asked.path['version']}" if "version" in asked.path else "")
    stdin = await asked.all_of_body()
    env = cgi.variables(_called(asked, reference, len(stdin)))
    options: dict[str, Any] = {"stdin": stdin, "env": env}
    if asked.group():
        options["group"] = asked.group()
    work = asked.client.run_function(reference, check=False, wait=asked.settings.wait, **options)
    return _reply(asked, asked.keep(await asked.unless_gone(work)))


def _alias(asked: Asked) -> str:
    """The alias in the path. Raises ``Problem`` for what can't be one."""
    try:
        return str(conform(NAME, asked.path["alias"], "the alias"))
    except ValueError as error:
        raise Problem("not_found", str(error)) from None


def _called(asked: Asked, reference: str, size: int) -> cgi.Called:
    request = asked.request
    visitor, server = request.client, request.scope.get("server") or ("", 0)
    return cgi.Called(
        method=request.method,
        script=f"/functions/{reference}",
        path="/" + asked.path["path"] if "path" in asked.path else "",
        query=request.scope["query_string"].decode("latin-1"),
        headers=request.headers.items(),
        size=size,
        server=(server[0], server[1] or 0),
        visitor=visitor.host if visitor is not None else "",
        protocol=f"HTTP/{request.scope['http_version']}",
        user=asked.token.name if asked.token is not None else "",
        scheme=request.url.scheme,
    )


def _reply(asked: Asked, result: RunResult) -> Response:
    """What the visitor gets of a call that has ended. Raises ``Problem``."""
    if result.error is not None:
        error = result.error
        problem = failure(error.code, error.message, job=True, job_id=result.job_id)
        if problem.status == STATUS["trap"]:  # whoever calls a function has not written it
            problem.status = STATUS["guest_failed"]
        raise problem
    if result.exit_code:
        said = result.stderr_text[-_SAID:]
        raise Problem("guest_failed", job_id=result.job_id, exit_code=result.exit_code, stderr=said)
    if result.value is not None:
        shown = result_object(result, 0)  # it judges the size
        return json_reply(plain(shown["value"]), headers={"Minilambda-Job": result.job_id})
    found = cgi.reply(result.stdout)
    response = Bytes(found.body if found.status not in (204, 304) else b"", found.status)
    for name, value in found.headers:
        response.headers.append(name, value)
    response.headers["Minilambda-Job"] = result.job_id
    response.headers["Content-Security-Policy"] = SANDBOX
    return response


def _deployed(made: Any, alias: str) -> dict[str, Any]:
    return {"function": made.function, "version": made.version, "alias": alias}
