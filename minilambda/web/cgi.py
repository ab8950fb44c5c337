"""How a function meets HTTP: the request as variables and standard input, the reply as standard output.

Pure. The variables are those of CGI (RFC 3875). Standard output is the body, unless it begins with a header: where
its first line begins with ``Status:``, ``Content-Type:`` or ``Location:``, lines of headers go on to an empty line
within the first 16 KiB, and what follows is the body. Anything else is all body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from minilambda._version import __version__
from minilambda.web.problems import Problem

MAX_HEAD = 16 * 1024
"""The headers of a reply have at most so many bytes, the empty line included."""

KEPT_BACK = frozenset({"authorization", "proxy-authorization", "cookie", "proxy", "content-type", "content-length"})
"""Request headers that no guest gets as HTTP_…: secrets, one that would set a proxy, and those that have a name."""

_OURS = frozenset(
    "connection keep-alive proxy-authenticate proxy-connection te trailer transfer-encoding upgrade content-length "
    "date server set-cookie content-security-policy x-content-type-options strict-transport-security "
    "clear-site-data service-worker-allowed www-authenticate alt-svc nel report-to http2-settings "
    "x-sendfile x-sendfile2 x-litespeed-location x-reproxy-url x-reproxy-file".split()
)
"""Reply headers that are not a guest's to set: they are dropped. Some would make a proxy send a file of its own."""

_OUR_KINDS = ("access-control-", "cross-origin-", "proxy-", "sec-", "x-accel-", "x-lighttpd-")
"""What the names of others begin with."""

_BEGINS = re.compile(rb"(?i)(?:status|content-type|location)[ \t]*:")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_END = re.compile(rb"\r?\n\r?\n")


class Called(NamedTuple):
    """What an HTTP request says to a function."""

    method: str
    script: str  # the path up to the function
    path: str  # the path behind it, "" or from a slash on
    query: str
    headers: Iterable[tuple[str, str]]
    size: int  # of the body, bytes
    server: tuple[str, int]
    visitor: str  # address of the other side
    protocol: str  # such as "HTTP/1.1"
    user: str  # name of the token; "" where there are none
    scheme: str = "http"


class Reply(NamedTuple):
    """What a function says to HTTP."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def variables(called: Called) -> dict[str, str]:
    """The environment of the call. Headers with other signs than letters, digits and dashes are not in it."""
    env = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REQUEST_METHOD": called.method,
        "SCRIPT_NAME": called.script,
        "PATH_INFO": called.path,
        "QUERY_STRING": called.query,
        "SERVER_NAME": called.server[0],
        "SERVER_PORT": str(called.server[1]),
        "SERVER_PROTOCOL": called.protocol,
        "SERVER_SOFTWARE": f"minilambda/{__version__}",
        "REMOTE_ADDR": called.visitor,
        "REQUEST_SCHEME": called.scheme,
        "CONTENT_LENGTH": str(called.size) if called.size else "",
        "CONTENT_TYPE": "",
    }
    if called.user:
        env.update(AUTH_TYPE="Bearer", REMOTE_USER=called.user)
    for name, value in called.headers:
        if name == "content-type":
            env["CONTENT_TYPE"] = value
        elif name not in KEPT_BACK and re.fullmatch("[a-z0-9-]+", name):
            key = "HTTP_" + name.replace("-", "_").upper()
            env[key] = f"{env[key]}, {value}" if key in env else value
    return {name: value.replace("\0", "") for name, value in env.items()}


def reply(stdout: bytes) -> Reply:
    """The reply that standard output is. Raises ``Problem`` for headers that can't be sent."""
    head, body = split_head(stdout)
    status, headers, location = 0, [], False
    for name, value in head:
        lower = name.lower()
        if lower == "status":
            match = re.fullmatch(r"([2-5][0-9][0-9])(?: .*)?", value)
            if match is None:
                raise Problem("bad_reply", f"The function's Status is {value[:64]!r}, not a number from 200 to 599.")
            status = int(match[1])
        elif lower not in _OURS and not lower.startswith(_OUR_KINDS):
            headers.append((lower, value))
            location = location or lower == "location"
    if not any(name == "content-type" for name, _ in headers) and body:
        headers.append(("content-type", guess(body)))
    return Reply(status or (302 if location else 200), headers, body)


def split_head(stdout: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """The headers that standard output begins with, and what follows; no headers where it does not."""
    if not _BEGINS.match(stdout[:64]):
        return [], stdout
    end = _END.search(stdout, 0, MAX_HEAD)
    if end is None:
        return [], stdout
    found = []
    for line in stdout[: end.start()].replace(b"\r\n", b"\n").split(b"\n"):
        name, colon, value = line.decode("latin-1").partition(":")
        text = value.strip(" \t")
        if not colon or not _NAME.fullmatch(name.rstrip(" \t")) or not re.fullmatch(r"[\x20-\x7e\x80-\xff\t]*", text):
            return [], stdout
        found.append((name.rstrip(" \t"), text))
    return found, stdout[end.end() :]


def guess(body: bytes) -> str:
    """The media type of what comes without one."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain; charset=utf-8"
