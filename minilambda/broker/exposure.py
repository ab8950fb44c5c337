"""Whom a broker's address can be reached by, and what is said of that where nobody has to show a key."""

from __future__ import annotations

import logging
import shlex
from ipaddress import ip_address

from minilambda.notation import BadSetting

log = logging.getLogger(__name__)


def check_open(endpoint: str, insecure: bool) -> None:
    """Others will reach a broker without keys. Raises ``BadSetting`` where nobody has asked for that."""
    if insecure:
        text = "ANYONE who reaches %s can run code on the workers and have every result: --insecure was given."
        log.warning(text, endpoint)
        return
    text = f"{endpoint} can be reached from other machines, and without keys anyone who reaches it can run code. Run"
    command = f"minilambda-broker --bind {shlex.quote(endpoint.removeprefix('tcp://'))} --key broker"
    text += f" `minilambda keygen broker`, then `{command}`"
    raise BadSetting(f"{text}; or say --insecure if the network keeps strangers out.")


def is_local(endpoint: str) -> bool:
    """Whether only this machine can reach the endpoint."""
    if endpoint.startswith("ipc://"):
        return True
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
