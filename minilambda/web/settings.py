"""How the gateway behaves: what it takes from visitors, at most. Sizes are in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from minilambda.notation import KIB, MIB


@dataclass(frozen=True, slots=True)
class WebSettings:
    """The limits of one gateway."""

    max_body_bytes: int = 64 * MIB  # body of one request
    max_json_bytes: int = 4 * MIB  # body that is JSON, which takes many times its size once it is read
    bodies_bytes: int = 256 * MIB  # bodies and results of all requests together; more are told to come again
    max_header_bytes: int = 32 * KIB  # request line and headers
    max_parts: int = 256  # parts of one multipart body
    max_inline_bytes: int = 4 * MIB  # output that a JSON reply has in it; more is cut there
    max_requests: int = 256  # requests at a time; more are told to come again
    max_streams: int = 128  # of these, streams of events
    max_connections: int = 1024  # connections at a time; more are closed
    header_timeout: float = 10.0  # a request's headers must be there after so long
    body_grace: float = 30.0  # a body may take so long ...
    body_rate: int = 16 * KIB  # ... and as much longer as this rate allows, bytes a second
    stall_timeout: float = 30.0  # a visitor who takes nothing of a reply for so long is cut off
    keep_alive: int = 5  # an idle connection is kept for so long
    wait: float = 300.0  # longest that a request waits for its job
    beat: float = 15.0  # a stream that has nothing to tell says so this often
    connect: float = 2.0  # a broker that says nothing for so long at first is away
    poll: float = 1.0  # least time between two looks at the broker for the live page
    quick: float = 5.0  # a broker that leaves a simple question unanswered for so long is away
    grace: float = 5.0  # what runs may go on for so long when the gateway stops
    hosts: frozenset[str] = field(default_factory=frozenset)  # names, besides its addresses, that it is reached by
