"""What a visitor wants run or deployed: a raw module with a query, a form, or a JSON object, read into one thing."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from minilambda.client.modules import Module
from minilambda.fields import is_guest_path
from minilambda.notation import MIB
from minilambda.web.bodies import Body
from minilambda.web.multipart import Part, read_parts
from minilambda.web.options import REFERENCE, checked, from_query, members
from minilambda.web.problems import Problem
from minilambda.web.schema import Schema, conform, parse_json
from minilambda.web.settings import WebSettings

RAW = ("application/wasm", "application/octet-stream", "")
"""Media types of a body that is a module; "": none is named."""

JSON, FORM = "application/json", "multipart/form-data"

_DIGEST = re.compile("sha256:[0-9a-f]{64}")
_FILE = "file:"  # a form's part with this before a guest's path is a file


@dataclass(slots=True)
class Submission:
    """A module or a function, its input, and how to run it."""

    module: Module | None = None  # None: a function is to be called
    function: str = ""  # NAME, NAME@VERSION or NAME@ALIAS
    stdin: bytes = b""
    files: dict[str, Module] = field(default_factory=dict)  # path in the guest to content; never a path here
    options: dict[str, Any] = field(default_factory=dict)  # those of ``options.OPTIONS`` that were given


def json_schema(uses: Iterable[str]) -> Schema:
    """The object that a JSON body has in it. ``uses`` are those of ``Option``."""
    base64_text = {"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/]*={0,2}$"}
    properties: dict[str, Schema] = {
        "wasm": {
            "anyOf": [{"type": "string", "pattern": _DIGEST.pattern.join("^$")}, {**base64_text, "minLength": 12}],
            "description": "a module that the broker has, or one in base64",
        },
        "stdin": {"type": "string", "description": "standard input, as text"},
        "stdin_base64": {**base64_text, "description": "standard input, as bytes"},
        "files": {
            "type": "object",
            "maxProperties": 2048,
            "propertyNames": {"type": "string", "pattern": "^/.+$"},
            "additionalProperties": {
                "anyOf": [{"type": "string", "pattern": _DIGEST.pattern.join("^$")}, base64_text],
                "description": "a file that the broker has, or one in base64",
            },
            "description": "absolute path in the guest to a file's content",
        },
    }
    wanted = list(uses)
    if "call" in wanted:
        properties["function"] = {**REFERENCE, "description": "a function to call, in place of wasm"}
    if "deploy" in wanted:
        del properties["stdin"], properties["stdin_base64"]
    properties.update(members(wanted))
    found: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    if "call" in wanted:
        return {**found, "oneOf": [{"required": ["wasm"]}, {"required": ["function"]}]}
    return {**found, "required": ["wasm"]}


async def read_submission(request: Request, body: Body, settings: WebSettings, uses: tuple[str, ...]) -> Submission:
    """What the request asks for. Raises ``Problem``."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        query = from_query(request.query_params.multi_items(), uses)
        if media in RAW:
            found = Submission(module=await module_of(await body.read(settings.max_body_bytes)))
        elif media == JSON:
            found = await _from_json(await body.read(min(settings.max_json_bytes, settings.max_body_bytes)), uses)
        elif media == FORM:
            pieces = body.pieces(settings.max_body_bytes)
            found = await _from_form(
                await read_parts(request.headers["content-type"], pieces, settings.max_parts), uses
            )
        else:
            raise Problem(
                "unsupported_media_type", f"The body is {media[:100]!r}; take {', '.join((*RAW[:2], JSON, FORM))}."
            )
        found.options = {**query, **found.options}
        _judge(found)
    except ValueError as error:
        raise Problem("bad_request", str(error)) from None
    return found


async def module_of(data: bytes) -> Module:
    """The handle of a module's bytes; they are hashed where that holds nobody up."""
    if not data:
        raise Problem("invalid_module", "The module is empty.")
    return await content_of(data)


async def content_of(data: bytes) -> Module:
    """The handle of any bytes, likewise."""
    digest = hashlib.sha256(data) if len(data) < 65536 else await asyncio.to_thread(hashlib.sha256, data)
    return Module(f"sha256:{digest.hexdigest()}", len(data), data=data)


async def _from_json(data: bytes, uses: tuple[str, ...]) -> Submission:
    given = conform(json_schema(uses), parse_json(data), "the body")
    found = Submission(function=given.pop("function", ""))
    wasm, stdin = given.pop("wasm", None), given.pop("stdin", None)
    if wasm is not None:
        found.module = Module(wasm) if _DIGEST.fullmatch(wasm) else await module_of(_decoded(wasm, "wasm"))
    found.stdin = (stdin or "").encode()
    if "stdin_base64" in given:
        if stdin is not None:
            raise ValueError("stdin and stdin_base64 exclude each other.")
        found.stdin = _decoded(given.pop("stdin_base64"), "stdin_base64")
    for path, text in given.pop("files", {}).items():
        is_digest = _DIGEST.fullmatch(text)
        found.files[path] = Module(text) if is_digest else await content_of(_decoded(text, path[:64]))
    found.options = checked(given, uses)
    return found


async def _from_form(parts: list[Part], uses: tuple[str, ...]) -> Submission:
    """Parts are wasm, stdin, options (a JSON object), function, and file:/PATH for each file."""
    found, seen = Submission(), set[str]()
    for name, data in parts:
        if name in seen:
            raise ValueError(f"the form has two parts {name[:64]!r}.")
        seen.add(name)
        if name == "wasm":
            digest = data.strip().decode("latin-1") if len(data) < 100 else ""
            found.module = Module(digest) if _DIGEST.fullmatch(digest) else await module_of(data)
        elif name == "stdin" and "deploy" not in uses:
            found.stdin = data
        elif name == "options":
            if len(data) > MIB:
                raise ValueError("the options have more than 1 MiB.")
            found.options = checked(conform({"type": "object"}, parse_json(data), "options"), uses)
        elif name == "function" and "call" in uses:
            found.function = conform(REFERENCE, data.decode("utf-8", "replace").strip(), "function")
        elif name.startswith(_FILE):
            found.files[name[len(_FILE) :]] = await content_of(data)
        else:
            raise ValueError(f"the form has a part {name[:64]!r}, which is not known here.")
    return found


def _judge(found: Submission) -> None:
    """Raises ``ValueError`` for what can't be one job."""
    if (found.module is None) == (not found.function):
        raise ValueError("name a module (wasm) or a function, and not both.")
    for path in found.files:
        if not is_guest_path(path):
            raise ValueError(f"{path[:64]!r} is not an absolute path without '.' and '..'.")
    if found.function:
        odd = sorted(found.options.keys() - {"args", "env", "invoke", "timeout", "group", "job_id", "wait", "output"})
        if odd or found.files:
            raise ValueError(f"a function is called as it was deployed: {(odd or ['files'])[0]!r} can't be changed.")


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{where} is not base64.") from None
