"""Texts that people write for a setting: addresses, sizes, times and counts."""

from __future__ import annotations

import re

from minilambda.errors import MinilambdaError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

DEFAULT_ADDRESS = "127.0.0.1:8080"


class BadSetting(MinilambdaError):
    code = "bad_setting"
    sentence = "A setting has a value that it can't have."


_UNITS = {
    "": 1,
    "b": 1,
    "k": KIB,
    "kb": KIB,
    "kib": KIB,
    "m": MIB,
    "mb": MIB,
    "mib": MIB,
    "g": GIB,
    "gb": GIB,
    "gib": GIB,
}
_TIMES = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)")

MAX_SIZE = 2**48
"""The largest size that can be asked for, bytes."""

MAX_DURATION = 366 * 24 * 3600.0
"""The longest time that can be asked for, seconds."""


def parse_size(text: str) -> int:
    """Bytes of a text such as ``512k``, ``64M`` or ``1.5GiB`` (binary units). Raises ``BadSetting``."""
    match = _NUMBER.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise BadSetting(f"{text!r} is not a size; write bytes, or a number with K, M or G.")
    size = float(match[1]) * _UNITS[match[2]]
    if size > MAX_SIZE:
        raise BadSetting(f"{text[:40]!r} is more than the {MAX_SIZE // GIB}G that can be asked for.")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds of a text such as ``5``, ``250ms``, ``2m`` or ``1h``. Raises ``BadSetting``."""
    match = _NUMBER.fullmatch(text.strip().lower())
    if match is None or match[2] not in _TIMES:
        raise BadSetting(f"{text!r} is not a duration; write seconds, or a number with ms, s, m or h.")
    seconds = float(match[1]) * _TIMES[match[2]]
    if seconds > MAX_DURATION:
        raise BadSetting(f"{text[:40]!r} is more than the {MAX_DURATION / 3600:.0f}h that can be asked for.")
    return seconds


def parse_count(text: str, what: str, low: int = 0, high: int = 2**31) -> int:
    """A whole number within bounds. Raises ``BadSetting`` naming ``what``."""
    if not re.fullmatch(r"[+-]?[0-9]{1,12}", text.strip()) or not low <= int(text) <= high:
        raise BadSetting(f"{what} must be a whole number from {low} to {high}, not {text!r}.")
    return int(text)


def endpoint(text: str) -> str:
    """The ZeroMQ endpoint of an address: ``HOST:PORT``, ``tcp://HOST:PORT``, ``[IPV6]:PORT`` or ``ipc://PATH``.

    Port 0 stands for any free port when binding. Raises ``BadSetting`` with what to write instead.
    """
    address = text.strip()
    if not address.isprintable():  # nor is what was not UTF-8
        raise BadSetting(f"{text!r} is not an address: it has characters that can't be printed.")
    scheme, found, rest = address.partition("://")
    if not found:
        scheme, rest = "tcp", address
    if scheme in ("http", "https", "ws", "wss"):
        host = rest.split("/", 1)[0]
        raise BadSetting(f"minilambda speaks ZeroMQ, not HTTP: write {host} or tcp://{host}.")
    if scheme == "ipc":
        if not rest or len(rest.encode()) > 100:
            raise BadSetting("ipc:// needs a path of at most 100 bytes.")
        return f"ipc://{rest}"
    if scheme != "tcp":
        raise BadSetting(f"{scheme}:// is not a transport here; write HOST:PORT, tcp://HOST:PORT or ipc://PATH.")
    match = re.fullmatch(r"(\[[A-Za-z0-9:.%_-]+\]|[A-Za-z0-9._-]+|\*):([0-9]{1,5})", rest)
    if match is None or int(match[2]) > 65535:
        more = "" if rest.isascii() else " A host with other letters than a to z is written in its ASCII form, xn--…."
        raise BadSetting(
            f"{text!r} is not an address; write HOST:PORT (IPv6 as [HOST]:PORT), tcp://HOST:PORT or ipc://PATH.{more}"
        )
    return f"tcp://{match[1]}:{match[2]}"


def peer_endpoint(text: str) -> str:
    """The endpoint of an address to connect to: as ``endpoint``, but it has to name one place."""
    found = endpoint(text)
    if found.startswith("tcp://*:") or re.fullmatch("tcp://.*:0+", found):
        raise BadSetting(f"{text!r} is an address to listen on; to connect, write the host and the port of the broker.")
    return found


def metrics_address(text: str) -> tuple[str, int]:
    """Where to listen: ``PORT``, ``HOST:PORT`` or ``[IPV6]:PORT``, this machine only unless a host is named.

    Raises ``BadSetting``.
    """
    host, _, port = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit()) or int(port) > 65535 or not bare.isprintable() or "/" in bare:
        raise BadSetting(f"{text!r} is no address for metrics; write PORT, HOST:PORT or [IPV6]:PORT.")
    return ("" if bare == "*" else bare or "127.0.0.1"), int(port)
