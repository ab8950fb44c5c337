"""Messages for those who watch a cluster: who its clients are, and how it does as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from minilambda.fields import Count, Duration, Label, Size, count_map
from minilambda.messages.parts import Message, Reply, Request, Rows

CountMap = Annotated[dict[str, int], count_map(256)]


@dataclass(slots=True, unsafe_hash=True)
class ListClients(Request):
    """The principals that have jobs, or had some since the broker began."""

    TYPE: ClassVar[str] = "list_clients"


@dataclass(slots=True, unsafe_hash=True)
class GetOverview(Request):
    """How the broker does."""

    TYPE: ClassVar[str] = "get_overview"


@dataclass(slots=True, unsafe_hash=True)
class ClientList(Reply):
    TYPE: ClassVar[str] = "clients"
    clients: Rows  # maps of principal, name, queued, running, completed, failed, cancelled, seen_ms (last request)


@dataclass(slots=True, unsafe_hash=True)
class Overview(Reply):
    TYPE: ClassVar[str] = "overview"
    broker: Label  # name and version of the software
    up_ms: Duration  # since this broker began, milliseconds
    workers: Count  # registered
    slots: Count  # of all workers together
    queued: Count  # jobs in the broker's queue
    running: Count  # jobs at workers
    kept: Count  # ended jobs whose results are kept
    accepted: Count  # jobs so far
    outcomes: CountMap = field(default_factory=dict)  # ended jobs so far: "completed" or the code of the failure
    rejected: CountMap = field(default_factory=dict)  # what peers got wrong so far, by kind
    modules: Count = 0  # in the store, files included
    store_bytes: Size = 0  # what they take
    tiers: Rows = ()  # of the last jobs, maps of tier, count, p50_ms, p90_ms, p99_ms (accepted to result)


REQUESTS: tuple[type[Message], ...] = (ListClients, GetOverview)
REPLIES: tuple[type[Message], ...] = (ClientList, Overview)
