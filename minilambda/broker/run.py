"""A broker from its settings to its end."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from minilambda.broker.access import BrokerKeys
from minilambda.broker.exposure import check_open, is_local
from minilambda.broker.server import Server
from minilambda.broker.telemetry import Telemetry, Wanted
from minilambda.settings import BrokerSettings
from minilambda.sockets import allow_connections, warn_of_old_libzmq


def run_broker(
    settings: BrokerSettings,
    endpoint: str,
    on_bound: Callable[[str], None] | None = None,
    insecure: bool = False,
    state_dir: Path | None = None,
    keys: BrokerKeys | None = None,
    wanted: Wanted | None = None,
) -> int:
    """Run a broker until SIGTERM or SIGINT; returns the exit status.

    ``endpoint`` is as ``notation.endpoint`` gives it; ``on_bound`` gets the one that is really bound. Without keys
    anyone who reaches the socket can run code, so an address beyond this machine needs ``insecure=True``.
    ``state_dir`` has what outlives the broker; without it nothing does. With ``keys`` only those talk that are
    authorized. ``wanted`` is what those get who watch over it. Raises ``BadSetting`` when an address may not or can't
    be bound, or the list of keys can't be used, ``JournalRefused`` when the directory can't be used, ``MissingExtra``.
    """
    if keys is None and not is_local(endpoint):
        check_open(endpoint, insecure)
    warn_of_old_libzmq()
    allow_connections()
    server = Server(settings, endpoint, state_dir, keys)
    # Jobs are many, long-lived and free of cycles: looking through them all would only make somebody wait.
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)
    try:
        server.telemetry = Telemetry(wanted or Wanted(), server.core, server.traffic)
        if on_bound is not None:
            on_bound(server.endpoint)
        server.telemetry.start()
        server.serve()
    finally:
        server.close()
    return 0
