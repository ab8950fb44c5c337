"""A gateway in a thread of the test, reached by real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import httpx

from minilambda.web.binding import Binding, listen, url_of
from minilambda.web.gateway import Gateway
from minilambda.web.server import make_server
from minilambda.web.settings import WebSettings
from minilambda.web.tokens import TokenFile

NOBODY = "tcp://127.0.0.1:1"
"""An address where no broker is."""


@contextlib.contextmanager
def serving(settings: WebSettings, server: str = NOBODY, tokens: TokenFile | None = None) -> Iterator[httpx.Client]:
    """A client of a gateway that runs, and ends without a word of trouble."""
    made: list[Gateway] = []
    ready = threading.Event()

    def open_gateway() -> Gateway:
        made.append(Gateway(settings, server, tokens=tokens))
        return made[0]

    web = make_server(settings, open_gateway, ready.set)
    with listen(Binding("127.0.0.1", 0)) as listening, httpx.Client(base_url=url_of(listening), timeout=30) as client:
        thread = threading.Thread(target=lambda: asyncio.run(web.serve([listening])))
        thread.start()
        try:
            assert ready.wait(20)
            yield client
        finally:
            web.stop()
            thread.join(20)
    assert not thread.is_alive()
    assert made[0].budget.left == settings.bodies_bytes
    assert (made[0].requests, made[0].streams) == (0, 0)
