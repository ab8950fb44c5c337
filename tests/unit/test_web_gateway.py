"""What the gateway does with a request before it needs a broker. None is there."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from minilambda.web.multipart import Part, read_parts
from minilambda.web.problems import Problem
from minilambda.web.settings import WebSettings
from minilambda.web.tokens import SCOPES, TokenFile, Tokens, change_tokens
from tests.web_server import serving

SMALL = WebSettings(
    max_body_bytes=4096, max_json_bytes=2048, bodies_bytes=8192, max_parts=4, connect=0.05, quick=0.2, max_requests=2
)
WASM = {"Content-Type": "application/wasm"}


@pytest.fixture(scope="module")
def web() -> Iterator[httpx.Client]:
    with serving(SMALL) as client:
        yield client


def code(response: Any) -> tuple[int, str]:
    """The status and the wire code of a problem."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    found = response.json()
    assert found["status"] == response.status_code
    assert found["type"] == f"urn:minilambda:{found['code']}"
    return response.status_code, found["code"]


def test_a_broker_that_is_away_is_told_with_when_to_come_again(web: httpx.Client) -> None:
    response = web.post("/run", content=b"wasm", headers=WASM)
    assert code(response) == (503, "unreachable")
    assert int(response.headers["retry-after"]) >= 1
    assert code(web.get("/readyz")) == (503, "unreachable")
    assert web.get("/healthz").json() == {"status": "ok"}
    state = web.get("/api/state").json()
    assert (state["up"], state["problem"]["code"], state["seen"]) == (False, "unreachable", None)


@pytest.mark.parametrize("path", ["/run", "/jobs", "/modules", "/functions/f"])
def test_a_body_above_the_limit_is_refused_whether_its_length_was_told_or_not(web: httpx.Client, path: str) -> None:
    assert code(web.post(path, content=b"x" * 4097, headers=WASM)) == (413, "body_too_large")
    pieces = iter([b"x" * 4000, b"x" * 97])
    assert code(web.post(path, content=pieces, headers=WASM)) == (413, "body_too_large")


def test_a_body_as_large_as_the_limit_is_taken(web: httpx.Client) -> None:
    assert code(web.post("/run", content=b"x" * 4096, headers=WASM)) == (503, "unreachable")


def test_all_bodies_together_are_bounded_and_given_back() -> None:
    with serving(WebSettings(connect=0.05, bodies_bytes=1000)) as web:
        assert code(web.post("/run", content=b"x" * 1001, headers=WASM)) == (503, "overloaded")
        for _ in range(3):
            assert code(web.post("/run", content=b"x" * 1000, headers=WASM)) == (503, "unreachable")


WASM_TEXT = base64.b64encode(b"\0asm\1\0\0\0").decode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "name a module"),
        ({"wasm": "/etc/passwd"}, "wasm"),
        ({"wasm": "sha256:" + "0" * 63}, "wasm"),
        ({"wasm": WASM_TEXT, "function": "f"}, "not both"),
        ({"wasm": WASM_TEXT, "stdin": "a", "stdin_base64": "YQ=="}, "exclude"),
        ({"wasm": WASM_TEXT, "stdin_base64": "a"}, "base64"),
        ({"wasm": WASM_TEXT, "files": {"/a": "/etc/passwd"}}, "/a"),
        ({"wasm": WASM_TEXT, "files": {"a": "YQ=="}}, "files"),
        ({"wasm": WASM_TEXT, "files": {"/a/../b": "YQ=="}}, "absolute path"),
        ({"wasm": WASM_TEXT, "dirs": {"/a": "/etc"}}, "dirs"),
        ({"wasm": WASM_TEXT, "interactive": True}, "interactive"),
        ({"wasm": WASM_TEXT, "timeout": "soon"}, "timeout"),
        ({"wasm": WASM_TEXT, "alias": "live"}, "alias"),
        ({"function": "f", "memory": 1}, "memory"),
        ({"function": "f", "files": {"/a": "YQ=="}}, "files"),
        ({"function": "../f"}, "function"),
        ([], "object"),
    ],
)
def test_a_json_body_that_is_wrong_is_refused_and_says_why(web: httpx.Client, body: Any, said: str) -> None:
    response = web.post("/run", json=body)
    assert code(response) == (400, "bad_request")
    assert said in response.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 2000, b'{"wasm": NaN}', b"\xff", b'{"wasm": "sha256:%s", "args": ["\\ud800"]}' % (b"0" * 64)],
)
def test_what_is_no_json_is_refused(web: httpx.Client, body: bytes) -> None:
    response = web.post("/run", content=body, headers={"Content-Type": "application/json"})
    assert code(response) == (400, "bad_request")


