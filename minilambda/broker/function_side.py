"""What clients ask about functions: make them, name them, drop them, list them, call them.

A change counts at once for those who come next, and is answered when it is on the disk. Where the disk does not take
it, it is undone and its request refused, so that nobody was promised what a restart would forget.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from minilambda.broker.authority import EVERYBODY
from minilambda.broker.contents import check_spec, files_of, find_all, pin, unpin
from minilambda.broker.events import Route
from minilambda.broker.function_table import Functions
from minilambda.broker.functions import (
    Function,
    FunctionKey,
    Version,
    check_alias,
    dropped,
    records,
    restored,
)
from minilambda.broker.modules import Module
from minilambda.broker.records import Called, Recovered
from minilambda.broker.views import function_rows
from minilambda.errors import Busy, Conflict, Expired, NotFound, StorageFailed
from minilambda.messages import (
    Call,
    Deploy,
    Deployed,
    FunctionList,
    JobSpec,
    ListFunctions,
    Message,
    Run,
    SetAlias,
    Undeploy,
)

if TYPE_CHECKING:
    from minilambda.broker.core import Core
    from minilambda.broker.jobs import Job

MAX_PENDING, MAX_PENDING_BYTES = 10_000, 32 * 1024 * 1024
"""Changes that wait for the disk, at most, and what the versions take in memory that they make and drop, about."""


@dataclass(slots=True, eq=False)
class Pending:
    """A change that the disk has not taken yet."""

    number: int  # of the write that has it
    key: FunctionKey
    before: Function | None  # as it was
    after: Function | None  # as it is since
    gone: tuple[Version, ...]  # versions whose modules and files are held until it is safe
    cost: int  # what those and the versions that it makes take in memory, about, bytes
    route: Route
    reply: Deployed


class FunctionSide:
    """The handlers of these requests. One that raises a ``RequestError`` refuses its request.

    ``run`` takes a job in, ``supply`` gives a module that is in the store or came along, ``keep`` makes it outlive the
    broker.
    """

    def __init__(
        self,
        core: Core,
        run: Callable[[Route, str, Run, float, Called | None, str], None],
        supply: Callable[[str, str, bytes, float], Module],
        keep: Callable[[str, str], None],
    ) -> None:
        self._core = core
        self._run = run
        self._supply = supply
        self._keep = keep
        self.table = Functions()
        self.pending: deque[Pending] = deque()  # in the order of their writes
        self._cost = 0  # of all of them, bytes
        self.handlers: dict[type[Message], Callable[[Route, str, Any, float], None]] = {
            Deploy: self._deploy,
            SetAlias: self._set_alias,
            Undeploy: self._undeploy,
            ListFunctions: self._list,
            Call: self._call,
        }

    # --- changes ---------------------------------------------------------------------------------

    def _deploy(self, route: Route, principal: str, message: Deploy, now: float) -> None:
        core, key, spec = self._core, (principal, message.function), message.spec
        if message.alias:
            check_alias(message.alias)
        if message.shared:
            core.access.check_sharing(principal)
        check_spec(spec)
        before = self.table.get(key)
        after, number = (before or Function()).deploy(spec, message.shared, now + core.promises.wall)
        if message.alias:
            after = after.name(message.alias, number)
        after = after.trim(number)
        self.table.check(key, after, core.access.shares)
        self._expect_room(more=True)
        self._supply(principal, spec.module, message.wasm, now)
        if before is None or number not in before.versions:
            contents = find_all(core.modules, principal, spec)
            core.modules.check_pins(contents)
            pin(core.modules, contents, now)
        if core.promises.durable:
            for digest in (spec.module, *files_of(spec)):
                self._keep(principal, digest)
        self._change(route, key, after, Deployed(message.request, key[1], number, message.alias), now)

    def _set_alias(self, route: Route, principal: str, message: SetAlias, now: float) -> None:
        key, alias = (principal, message.function), message.alias
        function = self.table.own(key)
        named = function.named(alias)
        self._expect_room(more=False)
        if message.drop:
            after, answer = function.unname(alias), Deployed(message.request, key[1], named)
        else:
            if message.version:
                after = function.name(alias, message.version)
            elif message.leaving and message.leaving != named:
                after = function
            else:
                after = function.roll_back(alias)
            answer = Deployed(message.request, key[1], after.named(alias), alias)
        self._change(route, key, after, answer, now)

    def _undeploy(self, route: Route, principal: str, message: Undeploy, now: float) -> None:
        key = (principal, message.function)
        function = self.table.own(key)
        self._expect_room(more=False)
        after = function.without(message.version) if message.version else None
        self._change(route, key, after, Deployed(message.request, key[1], message.version), now)

    def _expect_room(self, *, more: bool) -> None:
        """Raise ``StorageFailed`` where the disk takes no changes, or none that need room; ``Busy`` for too many."""
        promises = self._core.promises
        if promises.durable and (promises.stuck or (more and not promises.accepting)):
            raise StorageFailed()
        if len(self.pending) >= MAX_PENDING or self._cost >= MAX_PENDING_BYTES:
            raise Busy("The broker's disk is slow and too many changes of functions wait for it.")

    def _change(self, route: Route, key: FunctionKey, after: Function | None, reply: Deployed, now: float) -> None:
        """From now on the function is another one, whose new versions are held; say so when that is safe."""
        core, before = self._core, self.table.get(key)
        gone = dropped(before, after)
        self.table.put(key, after)
        number = self._write(key, before, after)
        if not number and self.pending:  # nothing has changed, but what was before may not be safe
            number = self.pending[-1].number
        if number:
            cost = sum(version.cost for version in (*gone, *dropped(after, before)))
            self.pending.append(Pending(number, key, before, after, gone, cost, route, reply))
            self._cost += cost
        else:
            self._let_go(gone, now)
            core.send(route, reply)

    def _write(self, key: FunctionKey, before: Function | None, after: Function | None) -> int:
        """Note a change; returns the number of its write, 0 where nothing is written."""
        number = 0
        for record in records(key, before, after):
            number = self._core.promises.note(record)
        return number

    def _let_go(self, versions: tuple[Version, ...], now: float) -> None:
        for version in versions:
            unpin(self._core.modules, version.spec, now)

    # --- the disk --------------------------------------------------------------------------------

    def durable(self, number: int, now: float) -> None:
        """The writes up to this number are safe."""
        while self.pending and self.pending[0].number <= number:
            change = self.pending.popleft()
            self._cost -= change.cost
            self._let_go(change.gone, now)
            self._core.send(change.route, change.reply)

    def withdraw(self, now: float) -> None:
        """The disk does not take what waits for it: all that is undone, the latest first."""
        while self.pending:
            change = self.pending.pop()
            self._cost -= change.cost
            self.table.put(change.key, change.before)
            self._write(change.key, change.after, change.before)
            self._let_go(dropped(change.after, change.before), now)
            self._core.refuse(change.route, change.reply, StorageFailed())

    def unsaved(self, digest: str, now: float) -> None:
        """The disk has no room for a module or a file. Where a change that waits needs it, none of them is made."""
        for change in self.pending:
            made = dropped(change.after, change.before)
            if any(digest == version.spec.module or digest in files_of(version.spec) for version in made):
                self.withdraw(now)
                return

    def restore(self, found: Recovered, now: float) -> None:
        """Take up what an earlier broker has left. A version whose module or files are gone is gone too."""
        for key, function in restored(found).items():
            kept = []
            for number, version in function.versions.items():
                try:
                    pin(self._core.modules, find_all(self._core.modules, key[0], version.spec), now)
                    kept.append(number)
                except NotFound:
                    continue
            after = function.only(kept)
            self.table.put(key, after)
            if after != function:
                self._write(key, function, after)

    # --- lists and calls -------------------------------------------------------------------------

    def _list(self, route: Route, principal: str, message: ListFunctions, now: float) -> None:
        core, table, name = self._core, self.table, message.function
        owner = core.access.owner(principal, message.principal)
        keys = table.keys_of(owner)
        if not message.principal and owner != EVERYBODY:
            keys = chain(keys, (key for key in table.shared(core.access.shares) if table.get((owner, key[1])) is None))
        found = ((key, table.own(key)) for key in keys if name in ("", key[1]))
        rows = function_rows(found, bool(name), now + core.promises.wall)
        core.send(route, FunctionList(message.request, rows))

    def _call(self, route: Route, principal: str, message: Call, now: float) -> None:
        core, key = self._core, (principal, message.job)
        job, content = core.jobs.get(key), _content(message)
        called, owner = None, ""
        if job is not None:
            if job.called is None or job.called.content != content:
                raise Conflict(f"Another job with the id {message.job!r} and other content exists.")
            spec = job.spec
        elif key in core.forgotten:
            raise Expired()
        else:
            owner, name, version = self.table.find(principal, message.function, core.access.shares)
            spec, called = _spec(version.spec, message), Called(f"{name}@{version.number}", content)
        run = Run(
            message.request,
            message.job,
            spec,
            message.detach,
            message.again,
            message.traceparent,
            stdin=message.stdin,
            values=message.values,
        )
        self._run(route, principal, run, now, called, owner)

    def lender(self, principal: str, job: Job) -> str:
        """Whose the module of a job is, if it is a call of somebody else's function that may still be called."""
        if job.called is None:
            return ""
        try:
            owner, _, version = self.table.find(principal, job.called.function, self._core.access.shares)
        except NotFound:
            return ""
        return owner if (version.spec.module, version.spec.files) == (job.spec.module, job.spec.files) else ""


def _spec(spec: JobSpec, call: Call) -> JobSpec:
    """What a call runs: the version's specification, with what the call says over it."""
    given: dict[str, Any] = {}
    if call.args is not None:
        given["args"] = call.args
    if call.env:
        given["env"] = {**spec.env, **call.env}
    if call.invoke is not None:
        given["invoke"] = call.invoke
    if call.timeout_ms:
        given["timeout_ms"] = call.timeout_ms
    if call.group:
        given["group"] = call.group
    return replace(spec, **given) if given else spec


def _content(call: Call) -> bytes:
    """What a call asks for, but for its input, in a few bytes."""
    args = None if call.args is None else tuple(call.args)
    asked = (call.function, args, sorted(call.env.items()), call.invoke, call.timeout_ms, call.group)
    return hashlib.blake2b(repr(asked).encode(), digest_size=16).digest()
