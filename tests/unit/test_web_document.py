"""The OpenAPI document, the schemas that are checked, and the statuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from minilambda.errors import BY_CODE
from minilambda.web.openapi import document
from minilambda.web.options import OPTIONS, checked, from_query
from minilambda.web.problems import SENTENCES, STATUS, problem_of
from minilambda.web.routes import OPERATIONS
from minilambda.web.schema import conform, parse_json
from minilambda.web.tokens import SCOPES


def refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from refs(each)


def test_the_document_has_each_operation_once_and_says_what_its_paths_have() -> None:
    found = document()
    named = [each["operationId"] for path in found["paths"].values() for each in path.values()]
    assert len(named) == len(set(named)) == len(OPERATIONS)
    for path, operations in found["paths"].items():
        for each in operations.values():
            told = {parameter["name"] for parameter in each["parameters"] if parameter["in"] == "path"}
            assert told == set(re.findall(r"\{(\w+)\}", path)), path


def test_each_reference_of_the_document_leads_somewhere() -> None:
    found = json.loads(json.dumps(document()))
    for ref in refs(found):
        assert ref.removeprefix("#/components/schemas/") in found["components"]["schemas"]


def test_each_wire_code_has_a_status_and_each_code_of_the_gateway_a_sentence() -> None:
    assert BY_CODE.keys() <= STATUS.keys()
    assert STATUS.keys() - BY_CODE.keys() == SENTENCES.keys()


def test_each_error_of_the_client_becomes_a_problem_with_its_code() -> None:
    for code, cls in BY_CODE.items():
        problem = problem_of(cls("why"))
        assert problem is not None
        assert (problem.code, problem.status, problem.detail) == (code, STATUS[code], "why")
    busy = problem_of(BY_CODE["busy"]("full", 0.5))
    assert busy is not None
    assert busy.headers["Retry-After"] == "1"


def test_only_what_everybody_may_know_needs_no_token() -> None:
    free = {operation.path for operation in OPERATIONS if operation.scope is None}
    assert free == {"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/page/{file:ml_file}"}
    assert {operation.scope for operation in OPERATIONS} - {None} == set(SCOPES)


def test_what_changes_something_is_kept_from_pages_of_other_sites() -> None:
    for operation in OPERATIONS:
        if operation.method not in ("GET", "HEAD", "OPTIONS") or operation.scope == "call":
            assert operation.calls, operation


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("args", ["a", "ü"]),
        ("env", {"A": ""}),
        ("timeout", 0.5),
        ("memory", "64M"),
        ("memory", 65536),
        ("retries", 0),
        ("priority", -100),
        ("unknown_imports", "trap"),
        ("job_id", "a.b-c_d"),
        ("collect", ["/tmp/a"]),
        ("shared", True),
        ("alias", ""),
    ],
)
def test_an_option_that_fits_is_taken_as_it_is(name: str, value: Any) -> None:
    assert checked({name: value}, OPTIONS[name].uses) == {name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("args", "a"),
        ("args", [1]),
        ("args", ["a\0"]),
        ("args", ["\ud800"]),
        ("env", {"": "x"}),
        ("env", {"A": 1}),
        ("timeout", 0),
        ("timeout", True),
        ("timeout", 1e300),
        ("memory", "64 MB"),
        ("memory", 0),
        ("retries", 101),
        ("retries", 1.5),
        ("unknown_imports", "ignore"),
        ("job_id", "../x"),
        ("job_id", "a\n"),
        ("collect", ["/tmp/../etc"]),
        ("collect", ["/etc"]),
        ("shared", "yes"),
        ("nonsense", 1),
        ("files", {"/a": "/etc/passwd"}),
        ("dirs", {"/a": "/etc"}),
    ],
)
def test_an_option_that_does_not_fit_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        checked({name: value}, ("run", "call", "deploy"))


def test_a_query_says_the_same_as_an_object() -> None:
    pairs = [("arg", "a"), ("arg", "b"), ("env", "K=V=W"), ("timeout", "2.5"), ("memory", "64M"), ("retries", "0")]
    found = from_query(pairs, ("run",))
    assert found == {
        "args": ["a", "b"],
        "env": {"K": "V=W"},
        "timeout": 2.5,
        "memory": "64M",
        "retries": 0,
    }


@pytest.mark.parametrize(
    "pair",
    [
        ("timeout", "nan"),
        ("timeout", "1_0"),
        ("timeout", "1e999"),
        ("timeout", "-1e5"),
        ("timeout", "٣"),
        ("env", "K"),
        ("retries", "1.5"),
        ("x", "y"),
    ],
)
def test_a_query_that_is_wrong_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_query([pair], ("run",))
    with pytest.raises(ValueError, match="twice"):
        from_query([("timeout", "1"), ("timeout", "2")], ("run",))


@pytest.mark.parametrize("text", [b"{", b"[" * 100_000, b'{"a": NaN}', b"\xff", b"1" * 5000, b""])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_json(text)


def test_a_member_that_nobody_knows_and_one_that_is_missing_are_named() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert conform(schema, {"a": 2.0}, "it") == {"a": 2}
    with pytest.raises(ValueError, match="'b'"):
        conform(schema, {"a": 1, "b": 1}, "it")
    with pytest.raises(ValueError, match="'a'"):
        conform(schema, {}, "it")
