"""Who may ask: the name that the gateway is called by, the page that a request comes from, the bearer of a token.

Pure: headers in, a problem or nothing out.

Without tokens a browser on this machine is the danger: any page that it shows can send requests to a loopback
address, and a name that its owner points at 127.0.0.1 makes that page one of our own ("DNS rebinding"). So the name
in ``Host`` must be one that nobody else can own, and what a browser says to come from another site is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from minilambda.web.binding import is_address
from minilambda.web.problems import Problem

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_BEARER = re.compile(r"[Bb]earer +([A-Za-z0-9._~+/=-]{1,256}) *")

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OURS = frozenset({"", "none", "same-origin"})
"""What ``Sec-Fetch-Site`` says of a request that no other site has caused; "": no browser sent it."""


def host_of(header: str) -> str:
    """The host in a ``Host`` header, in lower case; "" for what is none."""
    match = _HOST.fullmatch(header)
    return match[1].strip("[]").rstrip(".").lower() if match is not None else ""


def check_host(header: str, known: frozenset[str]) -> None:
    """Raises ``Problem`` for a name that is not ours: an address is always, for nobody can point it elsewhere."""
    host = host_of(header)
    if not host or not (host in known or host == "localhost" or is_address(host)):
        raise Problem("wrong_host", f"The gateway is not known as {header[:100]!r}; `--host` makes it known.")


def check_size(scope: Mapping[str, Any], limit: int) -> None:
    """Raises ``Problem`` for headers above the limit: h11 judges only those that have not come to their end yet."""
    size = len(scope["path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > limit:
        raise Problem("bad_request", f"The request's headers have more than {limit} bytes.")


def check_page(method: str, headers: Mapping[str, str], scheme: str, calls: bool) -> None:
    """Raises ``Problem`` for a request that a page of another site has caused.

    ``calls``: a GET may change something too. Browsers send ``Origin`` with all that is not a GET, and in our time
    ``Sec-Fetch-Site`` with everything.
    """
    site, origin = headers.get("sec-fetch-site", ""), headers.get("origin", "")
    reads = method in SAFE_METHODS and not calls
    if site not in OURS and not (reads and headers.get("sec-fetch-mode") == "navigate"):
        raise Problem("foreign_page")
    if origin and origin.lower() != f"{scheme}://{headers.get('host', '')}".lower():
        raise Problem("foreign_page")


def bearer(header: str) -> str:
    """The token in an ``Authorization`` header. Raises ``Problem``."""
    match = _BEARER.fullmatch(header)
    if match is None:
        raise unauthorized("" if not header else "The Authorization header is not `Bearer TOKEN`.")
    return match[1]


def unauthorized(detail: str = "", error: str = "") -> Problem:
    """A token is missing, or is none of ours."""
    challenge = 'Bearer realm="minilambda"' + (f', error="{error}"' if error else "")
    return Problem("unauthorized", detail, {"WWW-Authenticate": challenge})
