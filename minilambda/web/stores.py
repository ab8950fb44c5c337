"""Modules and workers: what the broker has."""

from __future__ import annotations

from starlette.responses import Response

from minilambda.web.gateway import Asked
from minilambda.web.problems import Problem
from minilambda.web.replies import json_reply, rows
from minilambda.web.submission import module_of


async def put(asked: Asked) -> Response:
    """Give the broker a module, under the digest in the path where there is one."""
    handle = await module_of(await asked.all_of_body())
    wanted = asked.path.get("digest", handle.digest)
    if wanted != handle.digest:
        raise Problem("wrong_digest", f"The body is {handle.digest}.")
    await asked.unless_gone(asked.client.upload(handle))
    return json_reply({"module": handle.digest, "size": handle.size}, 201, {"Location": f"/modules/{handle.digest}"})


async def modules(asked: Asked) -> Response:
    """The modules that the broker has."""
    return json_reply({"modules": rows(await asked.client.modules())})


async def workers(asked: Asked) -> Response:
    """The workers, and how many jobs wait for them."""
    found = await asked.client.cluster()
    return json_reply({"workers": rows(found.workers), "queued": found.queued})
