"""What the gateway's JSON replies look like, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from minilambda.web.schema import Schema

_TEXT: Schema = {"type": "string"}
_MAYBE: Schema = {"type": ["string", "null"]}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_MILLIS: Schema = {"type": "number", "minimum": 0, "description": "milliseconds"}
_ROWS: Schema = {"type": "array", "items": {"type": "object"}}
_ROWS_MAYBE: Schema = {"type": ["array", "null"], "items": {"type": "object"}}
_STATE: Schema = {"enum": ["queued", "assigned", "running", "completed", "failed", "cancelled"]}


def ref(name: str) -> Schema:
    """One of ``COMPONENTS`` by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def listing(name: str) -> Schema:
    """An object with one list of rows."""
    return {"type": "object", "properties": {name: _ROWS}, "required": [name]}


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


EVENT: Schema = {
    "type": "object",
    "properties": {"event": _TEXT, "id": _TEXT, "data": {"type": "string", "contentMediaType": "application/json"}},
}
"""One event of a stream; a stream has many."""

COMPONENTS: dict[str, Schema] = {
    "Problem": _object(
        {
            "type": _TEXT,
            "title": _TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "code": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
            "detail": _TEXT,
            "retry_after_ms": _COUNT,
            "job_id": _TEXT,
            "result": ref("Result"),
            "exit_code": {"type": "integer"},
            "stderr": _TEXT,
        },
        ("retry_after_ms", "job_id", "result", "exit_code", "stderr"),
    ),
    "Error": _object(
        {"code": _TEXT, "message": _TEXT, "trap": _TEXT, "backtrace": _TEXT}, optional=("trap", "backtrace")
    ),
    "Result": _object(
        {
            "job_id": _TEXT,
            "state": {"enum": ["completed", "failed", "cancelled"]},
            "exit_code": {"type": ["integer", "null"]},
            "error": {"anyOf": [ref("Error"), {"type": "null"}]},
            "stdout": {"type": "string", "description": "as text; stdout_base64 has it where it is not UTF-8"},
            "stdout_base64": _TEXT,
            "stderr": _TEXT,
            "stderr_base64": _TEXT,
            "stdout_bytes": _COUNT,
            "stderr_bytes": _COUNT,
            "value": {"description": "what the function of invoke returned"},
            "usage": {"type": "object"},
            "tier": _MAYBE,
            "worker": _MAYBE,
            "attempt": _COUNT,
            "files": {"type": "object", "additionalProperties": _TEXT, "description": "collected, in base64"},
            "missing": {"type": "array", "items": _TEXT, "description": "asked for and not there"},
            "cut": {"type": "array", "items": _TEXT, "description": "what was too long to be told whole"},
        },
        ("stdout_base64", "stderr_base64"),
    ),
    "Status": _object(
        {
            "job_id": _TEXT,
            "state": _STATE,
            "error": {"anyOf": [ref("Error"), {"type": "null"}]},
            "attempt": _COUNT,
            "worker": _MAYBE,
            "cancelling": {"type": "boolean"},
            "age_ms": _MILLIS,
            "story": {"type": "array", "items": _object({"at_ms": _MILLIS, "what": _TEXT})},
        },
        ("story",),
    ),
    "Accepted": _object({"job_id": _TEXT, "state": {"enum": ["accepted"]}, "url": _TEXT}),
    "Module": _object({"module": _TEXT, "size": _COUNT}),
    "Deployed": _object({"function": _TEXT, "version": _COUNT, "alias": _TEXT}),
    "Ok": _object({"status": {"enum": ["ok"]}}),
    "State": _object(
        {
            "at": {"type": "number"},
            "up": {"type": "boolean"},
            "problem": {"type": ["object", "null"]},
            "seen": {"type": ["number", "null"]},
            "broker": {"type": "object"},
            "gateway": {"type": "object"},
            "overview": {"type": ["object", "null"]},
            "workers": _ROWS_MAYBE,
            "queued": {"type": ["integer", "null"]},
            "jobs": _ROWS_MAYBE,
            "functions": _ROWS_MAYBE,
        }
    ),
}
"""The schemas that the document has by name."""