def test_json_has_a_limit_of_its_own(web: httpx.Client) -> None:
    response = web.post("/run", content=b" " * 2049, headers={"Content-Type": "application/json"})
    assert code(response) == (413, "body_too_large")


def test_a_path_of_the_gateways_machine_is_never_taken_for_a_module(web: httpx.Client, tmp_path: Path) -> None:
    # given
    secret = tmp_path / "secret.wasm"
    secret.write_bytes(b"\0asm\1\0\0\0")
    # when, then
    assert code(web.post("/run", json={"wasm": str(secret)})) == (400, "bad_request")
    parts = {"wasm": (None, str(secret).encode()), "options": (None, b'{"files": {"/a": "/etc/passwd"}}')}
    assert code(web.post("/run", files=parts)) == (400, "bad_request")
    assert code(web.put("/functions/f", json={"wasm": str(secret)})) == (400, "bad_request")


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"wasm": b"x", "stdin": b"y", "options": b'{"args": ["a"]}', "file:/data/x": b""}, (503, "unreachable")),
        ({"wasm": b"", "stdin": b"y"}, (422, "invalid_module")),
        ({"stdin": b"y"}, (400, "bad_request")),
        ({"wasm": b"x", "nonsense": b"y"}, (400, "bad_request")),
        ({"wasm": b"x", "options": b"[]"}, (400, "bad_request")),
        ({"wasm": b"x", "file:data": b"y"}, (400, "bad_request")),
        ({"wasm": b"x", "a": b"", "b": b"", "c": b"", "d": b""}, (413, "body_too_large")),
    ],
)
def test_a_form_is_taken_part_by_part(web: httpx.Client, parts: dict[str, bytes], expected: tuple[int, str]) -> None:
    assert code(web.post("/run", files={name: (None, data) for name, data in parts.items()})) == expected


@pytest.mark.parametrize(
    ("media", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=" + "x" * 71, b""),
        ("multipart/form-data; boundary=x", b"nothing of the kind"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="wasm"\r\n\r\nab'),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\nab\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 100 + b"\r\nab\r\n--x--\r\n"),
    ],
)
def test_a_form_that_is_broken_is_refused(web: httpx.Client, media: str, body: bytes) -> None:
    assert code(web.post("/run", content=body, headers={"Content-Type": media})) == (400, "bad_request")


def test_the_headers_of_a_part_are_bounded_all_together() -> None:
    async def form(header: bytes) -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="wasm"\r\n' + header * 3 + b"\r\nab\r\n--x--\r\n"

    async def read(size: int) -> list[Part]:
        return await read_parts("multipart/form-data; boundary=x", form(b"A: " + b"a" * size + b"\r\n"), 1)

    assert asyncio.run(read(2000)) == [Part("wasm", b"ab")]
    with pytest.raises(Problem, match="bad_request"):
        asyncio.run(read(4000))


def test_a_media_type_that_nobody_knows_is_refused(web: httpx.Client) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert code(web.post("/run", content=b"a=b", headers=form)) == (415, "unsupported_media_type")


def test_a_module_under_another_digest_is_refused(web: httpx.Client) -> None:
    response = web.put(f"/modules/sha256:{'0' * 64}", content=b"x", headers=WASM)
    assert code(response) == (422, "wrong_digest")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/nowhere", (404, "not_found")),
        ("GET", "/jobs/", (404, "not_found")),
        ("GET", "/jobs/-a", (404, "not_found")),
        ("GET", "/jobs/a%2Fb", (404, "not_found")),
        ("GET", "/page/app.py", (404, "not_found")),
        ("GET", "/page/..%2F__init__.py", (404, "not_found")),
        ("PUT", "/functions/1a", (404, "not_found")),
        ("POST", "/functions/f/aliases/1", (404, "not_found")),
        ("DELETE", "/functions/f/aliases/1", (404, "not_found")),
        ("PUT", "/modules/sha256:00", (404, "not_found")),
        ("PUT", "/run", (405, "method_not_allowed")),
        ("TRACE", "/functions/f/x", (405, "method_not_allowed")),
        ("GET", "/jobs?limit=0", (400, "bad_request")),
        ("GET", "/jobs?limit=1001", (400, "bad_request")),
        ("GET", "/jobs/a/result?wait=-1", (400, "bad_request")),
        ("GET", "/jobs/a/result?wait=nan", (400, "bad_request")),
        ("POST", "/run?timeout=soon", (400, "bad_request")),
        ("POST", "/run?nonsense=1", (400, "bad_request")),
        ("DELETE", "/functions/f?version=x", (400, "bad_request")),
    ],
)
def test_a_wrong_request_gets_the_status_by_convention(
    web: httpx.Client, method: str, path: str, expected: tuple[int, str]
) -> None:
    response = web.request(method, path)
    assert code(response) == expected
    if expected[0] == 405:
        assert "POST" in response.headers["allow"]


