"""The table of all that the gateway can do."""

from __future__ import annotations

from minilambda.web import functions, pages, runs, shapes, stores
from minilambda.web.operations import KINDS, Answer, Operation, Parameter, query_parameters
from minilambda.web.options import FLAG, NAME, REFERENCE, members
from minilambda.web.schema import Schema
from minilambda.web.submission import json_schema

ANY = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The methods by which a function can be called."""

BYTES: Schema = {"type": "string", "format": "binary"}
MODULE: Schema = {**BYTES, "minLength": 8}
JSON, WASM, OCTETS = "application/json", "application/wasm", "application/octet-stream"
_EVENTS = "text/event-stream"
_BAD_GUEST = (422, 429, 501, 502, 504)


def _form(uses: tuple[str, ...]) -> Schema:
    """A form with a module and what else there may be."""
    options = {"type": "object", "properties": members(uses), "additionalProperties": False}
    more = {"stdin": BYTES, "function": REFERENCE} if "call" in uses else {}
    wasm = {**MODULE, "description": "a module, or the sha256:… of one that the broker has"}
    found = {
        "type": "object",
        "properties": {"wasm": wasm, **more, "options": options},
        "patternProperties": {"^file:/.": BYTES},
        "additionalProperties": False,
    }
    if not more:
        return {**found, "required": ["wasm"]}
    return {**found, "oneOf": [{"required": ["wasm"]}, {"required": ["function"]}]}


def _submission(*uses: str) -> dict[str, Schema]:
    return {WASM: MODULE, OCTETS: MODULE, JSON: json_schema(uses), "multipart/form-data": _form(uses)}


_JOB = Parameter("job", "path", KINDS["job"], "the job's id")
_NAME = Parameter("name", "path", KINDS["name"], "the function's name")
_ALIAS = Parameter("alias", "path", NAME, "the alias")
_VERSION = Parameter("version", "path", KINDS["version"], "a version's number, or an alias")
_PATH = Parameter("path", "path", {"type": "string", "minLength": 1}, "all the rest of the path, as PATH_INFO")
_OUTPUT = Parameter("output", "query", {"enum": ["json", "stdout"]}, "the whole result, or just stdout")
_WAIT = Parameter("wait", "query", {"type": "number", "minimum": 0, "maximum": 1e9}, "wait so long for it, seconds")
_RESULT = Answer("The job has ended; with output=stdout, just what it wrote.", JSON, shapes.ref("Result"), bytes=OCTETS)
_MOVED = Answer("The alias names the version.", JSON, shapes.ref("Deployed"))
_SAYS_FILES = "A form may have parts file:/PATH: files that the guest finds there."

_RUNS = (
    Operation(
        "POST", "/run", runs.run, "Run a module, or call a function, and wait for the result.", "run", "jobs",
        {200: _RESULT}, query_parameters(*runs.RUN), _submission(*runs.RUN), (404, 409, 413, 415, *_BAD_GUEST),
        f"The job is cancelled when the client hangs up. {_SAYS_FILES}", calls=True,
    ),
    Operation(
        "POST", "/jobs", runs.submit, "Hand over a job and come back for it.", "run", "jobs",
        {202: Answer("The broker has accepted the job.", JSON, shapes.ref("Accepted"), ("Location",))},
        query_parameters(*runs.SUBMIT), _submission(*runs.SUBMIT), (404, 409, 413, 415, 422, 429),
        f"An accepted job goes on whatever becomes of the client. {_SAYS_FILES}", calls=True,
    ),
    Operation(
        "GET", "/jobs", runs.listed, "The jobs, newest first.", "read", "jobs",
        {200: Answer("The jobs.", JSON, shapes.listing("jobs"))},
        (
            Parameter("state", "query", {"type": "string", "pattern": "^[a-z_]{0,64}$"}, "only these, or a code"),
            Parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 1000}, "rows, at most"),
        ),
    ),
    Operation(
        "GET", "/jobs/{job:ml_job}", runs.status, "Where a job is.", "read", "jobs",
        {200: Answer("The state.", JSON, shapes.ref("Status"))},
        (_JOB, Parameter("story", "query", FLAG, "tell what happened to it so far, too")), problems=(404, 410),
    ),
    Operation(
        "DELETE", "/jobs/{job:ml_job}", runs.cancel, "Cancel a job.", "run", "jobs",
        {200: Answer("The state: a job that has ended stays as it is.", JSON, shapes.ref("Status"))},
        (_JOB,), problems=(404, 410), calls=True,
    ),
    Operation(
        "GET", "/jobs/{job:ml_job}/result", runs.result, "The result of a job.", "read", "jobs",
        {200: _RESULT, 202: Answer("The job has not ended yet.", JSON, shapes.ref("Status"), ("Retry-After",))},
        (_JOB, _WAIT, _OUTPUT),
        problems=(404, 410),
    ),
    Operation(
        "GET", "/jobs/{job:ml_job}/output", runs.output, "What a job writes, as server-sent events.", "read", "jobs",
        {
            200: Answer("Events stdout and stderr with pieces, then one event end.", _EVENTS, shapes.EVENT),
            204: Answer("All was told before, says Last-Event-ID."),
        },
        (_JOB, Parameter("Last-Event-ID", "header", {"type": "string"}, "go on behind this event")),
        problems=(404, 410),
    ),
    Operation(
        "POST", "/jobs/{job:ml_job}/again", runs.again, "Run an ended job once more, as another one.", "run", "jobs",
        {202: Answer("The broker has accepted the new job.", JSON, shapes.ref("Accepted"), ("Location",))},
        (_JOB,), problems=(404, 409, 410, 429), calls=True,
    ),
)  # fmt: skip

_STORES = (
    Operation(
        "GET", "/modules", stores.modules, "The modules that the broker has.", "read", "modules",
        {200: Answer("The modules.", JSON, shapes.listing("modules"))},
    ),
    Operation(
        "POST", "/modules", stores.put, "Give the broker a module.", "run", "modules",
        {201: Answer("The broker has it.", JSON, shapes.ref("Module"), ("Location",))},
        body={WASM: MODULE, OCTETS: MODULE}, problems=(413, 422, 429), calls=True,
    ),
    Operation(
        "PUT", "/modules/{digest:ml_digest}", stores.put, "Give the broker a module by its digest.", "run", "modules",
        {201: Answer("The broker has it.", JSON, shapes.ref("Module"), ("Location",))},
        (Parameter("digest", "path", KINDS["digest"], "sha256 of the body"),),
        {WASM: MODULE, OCTETS: MODULE}, (413, 422, 429), calls=True,
    ),
    Operation(
        "GET", "/workers", stores.workers, "The workers.", "read", "cluster",
        {200: Answer("The workers, and how many jobs wait.", JSON, shapes.listing("workers"))},
    ),
)  # fmt: skip

_FUNCTIONS = (
    Operation(
        "GET", "/functions", functions.listed, "The functions.", "read", "functions",
        {200: Answer("The functions.", JSON, shapes.listing("functions"))},
    ),
    Operation(
        "GET", "/functions/{name:ml_name}", functions.versions, "One function with its versions.", "read", "functions",
        {200: Answer("The versions.", JSON, shapes.listing("versions"))}, (_NAME,), problems=(404,),
    ),
    Operation(
        "PUT", "/functions/{name:ml_name}", functions.deploy, "Deploy a module as a function.", "deploy", "functions",
        {200: Answer("There is such a version now.", JSON, shapes.ref("Deployed"), ("Location",))},
        (_NAME, *query_parameters("deploy")), _submission("deploy"), (404, 413, 415, 422, 429),
        f"The alias `live` is moved to the new version, unless another is named. {_SAYS_FILES}", calls=True,
    ),
    Operation(
        "DELETE", "/functions/{name:ml_name}", functions.undeploy, "Forget a function, or one version.", "deploy",
        "functions", {204: Answer("It is forgotten.")},
        (_NAME, Parameter("version", "query", {"type": "integer", "minimum": 0, "maximum": 2**53}, "0: all")),
        problems=(404, 409), calls=True,
    ),
    Operation(
        "POST", "/functions/{name:ml_name}/aliases/{alias:ml_alias}", functions.move,
        "Move an alias to a version, or back to the one before.", "deploy", "functions", {200: _MOVED}, (_NAME, _ALIAS),
        {JSON: functions.ALIAS_BODY}, (404, 409, 413), body_needed=False, calls=True,
    ),
    Operation(
        "DELETE", "/functions/{name:ml_name}/aliases/{alias:ml_alias}", functions.drop, "Drop an alias.", "deploy",
        "functions", {204: Answer("There is no such alias any more.")}, (_NAME, _ALIAS),
        problems=(404, 409), calls=True,
    ),
)  # fmt: skip


def _calls(path: str, methods: tuple[str, ...], parameters: tuple[Parameter, ...]) -> tuple[Operation, ...]:
    """The operations that call a function."""
    more = "The request goes to the guest as CGI has it; what it writes is the reply. The status may be any."
    answer = Answer("What the function wrote. Its own headers may set another status.")
    return tuple(
        Operation(
            method, path, functions.call, "Call a function.", "call", "calls", {200: answer}, parameters,
            {"*/*": {}} if method in ("POST", "PUT", "PATCH") else {}, (404, 413, *_BAD_GUEST), more,
            body_needed=False, calls=True,
        )
        for method in methods
    )  # fmt: skip


_CALLS = (
    *_calls("/functions/{name:ml_name}", ("POST", "PATCH"), (_NAME,)),
    *_calls("/functions/{name:ml_name}@{version:ml_version}", ANY, (_NAME, _VERSION)),
    *_calls("/functions/{name:ml_name}@{version:ml_version}/{path:path}", ANY, (_NAME, _VERSION, _PATH)),
    *_calls("/functions/{name:ml_name}/{path:path}", ANY, (_NAME, _PATH)),
)

_PAGES = (
    Operation(
        "GET", "/api/state", pages.state, "How the cluster does, for the live page.", "read", "cluster",
        {200: Answer("The state.", JSON, shapes.ref("State"))},
    ),
    Operation(
        "GET", "/api/events", pages.events, "The same as server-sent events, each second.", "read", "cluster",
        {200: Answer("Events state.", _EVENTS, shapes.EVENT)},
    ),
    Operation(
        "GET", "/healthz", pages.health, "The gateway runs.", None, "health",
        {200: Answer("It does.", JSON, shapes.ref("Ok"))}, always=True,
    ),
    Operation(
        "GET", "/readyz", pages.ready, "The broker answers.", None, "health",
        {200: Answer("It does.", JSON, shapes.ref("Ok"))}, always=True,
    ),
    Operation(
        "GET", "/openapi.json", pages.document, "This document.", None, "pages",
        {200: Answer("The document.", JSON, {"type": "object"})},
    ),
    Operation(
        "GET", "/docs", pages.docs, "This document as a page.", None, "pages",
        {200: Answer("The page.", "text/html", {"type": "string"})},
    ),
    Operation(
        "GET", "/", pages.index, "The live page.", None, "pages",
        {200: Answer("The page.", "text/html", {"type": "string"})},
    ),
    Operation(
        "GET", "/page/{file:ml_file}", pages.file, "A file of the pages.", None, "pages",
        {200: Answer("The file.", "*/*", {})}, (Parameter("file", "path", KINDS["file"], ""),), problems=(404,),
    ),
)  # fmt: skip

OPERATIONS: tuple[Operation, ...] = (*_RUNS, *_STORES, *_FUNCTIONS, *_CALLS, *_PAGES)
"""All of them; of two paths that fit a request, the first counts."""


def by_path() -> dict[str, dict[str, Operation]]:
    """The operations of each path by their methods."""
    found: dict[str, dict[str, Operation]] = {}
    for operation in OPERATIONS:
        found.setdefault(operation.path, {})[operation.method] = operation
    return found
