"""The client's side of the protocol, without a socket or a clock.

A *call* is what the caller asked for; it ends once, with a reply or an error. On its way it may need several
requests: the greeting that opens a connection, a module that the broker lacks, the same request again after
silence or ``busy``. The shell hands in replies and the time, and sends what comes out.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from math import inf

from minilambda.client.calls import (
    ANSWERS,
    Action,
    Call,
    Ended,
    Patience,
    Send,
    Source,
    not_yet,
    of_function,
    out_of_time,
    ride_along,
    too_large,
)
from minilambda.client.follows import Follows, heard
from minilambda.client.live import Following, pause
from minilambda.client.refusals import Refusals
from minilambda.client.uploads import Uploads
from minilambda.errors import MinilambdaError, Unreachable, error_for
from minilambda.messages import (
    TERMINAL,
    Deploy,
    Follow,
    GetResult,
    Hello,
    JobResult,
    JobStatus,
    Output,
    Put,
    Refused,
    Reply,
    Request,
    Run,
    Stored,
    Welcome,
)
from minilambda.messages import Call as CallFunction

_LOOK = 2e-6  # a look at all calls comes so much later for each of them, seconds: it takes a tenth of the time at most
SLOWEST_LINK = 128 * 1024  # bytes a second that a request is given to travel before it is sent again


class Core:
    """The calls of one connection."""

    def __init__(self, endpoint: str, patience: Patience | None = None) -> None:
        self.endpoint = endpoint
        self.welcome: Welcome | None = None  # what the broker said of itself; None before it did
        self._patience = patience or Patience()
        self._calls: dict[int, Call] = {}  # by request number
        self.follows = Follows(self._calls)
        self._refusals = Refusals(self._calls, self._patience)
        self._number = count(1).__next__  # gives the next request number
        self._greeting: int | None = None  # call that greets
        self._again = 1.0  # a request that gets no answer is sent again after so long, seconds
        self._uploads = Uploads(self._calls, self._number, self._add, self._send, self._end)
        self._blocked: float | None = None  # since when nothing can be sent, seconds
        self._next = inf  # no call is due before, seconds

    def __contains__(self, number: int) -> bool:
        """The call has not ended, or the piece of an upload has no answer."""
        return number in self._calls or number in self._uploads.pieces

    def __len__(self) -> int:
        """Calls that have not ended."""
        return len(self._calls)

    # --- events ---------------------------------------------------------------------------------------

    def start(
        self, message: Request, now: float, source: Source | None = None, patience: float | None = None, beside: int = 0
    ) -> tuple[int, list[Action]]:
        """Begin a call; its number is in the ``Ended`` that ends it. ``patience`` is in seconds.

        The message is the core's from here on, and gets its request number. A ``follow`` or an ``input`` for the job
        of a ``run`` that has not ended names that call in ``beside``: such a job may be unknown at first.
        """
        call = self._add(message, source, now, inf if patience is None else patience)
        call.beside = beside
        actions: list[Action] = []
        if self.welcome is None:
            self._greet(now, actions)
        else:
            self._send(call, now, actions)
        return message.request, actions

    def received(self, reply: Reply, now: float) -> list[Action]:
        """The broker said something."""
        actions: list[Action] = []
        if not reply.request and isinstance(reply, Refused):  # it could not read which: none can be trusted
            error = error_for(reply.code, reply.message)
            for number in list(self._calls):
                self._end(number, error, now, actions)
            return actions
        call = self._calls.get(reply.request) or self._calls.get(self._uploads.pieces.upload(reply.request))
        if call is None or not call.awaited:
            return actions
        if getattr(reply, "job", None) not in (None, getattr(call.message, "job", None)):
            return actions
        call.awaited = False
        if isinstance(reply, Refused):
            self._refused(call, reply, now, actions)
        elif isinstance(reply, Output) and call.following is not None:
            call.awaited, call.wake = True, now + self._again
            if heard(call.following, reply, actions):
                self._send(call, now, actions)
        elif type(reply) not in ANSWERS[type(call.message)]:
            text = f"The broker answered {call.message.TYPE!r} with {reply.TYPE!r}."
            self._end(call.message.request, MinilambdaError(text), now, actions)
        elif isinstance(reply, Stored):
            self._uploads.stored(call, reply, now, actions)
        elif isinstance(call.message, GetResult) and isinstance(reply, JobStatus):
            self._not_ended(call, reply, now, actions)
        elif call.following is not None and call.following.goes_on():
            self._send(call, now, actions)
        else:
            outcome = reply if call.following is None else call.following.outcome(reply)
            self._end(reply.request, outcome, now, actions)
        return actions

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        actions: list[Action] = []
        if now < self._next:
            return actions
        self._next = inf
        if self._blocked is not None and self.welcome is not None:
            if now >= self._blocked + self._patience.lost:
                self._lost(now, actions)
            else:
                self._next = self._blocked + self._patience.lost
        for number, call in list(self._calls.items()):
            if number not in self._calls:
                continue  # ended by one before it
            if now >= call.deadline:
                self._end(number, out_of_time(call, self.endpoint), now, actions)
                continue
            if now >= call.wake:
                self._send(call, now, actions)
            self._next = min(self._next, call.deadline, call.wake)
        self._next = max(self._next, now + _LOOK * len(self._calls))
        return actions

    def next_deadline(self) -> float:
        """When ``tick`` is due, seconds; inf when nothing waits."""
        return self._next

    def fail(self, number: int, error: Exception, now: float) -> list[Action]:
        """A call or a piece of an upload can't be sent, or its answer can't be read."""
        actions: list[Action] = []
        self._end(self._uploads.pieces.upload(number), error, now, actions)
        return actions

    def drop(self, number: int) -> None:
        """The caller has lost interest; the call ends without an ``Ended``."""
        self._calls.pop(number, None)
        self._refusals.sent(number)
        self._uploads.dropped(number)

    def unsent(self, number: int, now: float) -> None:
        """A credit could not be sent: the ``follow`` that is sent again says all that it would have said."""
        call = self._calls.get(number)
        if call is not None:
            call.wake = self._next = now

    def disconnected(self, now: float) -> None:
        """The connection broke: what was sent may be lost, and is sent again as soon as it is back."""
        for call in self._calls.values():
            if call.awaited:
                call.wake = self._next = now

    def blocked(self, now: float) -> None:
        """Nothing can be sent: there is no connection."""
        if self._blocked is None:
            self._blocked = now
            self._next = min(self._next, now + self._patience.lost)

    def unblocked(self) -> None:
        """Something was sent."""
        self._blocked = None

    # --- steps of a call ------------------------------------------------------------------------------

    def _add(self, message: Request, source: Source | None, now: float, patience: float = inf) -> Call:
        number = message.request = self._number()
        call = self._calls[number] = Call(message, source, now, now + patience)
        self._next = min(self._next, call.deadline)
        return call

    def _greet(self, now: float, actions: list[Action]) -> None:
        if self._greeting is None:
            call = self._add(Hello(0), None, now, self._patience.connect)
            call.own = True
            self._greeting = call.message.request
            self._send(call, now, actions)

    def _send(self, call: Call, now: float, actions: list[Action]) -> None:
        """Send the request of a call, or its next ones, unless it is larger than the broker takes."""
        message, piece, patience, size = call.message, None, 0.0, 0
        self._refusals.sent(message.request)
        if isinstance(message, Run):
            size = len(message.stdin) + len(message.values)
            spec, lacks = message.spec, call.source is not None and call.source.digest not in self._uploads
            asks = lacks or size or spec.args or spec.env or spec.files or spec.scratch
            if asks and self._refuse(call, now, actions):
                return
            call.unanswered = call.unanswered or call.awaited
            if call.unanswered:
                message = replace(message, again=True)
            if lacks and (piece := ride_along(call.source, size, self.welcome)) is not None:
                self._uploads.know(spec.module)  # the requests behind this one need not carry it again
        elif isinstance(message, (Put, Deploy, CallFunction)):
            if self._refuse(call, now, actions):
                return
            if isinstance(message, Put):
                self._await(call, now, self._uploads.pieces.send(call, message, actions) / SLOWEST_LINK)
                return
            message, piece, size = of_function(call, message, self._uploads, self.welcome)
        elif isinstance(message, GetResult):
            longest = self.welcome.max_wait_ms if self.welcome is not None else 0
            message = replace(message, wait_ms=int(min(longest, max(0.0, call.left_ms(now)))))
            patience = message.wait_ms / 1000
        elif isinstance(message, Follow):
            call.following = call.following or Following()
            message = call.following.request(message)
        if piece is not None:
            size += piece.size
        self._await(call, now, patience + size / SLOWEST_LINK)
        actions.append(Send(message, piece))

    def _await(self, call: Call, now: float, longer: float) -> None:
        """Expect an answer, and send again what gets none; ``longer`` than others, seconds."""
        call.awaited = True
        call.wake = now + self._again + longer
        self._next = min(self._next, call.wake)

    def _refuse(self, call: Call, now: float, actions: list[Action]) -> bool:
        """End a call that the broker would refuse for its size."""
        error = too_large(call.message, call.source, self.welcome) if self.welcome is not None else None
        if error is not None:
            self._end(call.message.request, error, now, actions)
        return error is not None

    # --- replies --------------------------------------------------------------------------------------

    def _refused(self, call: Call, reply: Refused, now: float, actions: list[Action]) -> None:
        number = call.message.request
        self._uploads.pieces.halt(number)
        retry = None if reply.retry_after_ms is None else reply.retry_after_ms / 1000
        if not_yet(call, reply, call.beside in self._calls):
            wake: float | None = now + pause(now - call.started)
        else:
            wake = self._refusals.again(call, reply.code, retry, now)
        if wake is not None:
            call.wake = wake
            self._next = min(self._next, wake)
            return
        limits = self.welcome if reply.code == "not_found" else None
        if limits is not None and self._uploads.lacking(call, reply, limits, now, actions):
            return
        self._end(number, error_for(reply.code, reply.message, retry_after=retry), now, actions)

    def _not_ended(self, call: Call, reply: JobStatus, now: float, actions: list[Action]) -> None:
        if call.left_ms(now) <= 0 or reply.state in TERMINAL:
            self._end(reply.request, reply, now, actions)
        else:
            self._send(call, now, actions)

    # --- ends -----------------------------------------------------------------------------------------

    def _end(self, number: int, outcome: Reply | Exception, now: float, actions: list[Action]) -> None:
        call = self._calls.pop(number, None)
        if call is None:
            return
        self._refusals.sent(number)
        if not call.own:
            actions.append(Ended(number, outcome))
        if isinstance(outcome, JobResult) and (held := self._refusals.freed(now)) is not None:
            self._send(held, now, actions)
        if isinstance(call.message, (Run, Deploy)):
            if isinstance(outcome, Reply) and call.message.spec.module not in self._uploads:
                self._uploads.know(call.message.spec.module)
        elif isinstance(call.message, Put):
            self._uploads.over(call, call.message, outcome, now, actions)
        elif number == self._greeting:
            self._greeting = None
            if isinstance(outcome, Welcome):
                self.welcome, self._again = outcome, outcome.resend_ms / 1000
            self._go_on(outcome, now, actions)

    def _go_on(self, outcome: Reply | Exception, now: float, actions: list[Action]) -> None:
        """What all calls waited for is there, or will not be."""
        for number, call in list(self._calls.items()):
            if number not in self._calls:
                continue  # ended by one before it
            if isinstance(outcome, Exception):
                self._end(number, outcome, now, actions)
            else:
                self._send(call, now, actions)

    def _lost(self, now: float, actions: list[Action]) -> None:
        self._blocked = now
        text = f"The connection to the broker at {self.endpoint} was lost and did not come back"
        for number in list(self._calls):
            self._end(number, Unreachable(f"{text} within {self._patience.lost:g} s."), now, actions)
