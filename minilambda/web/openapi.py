"""The OpenAPI 3.1 document, made from the table of operations."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Any

from minilambda._version import __version__
from minilambda.web.operations import Answer, Operation
from minilambda.web.problems import PROBLEM
from minilambda.web.routes import OPERATIONS
from minilambda.web.shapes import COMPONENTS, ref

EVERY = (400, 403, 421, 429, 500, 502, 503, 504)
"""Statuses of errors that any operation may end with."""

_TAGS = {
    "jobs": "Run modules.",
    "functions": "Modules with a name and versions.",
    "calls": "Functions called as a web server calls a program.",
    "modules": "Modules that the broker has.",
    "cluster": "How the cluster does.",
    "health": "For those who watch the gateway.",
    "pages": "For people.",
}


@cache
def document() -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "minilambda",
            "version": __version__,
            "summary": "Run untrusted WebAssembly over HTTP.",
            "description": "Errors are problem documents; `code` is the code of the protocol, and stable.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": says} for name, says in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "from `minilambda web token NAME`"}
            },
        },
    }


def _operation(operation: Operation, path: str) -> dict[str, Any]:
    scope = operation.scope
    needs = f"A token needs the scope `{scope}`." if scope is not None else ""
    found: dict[str, Any] = {
        "operationId": _identity(operation, path),
        "summary": operation.says,
        "description": " ".join(text for text in (operation.more, needs) if text),
        "tags": [operation.tag],
        "parameters": [parameter.object() for parameter in operation.parameters],
        "responses": _responses(operation),
        "security": [{"token": []}, {}] if scope is not None else [],
    }
    if operation.body:
        content = {media: {"schema": schema} for media, schema in operation.body.items()}
        found["requestBody"] = {"required": operation.body_needed, "content": content}
    return found


def _identity(operation: Operation, path: str) -> str:
    words = re.sub(r"[^a-z]+", "_", path.lower()).strip("_") or "index"
    return f"{operation.method.lower()}_{words}"


def _responses(operation: Operation) -> dict[str, Any]:
    found = {str(status): _answer(answer) for status, answer in operation.answers.items()}
    statuses = {*EVERY, *operation.problems} | ({401} if operation.scope is not None else set())
    if operation.body:
        statuses |= {408, 413}
    if "{" in operation.path:
        statuses |= {404}
    for status in sorted(statuses):
        says = HTTPStatus(status).phrase
        found[str(status)] = {"description": says, "content": {PROBLEM: {"schema": ref("Problem")}}}
    if operation.tag == "calls":
        found["default"] = {"description": "What the function says."}
    return found


def _answer(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {"description": answer.says}
    if answer.media:
        found["content"] = {answer.media: {"schema": answer.schema or {}}}
    if answer.bytes:
        found["content"][answer.bytes] = {"schema": {"type": "string", "format": "binary"}}
    if answer.headers:
        found["headers"] = {name: {"schema": {"type": "string"}} for name in answer.headers}
    return found