def test_the_pages_may_run_their_own_scripts_only(web: httpx.Client) -> None:
    for path, media in (("/", "text/html"), ("/docs", "text/html"), ("/page/docs.js", "text/javascript")):
        response = web.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(media)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert not [word for word in ("<script>", "style=", "onclick=", "//cdn") if word in response.text]
        again = web.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert web.head("/").status_code == 200


def test_each_reply_says_that_it_is_no_page(web: httpx.Client) -> None:
    for response in (web.get("/healthz"), web.get("/nowhere"), web.get("/api/state"), web.put("/run")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in response.headers["content-security-policy"]
        assert not [name for name in response.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/healthz", "/run", "/functions/f@live/x"])
def test_a_name_that_is_not_ours_is_refused(web: httpx.Client, path: str) -> None:
    assert code(web.get(path, headers={"Host": "evil.example"}))[0] in (421, 405)
    assert code(web.post("/run", headers={"Host": "evil.example"})) == (421, "wrong_host")


def test_a_page_of_another_site_can_not_use_a_gateway_without_tokens(web: httpx.Client) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        response = web.post("/run", content=b"x", headers={**WASM, **headers})
        assert code(response) == (403, "foreign_page")
    assert code(web.get("/functions/f@live", headers={"Sec-Fetch-Site": "cross-site"})) == (403, "foreign_page")


def test_a_token_lets_in_for_what_it_is_good_for(tmp_path: Path) -> None:
    # given
    file, secrets = tmp_path / "tokens", {}
    tokens, secrets["all"] = Tokens().with_token("all", SCOPES)
    tokens, secrets["call"] = tokens.with_token("caller", ["call"])
    change_tokens(file, lambda _: tokens)

    def bearer(name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {secrets[name]}"}

    with serving(SMALL, tokens=TokenFile(file)) as web:
        # when, then: without one, only what everybody may know
        assert [web.get(path).status_code for path in ("/", "/docs", "/openapi.json", "/healthz")] == [200] * 4
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {secrets['all']}"}):
            response = web.get("/api/state", headers=headers)
            assert code(response) == (401, "unauthorized")
            assert response.headers["www-authenticate"].startswith("Bearer realm=")
        assert code(web.get(f"/jobs?token={secrets['all']}")) == (401, "unauthorized")
        # and: the name by which a proxy calls it does not matter
        good = {**bearer("all"), "Host": "api.example"}
        assert code(web.post("/run", content=b"x", headers={**WASM, **good})) == (503, "unreachable")
        assert web.get("/api/state", headers=good).status_code == 200
        # and: one that is good for calls only
        assert code(web.post("/functions/f", headers=bearer("call")))[0] == 503
        for method, path in (("POST", "/run"), ("PUT", "/functions/f"), ("GET", "/jobs"), ("GET", "/api/events")):
            assert code(web.request(method, path, headers=bearer("call"))) == (403, "forbidden")
