"""How the bytes that a job needs get to the broker: its module along with the job, all else ahead of it, in pieces.

A job is sent in the hope that the broker has everything. Where it says that it does not, the call is parked until the
uploads that it needs are over, and sent again. Several calls may wait for one upload. Pure: no socket, no clock.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from minilambda.client.calls import PIECE, Action, Call, Source
from minilambda.client.pieces import IN_FLIGHT, Pieces
from minilambda.errors import ModuleTooLarge, RequestError
from minilambda.messages import Deploy, Put, Refused, Reply, Run, Stored, Welcome

MAX_KNOWN = 10_000
"""Digests that are remembered to be at the broker, at most."""

MAX_LACKS = 3
"""Times that the broker may say that it lacks something, or takes nothing of it, before a call ends for that."""

AT_ONCE = 32
"""Uploads under way at a time, at most; the broker bounds those of one client too."""

WINDOW = IN_FLIGHT * PIECE
"""What one of them has on its way, bytes, at most."""

MAX_FLYING = 4 * WINDOW
"""What they may have on their way together, bytes, so that large ones do not pile up in front of everything else."""

_digests = re.compile("sha256:[0-9a-f]{64}")


class Placed(dict[str, str]):
    """The files of a job, as its specification has them: path in the guest to digest; and where the bytes are."""

    __slots__ = ("sources",)

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[str, Source] = {}  # by digest

    def put(self, path: str, source: Source) -> None:
        """The guest finds the bytes of ``source`` at ``path``."""
        self[path] = source.digest
        self.sources[source.digest] = source


@dataclass(slots=True)
class _Wanted:
    """An upload that waits for its turn."""

    source: Source
    callers: list[int] = field(default_factory=list)  # calls that wait for it


class Uploads:
    """The uploads of one connection, which belong to its calls.

    ``number``, ``add``, ``send`` and ``end`` are steps of its core.
    """

    def __init__(
        self,
        calls: dict[int, Call],
        number: Callable[[], int],
        add: Callable[[Put, Source, float], Call],
        send: Callable[[Call, float, list[Action]], None],
        end: Callable[[int, Reply | Exception, float, list[Action]], None],
    ) -> None:
        self._calls = calls  # the connection's, by request number
        self._add, self._send, self._end = add, send, end
        self.pieces = Pieces(number)
        self._known: OrderedDict[str, None] = OrderedDict()  # digests that the broker was sent or has run
        self._active: dict[str, int] = {}  # digest to the call that uploads it
        self._waiting: OrderedDict[str, _Wanted] = OrderedDict()  # by digest, the next one first
        self._flying = 0  # bytes that the active ones may have on their way

    def __contains__(self, digest: object) -> bool:
        """The broker has it, as far as one knows."""
        return digest in self._known

    def know(self, digest: str) -> None:
        self._known[digest] = None
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    # --- what the broker lacks ------------------------------------------------------------------------

    def lacking(self, call: Call, reply: Refused, limits: Welcome, now: float, actions: list[Action]) -> bool:
        """The broker lacks what a job needs; False where nothing can be done about it."""
        message, source = call.message, call.source
        call.lacks += 1
        if not isinstance(message, (Run, Deploy)) or call.lacks > MAX_LACKS:
            return False
        found = _digests.search(reply.message)
        files = message.spec.files
        placed = files.sources if isinstance(files, Placed) else {}
        file = placed.get(found[0]) if found is not None else None
        if file is not None:
            source = file  # where one is not there any more, nor may the others be
            for digest in placed:
                self._known.pop(digest, None)
        if source is None or not source.size:
            return False
        self._known.pop(source.digest, None)
        if file is None and source.size <= PIECE and call.lacks == 1:
            self._send(call, now, actions)  # it rides along
            return True
        wanted = [each for each in placed.values() if each.size and each.digest not in self._known]
        error = _too_large(placed, files, limits)
        if error is not None:
            self._end(message.request, error, now, actions)
        else:
            self._supply(call, {each.digest: each for each in [source, *wanted]}, now, actions)
        return True

    def _supply(self, call: Call, sources: dict[str, Source], now: float, actions: list[Action]) -> None:
        """Give the broker what it lacks, then send the job again."""
        number = call.message.request
        call.wake, call.needs = inf, set(sources)
        for digest, source in sources.items():
            active = self._active.get(digest)
            if active is not None:
                self._calls[active].parked += (number,)
            else:
                self._waiting.setdefault(digest, _Wanted(source)).callers.append(number)
        self._begin(now, actions)

    def _begin(self, now: float, actions: list[Action]) -> None:
        """Begin those uploads that there is room for."""
        while self._waiting and len(self._active) < AT_ONCE:
            digest, wanted = next(iter(self._waiting.items()))
            size = wanted.source.size or 0
            if self._active and self._flying + min(size, WINDOW) > MAX_FLYING:
                break
            del self._waiting[digest]
            callers = tuple([each for each in wanted.callers if each in self._calls])
            if callers:
                upload = self._add(Put(0, digest, size), wanted.source, now)
                upload.own, upload.parked = True, callers
                self._active[digest] = upload.message.request
                self._flying += min(size, WINDOW)
                self._send(upload, now, actions)

    # --- an upload ------------------------------------------------------------------------------------

    def stored(self, call: Call, reply: Stored, now: float, actions: list[Action]) -> None:
        """The broker says how much it has."""
        number, size = call.message.request, call.message.size if isinstance(call.message, Put) else 0
        if reply.complete:
            self.know(reply.module)
            self._end(number, reply, now, actions)
            return
        taken = self.pieces.answered(call, reply.request, reply.received)
        if taken is None:
            call.awaited = True
            return
        call.lacks += not taken
        if call.lacks > MAX_LACKS or reply.received >= size:
            text = f"The broker takes no more than {reply.received} of {size} bytes of the module."
            self._end(number, RequestError(text), now, actions)
        else:
            self._send(call, now, actions)

    def over(self, call: Call, put: Put, outcome: Reply | Exception, now: float, actions: list[Action]) -> None:
        """An upload has ended: what waits for it goes on, or ends as it did."""
        self.pieces.forget(put.request)
        if self._active.get(put.module) == put.request:
            self._forget(put.module, put.size)
        for number in call.parked:
            waiting = self._calls.get(number)
            if waiting is None or waiting.needs is None:
                continue
            waiting.needs.discard(put.module)
            if isinstance(outcome, Exception):
                self._end(number, outcome, now, actions)
            elif not waiting.needs:
                self._send(waiting, now, actions)
        self._begin(now, actions)

    def dropped(self, gone: int) -> None:
        """A call has gone: uploads that nobody waits for any more go too."""
        self.pieces.forget(gone)
        for digest, wanted in list(self._waiting.items()):
            if not any(each in self._calls for each in wanted.callers):
                del self._waiting[digest]
        if self._waiting:
            return  # the end of those under way lets these begin
        for digest, number in list(self._active.items()):
            upload = self._calls[number]
            upload.parked = tuple([each for each in upload.parked if each in self._calls])
            if not upload.parked:
                self._forget(digest, upload.source.size or 0 if upload.source is not None else 0)
                self.pieces.forget(number)
                del self._calls[number]

    def _forget(self, digest: str, size: int) -> None:
        del self._active[digest]
        self._flying -= min(size, WINDOW)


def _too_large(placed: dict[str, Source], files: dict[str, str], limits: Welcome) -> RequestError | None:
    """Why the broker would refuse a file for its size."""
    most = limits.max_module_bytes
    for path, digest in files.items() if placed else ():
        size = placed[digest].size or 0
        if size > most:
            return ModuleTooLarge(f"The file {path} has {size} bytes; the broker takes {most}.")
    return None
