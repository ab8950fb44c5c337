"""Pulling large bodies in pieces, with a bound on what is on its way. Pure: no socket, no clock.

The side that lacks a body asks for it piece by piece (``fetch``) and never has more than a window of bytes
outstanding, so a small message never queues behind a large body, on either side.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from minilambda.fields import MAX_FRAME


@dataclass(slots=True)
class Transfer:
    """One body on its way to this side."""

    handle: str  # what the holder knows it by
    total: int  # size of the whole, bytes
    asked: int = 0  # bytes asked for so far, in order
    received: int = 0  # bytes that arrived so far, in order
    pieces: list[bytes] = field(default_factory=list)  # what arrived and is not taken yet

    @property
    def complete(self) -> bool:
        return self.received == self.total


class Puller:
    """The transfers from one peer: first come, first asked for, within one window."""

    def __init__(self, window: int) -> None:
        self.window = window  # bytes asked for and not arrived, at most
        self.outstanding = 0  # bytes asked for and not arrived
        self.transfers: OrderedDict[str, Transfer] = OrderedDict()  # under way, by handle, the oldest first

    def __contains__(self, handle: str) -> bool:
        return handle in self.transfers

    def __iter__(self) -> Iterator[str]:
        return iter(self.transfers)

    def start(self, handle: str, total: int) -> None:
        """Wants a body; a handle that is on its way already is left as it is."""
        self.transfers.setdefault(handle, Transfer(handle, total))

    def stop(self, handle: str) -> None:
        """Wants it no more; what still arrives of it is ignored."""
        transfer = self.transfers.pop(handle, None)
        if transfer is not None:
            self.outstanding -= transfer.asked - transfer.received

    def reset(self) -> None:
        """The peer has forgotten what it was asked: everything missing is asked for again."""
        self.outstanding = 0
        for transfer in self.transfers.values():
            transfer.asked = transfer.received

    def requests(self) -> list[tuple[str, int, int]]:
        """What to ask for now: (handle, offset, size)."""
        wanted: list[tuple[str, int, int]] = []
        for transfer in self.transfers.values():
            while transfer.asked < transfer.total and self.outstanding < self.window:
                size = min(MAX_FRAME, transfer.total - transfer.asked)
                wanted.append((transfer.handle, transfer.asked, size))
                transfer.asked += size
                self.outstanding += size
            if self.outstanding >= self.window:
                break
        return wanted

    def arrived(self, handle: str, offset: int, total: int, data: bytes) -> Transfer | None:
        """Takes a piece. The transfer when the piece was expected, None when it is to be ignored.

        A holder that has nothing (any more), or something of another size, makes the transfer's ``total`` -1.
        """
        transfer = self.transfers.get(handle)
        if transfer is None or transfer.received >= transfer.asked:
            return None
        expected = min(MAX_FRAME, transfer.total - transfer.received)
        if total != transfer.total or (offset == transfer.received and len(data) != expected):
            self.stop(handle)
            transfer.total = -1
            return transfer
        if offset != transfer.received:
            return None
        transfer.received += len(data)
        self.outstanding -= len(data)
        transfer.pieces.append(data)
        if transfer.complete:
            del self.transfers[handle]
        return transfer
