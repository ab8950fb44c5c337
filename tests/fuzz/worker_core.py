"""A worker's core behind the decoder: whatever a broker says, its state stays sound after each message."""

from __future__ import annotations

from minilambda import messages as m
from minilambda.wire import Malformed, by_name, decode
from minilambda.worker import actions as a
from minilambda.worker import events as e
from tests.fuzz.mutation import Frames, Mutator
from tests.fuzz.pools import WASMS, legible, pools
from tests.unit.worker_driver import Driver, digest_of, outcome


class WorkerFuzz:
    """A worker's core with a broker that says anything, and processes that do as they should, or die."""

    def __init__(self, mutator: Mutator) -> None:
        self.mutator, pick = mutator, mutator.random.choice
        mutator.pools.update(pools())
        self.driver = Driver(
            compiler=pick(["tiered", "cranelift", "winch"]),
            slots=pick([1, 2, 4]),
            compilers=pick([1, 2]),
            modules_per_runner=pick([1, 2, 16]),
            compile_timeout=pick([0.5, 120.0]),
        )
        self.past: list[Frames] = []
        self.accepted = by_name(m.BROKER_MESSAGES)

    def step(self) -> None:
        draw, pick = self.mutator.random.random(), self.mutator.random.choice
        if draw < 0.6:
            self.hear(self.frames())
        elif draw < 0.9:
            pick([self.finish, self.compiled, self.die, self.fetched, self.dispatched, self.dispatched, self.live])()
        elif draw < 0.95:
            self.driver.event(
                e.OutputSeen(self.mutator.random.randrange(len(self.driver.runners) or 1), pick([0, 2**40]))
            )
        else:
            self.driver.advance(pick([0.001, 0.05, 1.0, 10.0]), beats=pick([True, False]))
        self.book()

    def book(self) -> None:
        """What it said can be sent; what it asked for was done by the driver."""
        for message in self.driver.sent:
            legible(message)
        self.driver.sent[:] = [message for message in self.driver.sent if isinstance(message, m.Fetch)][-50:]
        self.driver.done_actions.clear()
        pool, link = self.mutator.pools, self.driver.core.link
        pool["session"] = [link.session] * 6 + [0, 77]
        pool["sequence"] = [link.seen + 1] * 3 + [0, 1, link.seen]
        pool["ref"] = [*self.driver.core.execution.jobs, *self.driver.core.finished][-8:]
        pool["handle"] = [*list(self.driver.core.execution.puller)[-6:], digest_of(WASMS[0]), "nonsense"]
        self.driver.sequence, self.driver.session = min(link.seen, 2**62), link.session

    def frames(self) -> Frames:
        draw, mutator = self.mutator.random.random(), self.mutator
        if draw < 0.1 and self.past:
            return mutator.random.choice(self.past)
        made = mutator.message(mutator.random.choice(list(self.accepted.values())))
        if draw < 0.4:
            made = mutator.frames(made, self.past)
        self.past = [*self.past[-100:], made]
        return made

    def hear(self, frames: Frames) -> None:
        try:
            message = decode(frames, self.accepted, 1 << 30)
        except Malformed:
            return  # as the shell does
        self.driver.hear(message)

    def dispatched(self) -> None:
        """An honest dispatch, now and then."""
        if self.driver.core.link.session and not self.driver.core.draining:
            job = self.mutator.ref()
            stream = self.mutator.random.random() < 0.3
            self.driver.dispatch(m.JobRef(*job), self.mutator.random.choice(WASMS), timeout_ms=50, stream=stream)
        elif not self.driver.core.link.session:
            self.driver.register(self.mutator.random.randrange(1, 1000))

    def fetched(self) -> None:
        for fetch in [message for message in self.driver.sent if isinstance(message, m.Fetch)]:
            self.driver.sent.remove(fetch)
            for wasm in WASMS:
                if fetch.handle == digest_of(wasm) and fetch.session == self.driver.core.link.session:
                    data = wasm[fetch.offset : fetch.offset + fetch.size]
                    self.driver.hear(m.Chunk(fetch.session, fetch.handle, fetch.offset, len(wasm), data))

    def live(self) -> None:
        """Somebody follows or feeds a job that there is, and its guest writes."""
        pick, session = self.mutator.random.choice, self.driver.core.link.session
        held = list(self.driver.core.execution.jobs)
        for runner in self.driver.runners.values():
            runner.stdout += bytes(pick([0, 1, 100_000])) if runner.busy is not None else b""
            runner.room = pick([0, 1, 65_536])
        if held:
            ref, number, more = pick(held), self.mutator.random.randrange(4), pick([0, 1, 5000, 2**48])
            words = [m.Watch(session, ref, number, pick([0, 1]), 0, more), m.Allow(session, ref, number, more)]
            feed = m.Feed(session, ref, number, pick([0, 1, 50]), pick([True, False]), pick([b"", b"y" * 50]))
            self.driver.hear(pick([*words, m.Unwatch(session, ref, number), feed]))

    def finish(self) -> None:
        for slot, runner in self.driver.runners.items():
            if runner.busy is not None:
                size = self.mutator.random.choice((0, 5, 2_000_000))
                code = self.mutator.random.choice((None, "stack_overflow", "trap"))
                self.driver.finish(slot, outcome(bytes(size), code=code), self.mutator.random.random() < 0.1)
                return

    def compiled(self) -> None:
        if self.driver.compiling:
            digest = self.mutator.random.choice(sorted(self.driver.compiling))
            code = self.mutator.random.choice((None, None, "invalid_module", "compile_limit"))
            self.driver.compiler_ended(digest, code, "It failed." if code else "")

    def die(self) -> None:
        if self.driver.runners and self.mutator.random.random() < 0.2:
            self.driver.die(self.mutator.random.choice(sorted(self.driver.runners)))

    def end(self) -> None:
        """It stops when it is told to, whatever the broker has made of it."""
        self.driver.event(a.Drain())
        self.driver.event(a.Drain())
        assert self.driver.exited
