"""Where the gateway listens, and by which names it may be reached."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from minilambda.notation import BadSetting

DEFAULT_BIND = "127.0.0.1:8000"


@dataclass(frozen=True, slots=True)
class Binding:
    """An address to listen on."""

    host: str  # as ``bind`` takes it, IPv6 without brackets
    port: int  # 0: any free one

    @property
    def local(self) -> bool:
        """Only this machine can reach it."""
        if self.host == "localhost":
            return True
        return is_address(self.host) and ip_address(self.host).is_loopback


def parse_bind(text: str) -> Binding:
    """The address in ``HOST:PORT``, ``[IPV6]:PORT`` or ``*:PORT``. Raises ``BadSetting``."""
    address = text.strip()
    match = re.fullmatch(r"(?:http://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+|\*):([0-9]{1,5})/?", address)
    if match is None or int(match[2]) > 65535:
        raise BadSetting(f"{text!r} is not an address to listen on; write HOST:PORT, or [IPV6]:PORT.")
    host = match[1].strip("[]")
    return Binding("0.0.0.0" if host == "*" else host, int(match[2]))


def listen(binding: Binding) -> socket.socket:
    """A socket that listens there. Raises ``BadSetting``."""
    shown = f"{binding.host}:{binding.port}"
    try:
        found = socket.getaddrinfo(binding.host, binding.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = sorted(found, key=lambda each: each[0] != socket.AF_INET)[0]
        listening = socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        raise BadSetting(f"{shown} can't be listened on: {getattr(error, 'strerror', None) or error}.") from None
    # Connections inherit it. Without it, a reply's body waits 40 ms for the acknowledgement of its headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def url_of(listening: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_address(host: str) -> bool:
    """Whether this is an IP address, not a name."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
