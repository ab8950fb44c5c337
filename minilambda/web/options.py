"""The options of a run, as members of a JSON object and as parameters of a query."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from minilambda.fields import MAX_COLLECTED, is_guest_path
from minilambda.notation import MAX_DURATION, MAX_SIZE
from minilambda.web.schema import TEXT, Schema, conform

SECONDS: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_DURATION}
SIZE: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 1, "maximum": MAX_SIZE},
        {"type": "string", "pattern": "^[1-9][0-9]{0,3}[KMG]$"},
    ],
    "description": "bytes, or text such as 64M",
}
LABEL: Schema = {"type": "string", "maxLength": 128, "pattern": "^[^\\u0000]*$"}
JOB_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}
DIGEST: Schema = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
NAME: Schema = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,63}$"}
REFERENCE: Schema = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,63}(@[A-Za-z0-9_-]{1,64})?$"}
FLAG: Schema = {"type": "boolean"}


class Option(NamedTuple):
    """One option."""

    schema: Schema
    says: str  # for people
    query: str = ""  # name of the parameter, where it is another than the option's
    uses: frozenset[str] = frozenset({"run", "deploy"})  # what takes it: "run", "call" and "deploy"


ALL = frozenset({"run", "call", "deploy"})
_NEW = frozenset({"run", "call"})

OPTIONS: dict[str, Option] = {
    "args": Option({"type": "array", "items": TEXT, "maxItems": 4096}, "arguments of the guest", "arg", ALL),
    "env": Option(
        {
            "type": "object",
            "additionalProperties": TEXT,
            "maxProperties": 4096,
            "propertyNames": {**TEXT, "minLength": 1},
        },
        "the guest's environment; in a query env=K=V",
        uses=ALL,
    ),
    "invoke": Option({**LABEL, "minLength": 1}, "exported function to call, with args as its parameters", uses=ALL),
    "timeout": Option(SECONDS, "wall time from the guest's start, seconds", uses=ALL),
    "queue_timeout": Option(SECONDS, "longest wait for a worker, seconds"),
    "memory": Option(SIZE, "all memories and tables of the guest together"),
    "output_limit": Option(SIZE, "stdout and stderr together"),
    "retries": Option({"type": "integer", "minimum": 0, "maximum": 100}, "runs again after a lost worker, at most"),
    "priority": Option({"type": "integer", "minimum": -100, "maximum": 100}, "higher goes first, within one group"),
    "group": Option(LABEL, "the broker is fair between groups; with tokens, it is the token's name", uses=ALL),
    "unknown_imports": Option({"enum": ["error", "trap"]}, "what imports do that are not offered"),
    "if_no_workers": Option({"enum": ["wait", "fail"]}, "what to do while no worker is connected"),
    "scratch": Option(SIZE, "a writable /tmp of so many bytes"),
    "collect": Option(
        {"type": "array", "items": {"type": "string", "pattern": "^/tmp(/.*)?$"}, "maxItems": MAX_COLLECTED},
        "files and folders below /tmp that come back with the result",
    ),
    "job_id": Option(JOB_ID, "the job's id; the same job under the same id runs once", uses=_NEW),
    "wait": Option(SECONDS, "give up, and cancel the job, after so long, seconds", uses=frozenset({"wait"})),
    "output": Option({"enum": ["json", "stdout"]}, "the whole result, or just stdout", uses=frozenset({"wait"})),
    "alias": Option(
        {"type": "string", "pattern": "^([A-Za-z][A-Za-z0-9_-]{0,63})?$"},
        "alias that is moved to the new version; empty: none",
        uses=frozenset({"deploy"}),
    ),
    "shared": Option(FLAG, "other clients of the broker may call it", uses=frozenset({"deploy"})),
}


def for_use(*uses: str) -> dict[str, Option]:
    """The options that one of these takes."""
    wanted = set(uses)
    return {name: option for name, option in OPTIONS.items() if option.uses & wanted}


def members(uses: Iterable[str]) -> dict[str, Schema]:
    """The schemas of their members in a JSON object."""
    return {name: {**option.schema, "description": option.says} for name, option in for_use(*uses).items()}


def parameters(known: Mapping[str, Schema], pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The values of a query's parameters, each at most once. Raises ``ValueError``."""
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name not in known:
            raise ValueError(f"{name[:64]!r} is not a parameter here.")
        if name in found:
            raise ValueError(f"{name!r} is given twice.")
        found[name] = conform(known[name], _value(known[name], text), repr(name))
    return found


def from_query(pairs: Iterable[tuple[str, str]], uses: Iterable[str]) -> dict[str, Any]:
    """The options in a query. Raises ``ValueError``."""
    known = {option.query or name: (name, option) for name, option in for_use(*uses).items()}
    found: dict[str, Any] = {}
    for key, text in pairs:
        if key not in known:
            raise ValueError(f"{key[:64]!r} is not a parameter here.")
        name, option = known[key]
        kind = option.schema.get("type")
        if kind == "array":
            found.setdefault(name, []).append(text)
        elif kind == "object":
            variable, equals, value = text.partition("=")
            if not equals:
                raise ValueError(f"{key}={text[:64]!r} is not K=V.")
            found.setdefault(name, {})[variable] = value
        elif name in found:
            raise ValueError(f"{key!r} is given twice.")
        else:
            found[name] = _value(option.schema, text)
    return checked(found, uses)


def checked(given: Mapping[str, Any], uses: Iterable[str]) -> dict[str, Any]:
    """The options, if each is what it may be. Raises ``ValueError``."""
    known, found = for_use(*uses), {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"{name[:64]!r} is not an option here.")
        found[name] = conform(known[name].schema, value, repr(name))
    for path in found.get("collect", ()):
        if not is_guest_path(path):
            raise ValueError(f"{path[:64]!r} is not an absolute path without '.' and '..'.")
    return found


def _value(schema: Schema, text: str) -> Any:
    """What a parameter's text is in JSON."""
    if schema.get("type") == "boolean" and text in ("true", "false", "1", "0"):
        return text in ("true", "1")
    numeric = "anyOf" in schema or schema.get("type") in ("integer", "number")
    if numeric and re.fullmatch(r"-?[0-9]{1,18}", text):
        return int(text)
    if schema.get("type") == "number" and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,40})?(e[+-]?[0-9]{1,3})?", text):
        return float(text)
    return text
