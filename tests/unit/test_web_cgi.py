"""A request as CGI variables, and standard output as a reply."""

from __future__ import annotations

import pytest

from minilambda.web.cgi import MAX_HEAD, Called, Reply, reply, variables
from minilambda.web.problems import Problem


def called(*headers: tuple[str, str], path: str = "", query: str = "", size: int = 0, user: str = "") -> Called:
    return Called(
        "POST", "/functions/echo", path, query, headers, size, ("127.0.0.1", 8000), "192.0.2.1", "HTTP/1.1", user
    )


def test_a_request_becomes_the_variables_of_cgi() -> None:
    # when
    env = variables(called(("content-type", "text/csv"), ("x-one", "1"), path="/a b", query="q=%41", size=7, user="al"))
    # then
    expected = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/functions/echo",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "q=%41",
        "CONTENT_TYPE": "text/csv",
        "CONTENT_LENGTH": "7",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_USER": "al",
        "AUTH_TYPE": "Bearer",
        "HTTP_X_ONE": "1",
    }
    assert expected.items() <= env.items()
    assert not [name for name in env if name.startswith("HTTP_CONTENT")]


@pytest.mark.parametrize("name", ["authorization", "proxy-authorization", "cookie", "proxy"])
def test_a_guest_gets_no_secret_and_no_proxy(name: str) -> None:
    env = variables(called((name, "secret")))
    assert "secret" not in env.values()
    assert "HTTP_PROXY" not in env


def test_a_header_that_would_pass_for_another_is_left_out() -> None:
    assert variables(called(("x_one", "false"), ("x-one", "true")))["HTTP_X_ONE"] == "true"
    assert "HTTP_X_ONE" not in variables(called(("x_one", "false")))


def test_a_header_that_comes_twice_is_one_list() -> None:
    assert variables(called(("accept", "a"), ("accept", "b")))["HTTP_ACCEPT"] == "a, b"


TEXT = ("content-type", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        (b"", Reply(200, [], b"")),
        (b"hello\n", Reply(200, [TEXT], b"hello\n")),
        (b"\xff\xfe", Reply(200, [("content-type", "application/octet-stream")], b"\xff\xfe")),
        (b"Content-Type: text/html\n\n<p>", Reply(200, [("content-type", "text/html")], b"<p>")),
        (b"status:404 Not here\r\nX-A: b\r\n\r\nno", Reply(404, [("x-a", "b"), TEXT], b"no")),
        (b"Location: /x\n\n", Reply(302, [("location", "/x")], b"")),
        (b"Status: 201\nLocation: /x\n\n", Reply(201, [("location", "/x")], b"")),
        (b"X-A: b\n\nStatus: 404\n\n", Reply(200, [TEXT], b"X-A: b\n\nStatus: 404\n\n")),
        (b"Content-Type: text/html", Reply(200, [TEXT], b"Content-Type: text/html")),
        (b"Status: 404\nno colon\n\nx", Reply(200, [TEXT], b"Status: 404\nno colon\n\nx")),
        (b"Status: 200\nX: a\x00b\n\nx", Reply(200, [TEXT], b"Status: 200\nX: a\x00b\n\nx")),
    ],
)
def test_output_is_the_body_unless_it_begins_with_a_header(stdout: bytes, expected: Reply) -> None:
    assert reply(stdout) == expected


def test_headers_without_end_are_body() -> None:
    stdout = b"Status: 404\nX: " + b"a" * MAX_HEAD + b"\n\nbody"
    assert reply(stdout).status == 200
    assert reply(stdout).body == stdout


@pytest.mark.parametrize(
    "header",
    [
        "Set-Cookie: a=b",
        "Content-Length: 99",
        "Transfer-Encoding: chunked",
        "Connection: upgrade",
        "Content-Security-Policy: default-src *",
        "Access-Control-Allow-Origin: *",
        "Strict-Transport-Security: max-age=1",
        "X-Accel-Redirect: /secret",
        "X-Sendfile: /etc/passwd",
    ],
)
def test_a_guest_can_not_set_what_is_the_gateways(header: str) -> None:
    assert reply(f"Status: 200\n{header}\n\n".encode()).headers == []


@pytest.mark.parametrize("status", ["100", "600", "abc", "2000", "-1", ""])
def test_a_status_that_is_none_is_a_bad_reply(status: str) -> None:
    with pytest.raises(Problem) as caught:
        reply(f"Status: {status}\n\n".encode())
    assert (caught.value.code, caught.value.status) == ("bad_reply", 500)
