"""The gateway as a process: sockets, signals, and what keeps slow visitors from holding it up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from minilambda.notation import BadSetting
from minilambda.sockets import allow_connections, warn_of_old_libzmq
from minilambda.web.app import application
from minilambda.web.binding import Binding, listen, url_of
from minilambda.web.gateway import Gateway
from minilambda.web.problems import Problem
from minilambda.web.settings import WebSettings
from minilambda.web.tokens import TokenFile

_LINGER = 1.0  # a connection on which nothing more is understood stays for so long, seconds

log = logging.getLogger(__name__)


def run_web(
    settings: WebSettings,
    binding: Binding,
    server: str,
    on_bound: Callable[[str], None],
    *,
    key: str | None = None,
    server_key: str | None = None,
    tokens: Path | None = None,
    insecure: bool = False,
) -> int:
    """Run a gateway until SIGTERM or SIGINT; returns the exit status.

    ``server`` is the broker's endpoint, ``on_bound`` gets the gateway's own URL. Without ``tokens`` whoever reaches it
    can run code, so an address beyond this machine needs ``insecure``. Raises ``BadSetting`` where the address may not
    or can't be bound, ``BadKey`` where keys or tokens can't be used.
    """
    if tokens is None and not binding.local:
        check_open(binding, insecure)
    warn_of_old_libzmq()
    allow_connections()
    token_file = TokenFile(tokens) if tokens is not None else None

    def open_gateway() -> Gateway:
        return Gateway(settings, server, key=key, server_key=server_key, tokens=token_file)

    with listen(binding) as listening:
        running = make_server(settings, open_gateway, lambda: on_bound(url_of(listening)))
        asyncio.run(running.serve([listening]))
    return 0


def make_server(
    settings: WebSettings, open_gateway: Callable[[], Gateway], on_started: Callable[[], None] = lambda: None
) -> Server:
    """A server; its ``serve`` takes the sockets that it listens on. ``open_gateway`` is called in its event loop."""
    found: list[Gateway] = []

    def opened() -> Gateway:
        found.append(open_gateway())
        return found[0]

    config = uvicorn.Config(
        application(opened),
        http=_protocol(settings),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        h11_max_incomplete_event_size=settings.max_header_bytes,
    )
    for name in ("uvicorn", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what visitors get wrong is no news
    return Server(config, found, on_started)


def check_open(binding: Binding, insecure: bool) -> None:
    """Others will reach a gateway without tokens. Raises ``BadSetting`` where nobody has asked for that."""
    shown = f"{binding.host}:{binding.port}"
    if insecure:
        log.warning("ANYONE who reaches %s can run code on the workers: --insecure was given.", shown)
        return
    text = f"{shown} can be reached from other machines, and without tokens anyone who reaches it can run code. Run"
    raise BadSetting(f"{text} `minilambda web token NAME` first, or say --insecure if the network keeps strangers out.")


class Server(uvicorn.Server):
    """Stops by signals without being killed by them, and lets streams end first."""

    def __init__(self, config: uvicorn.Config, gateways: list[Gateway], on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._gateways = gateways  # none until it has started
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # only that one hears signals
            yield
            return
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Take no more, end the streams, and give what runs its grace; the second time in a hurry."""
        self.force_exit = self.should_exit
        self.should_exit = True
        for gateway in self._gateways:
            gateway.stopping.set()


def _protocol(settings: WebSettings) -> type[asyncio.Protocol]:
    """HTTP with limits of time: for headers to come, and for a visitor to take what is sent."""

    class Protocol(H11Protocol):
        """A connection of one visitor."""

        _headers_due: asyncio.TimerHandle | None = None  # closes a connection whose headers don't come
        _deaf = False  # what comes is nothing to us any more
        _stalled: asyncio.TimerHandle | None = None  # closes one whose visitor does not read

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                transport.abort()
                return
            self._await_headers()

        def data_received(self, data: bytes) -> None:
            if self._deaf:
                return
            super().data_received(data)
            if self._busy():
                self._stop("_headers_due")
            elif self._headers_due is None:
                self._await_headers()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self._busy():
                self._stop("_headers_due")  # the next request had come already

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stop("_stalled")
            self._stalled = self.loop.call_later(settings.stall_timeout, self._reset)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop("_stalled")

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop("_headers_due")
            self._stop("_stalled")
            super().connection_lost(exc)

        def _busy(self) -> bool:
            cycle: Any = self.cycle  # None before the first request
            return cycle is not None and not cycle.response_complete

        def send_400_response(self, msg: str) -> None:
            """What is no HTTP gets a problem document too."""
            problem = Problem("bad_request", msg, {"Connection": "close"}).response()
            start = h11.Response(status_code=problem.status_code, headers=problem.raw_headers)
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else the reply to its beginning has gone out
                for each in (start, h11.Data(data=bytes(problem.body)), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(each) or b"")
            # Closed with something unread, the connection would be reset, and the reply be lost with it.
            self._deaf = True
            self.transport.write_eof()
            self._stop("_headers_due")
            self._headers_due = self.loop.call_later(_LINGER, self.transport.abort)

        def _await_headers(self) -> None:
            self._headers_due = self.loop.call_later(settings.header_timeout, self.transport.abort)

        def _reset(self) -> None:
            """Close, and forget what was not taken: the system would keep it for as long as the visitor likes."""
            found = self.transport.get_extra_info("socket")
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

        def _stop(self, name: str) -> None:
            timer = getattr(self, name)
            if timer is not None:
                timer.cancel()
                setattr(self, name, None)

    return Protocol
