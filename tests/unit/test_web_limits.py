"""Visitors who are slow, many, or gone: none of them holds the gateway up. No broker is there."""

from __future__ import annotations

import dataclasses
import json
import re
import select
import socket
from collections.abc import Iterator

import httpx
import pytest

from minilambda.web.settings import WebSettings
from tests.cluster import wait_for
from tests.web_server import serving

QUICK = WebSettings(
    header_timeout=0.3, body_grace=0.3, stall_timeout=0.3, connect=0.05, quick=0.2, poll=0.05, beat=0.05, keep_alive=1
)


@pytest.fixture(scope="module")
def web() -> Iterator[httpx.Client]:
    with serving(QUICK) as client:
        yield client


def connect(web: httpx.Client, receive_buffer: int = 0) -> socket.socket:
    made = socket.socket()
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(20)
    made.connect(("127.0.0.1", web.base_url.port))
    return made


def rest(visitor: socket.socket) -> bytes:
    """All that comes until the gateway closes the connection."""
    found = b""
    try:
        while piece := visitor.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHost: loc"])
def test_a_visitor_whose_headers_do_not_come_is_cut_off(web: httpx.Client, said: bytes) -> None:
    with connect(web) as visitor:
        visitor.sendall(said)
        assert rest(visitor) == b""


def test_a_visitor_who_drips_headers_is_cut_off(web: httpx.Client) -> None:
    with connect(web) as visitor:
        visitor.sendall(b"GET /healthz HTTP/1.1\r\n")
        visitor.settimeout(0.01)

        def cut() -> bool:
            try:
                visitor.sendall(b"A: b\r\n")
                return visitor.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_for(cut, "the connection is closed")


def test_headers_above_the_limit_are_refused(web: httpx.Client) -> None:
    with connect(web) as visitor:
        visitor.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 40_000)
        assert rest(visitor).startswith(b"HTTP/1.1 400 ")


def test_headers_above_the_limit_are_refused_though_they_come_all_at_once(web: httpx.Client) -> None:
    assert web.get("/healthz", headers={"A": "a" * 30_000}).status_code == 200
    assert web.get("/healthz", headers={"A": "a" * 40_000}).json()["code"] == "bad_request"
    assert web.get("/healthz?" + "a" * 40_000).json()["code"] == "bad_request"


def test_a_body_that_goes_wrong_after_the_reply_is_no_trouble(
    web: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(web) as visitor:
        visitor.sendall(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        assert visitor.recv(12) == b"HTTP/1.1 405"
        visitor.sendall(b"no chunk\r\n")
        assert b"HTTP/1.1" not in rest(visitor)
    assert not caplog.records


def test_what_visitors_get_wrong_is_not_logged(web: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    media = {"Content-Type": "multipart/form-data; boundary=x"}
    assert web.post("/run", content=b"no form", headers=media).status_code == 400
    assert not [each for each in caplog.records if each.name != "httpx"]


def test_what_is_no_http_is_refused(web: httpx.Client) -> None:
    with connect(web) as visitor:
        visitor.sendall(b"\x16\x03\x01 this is something else\r\n\r\n")
        assert rest(visitor).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_does_not_come_is_a_slow_request(web: httpx.Client) -> None:
    with connect(web) as visitor:
        visitor.sendall(b"POST /run HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx")
        assert rest(visitor).startswith(b"HTTP/1.1 408 ")


def test_requests_that_come_together_are_answered_in_their_order(web: httpx.Client) -> None:
    with connect(web) as visitor:
        for path in ("healthz", "nowhere", "healthz"):
            visitor.sendall(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        found = rest(visitor)
    assert re.findall(rb"^HTTP/1.1 (\d+)", found, re.M) == [b"200", b"404", b"200"]


def test_a_visitor_who_takes_nothing_is_cut_off(web: httpx.Client) -> None:
    with connect(web, receive_buffer=4096) as visitor:
        # given more replies than all buffers between the two can hold
        visitor.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
        # then
        poller = select.poll()
        poller.register(visitor, 0)  # trouble is told unasked
        assert poller.poll(20_000)
    assert web.get("/healthz").status_code == 200


def test_connections_are_bounded() -> None:
    bounded = dataclasses.replace(QUICK, max_connections=2, header_timeout=20)
    with serving(bounded) as web, connect(web) as first, connect(web), connect(web) as third:
        assert rest(third) == b""
        first.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert rest(first).startswith(b"HTTP/1.1 200 ")


def test_streams_and_requests_are_bounded_and_a_visitor_who_hangs_up_makes_room() -> None:
    with serving(dataclasses.replace(QUICK, max_streams=1, max_requests=1)) as web:
        # given
        with web.stream("GET", "/api/events") as events:
            lines = events.iter_lines()
            assert next(lines) == ": hello"
            # when, then
            response = web.get("/openapi.json")
            assert (response.status_code, response.json()["code"]) == (503, "overloaded")
            assert response.headers["retry-after"] == "1"
            assert web.get("/healthz").status_code == 200
        wait_for(lambda: web.get("/openapi.json").status_code == 200, "there is room again")
    with (
        serving(dataclasses.replace(QUICK, max_streams=1)) as web,
        web.stream("GET", "/api/events"),
        web.stream("GET", "/api/events") as more,
    ):
        assert (more.status_code, json.loads(more.read())["code"]) == (503, "overloaded")


def test_a_stream_tells_the_state_again_and_again_and_ends_when_the_gateway_does() -> None:
    with serving(QUICK) as web, web.stream("GET", "/api/events") as events:
        assert events.headers["content-type"].startswith("text/event-stream")
        states = (json.loads(line[6:]) for line in events.iter_lines() if line.startswith("data: "))
        first, second = next(states), next(states)
        assert first["problem"]["code"] == "unreachable"
        assert second["at"] > first["at"]
