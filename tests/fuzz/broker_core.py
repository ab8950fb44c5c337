"""A broker's core behind the decoder: whatever arrives from whomever, its state stays sound after each message."""

from __future__ import annotations

from typing import Any

from minilambda import messages as m
from minilambda.broker.events import (
    DiskFailing,
    DiskWorks,
    Event,
    ModuleUnsaved,
    Paused,
    Received,
    Rejected,
    Send,
    Unreachable,
)
from minilambda.settings import BrokerSettings
from minilambda.wire import Malformed, decode, encode
from tests.broker_world import Agent, World
from tests.fuzz.decoder import SIDES
from tests.fuzz.mutation import Frames, Mutator
from tests.fuzz.pools import WASMS, legible, pools
from tests.unit.worker_driver import digest_of

MAX_REQUEST = BrokerSettings().max_request_bytes


class BrokerFuzz:
    """A broker's core with random peers: three honest workers among them, to be lied about."""

    def __init__(self, mutator: Mutator, durable: bool) -> None:
        self.mutator, pick = mutator, mutator.random.choice
        mutator.pools.update(pools())
        self.world = FuzzedWorld(
            durable=durable,
            prefetch=pick([0, 2]),
            max_queued=pick([3, 1000]),
            results_bytes=pick([8_000, 10**9]),
            store_bytes=pick([12_000, 10**9]),
            inline_bytes=pick([1, 100, 10**6]),
            result_ttl=pick([1.0, 300.0]),
        )
        self.agents = [Slandered(self.world, f"w{number}", pick([1, 2])) for number in range(3)]
        self.past: list[Frames] = []  # what was sent before, to be sent again

    def step(self) -> None:
        draw, pick, world = self.mutator.random.random(), self.mutator.random.choice, self.world
        if draw < 0.3:
            self.say(pick("abc012"), pick(["local", "local", "ann"]), self.frames())
        elif draw < 0.5:
            self.say(pick("abc"), pick(["local", "local", "ann"]), self.bent(self.request()))
        elif draw < 0.65:
            agent = pick(self.agents)
            self.say(agent.name[1:], "local", self.bent(self.report(agent)))
        elif draw < 0.83:
            self.honest()
        elif draw < 0.85:
            world.step(Paused())
        elif draw < 0.92:
            world.wait(pick([0.001, 0.02, 0.5, 6.0]))
        elif world.core.promises.durable:
            self.disk(draw)

    def frames(self) -> Frames:
        draw, mutator = self.mutator.random.random(), self.mutator
        if draw < 0.15 and self.past:
            return mutator.random.choice(self.past)  # replayed
        made = mutator.message(mutator.random.choice(list(SIDES[0].values())))
        if draw < 0.5:
            made = mutator.frames(made, self.past)
        if len(self.past) < 200:
            self.past.append(made)
        else:
            self.past[mutator.random.randrange(200)] = made
        return made

    def bent(self, message: m.Message) -> Frames:
        """A message that is right, or nearly so."""
        frames = [bytes(frame) for frame in encode(message)]
        return frames if self.mutator.random.random() < 0.5 else self.mutator.frames(frames)

    def request(self) -> m.Message:
        pick, wasm = self.mutator.random.choice, self.mutator.random.choice(WASMS)
        number, job = self.mutator.random.randrange(1, 100), f"j{self.mutator.random.randrange(6)}"
        spec = m.JobSpec(
            digest_of(wasm), retries=pick([0, 2, 5]), queue_timeout_ms=pick([0, 0, 100]), stream=pick([True, False])
        )
        run = m.Run(number, job, spec, pick([True, False]), wasm=wasm, stdin=pick([b"", b"x" * 50]))
        others = [m.Cancel(number, job), m.GetResult(number, job, pick([0, 1000])), m.RunAgain(number, job, "j0")]
        live: list[m.Message] = [
            m.Follow(number, job, pick([0, 1, 5000, 2**48]), pick([0, 1, 2]), pick([0, 0, 1, 50]), pick([0, 1])),
            m.Credit(number, pick([0, 1, 2**48])),
            m.Unfollow(number),
            m.Input(number, job, pick([0, 0, 1, 50]), pick([True, False]), pick([b"", b"x", b"y" * 50])),
        ]
        return pick([run, run, *others, *live, m.Put(number, digest_of(wasm), len(wasm), 0, wasm)])

    def report(self, agent: Agent) -> m.Message:
        """What a worker might say of a job that it has, or had."""
        pick, ref = self.mutator.random.choice, m.JobRef(*self.mutator.ref())
        ref = pick([*agent.jobs, ref])
        about = (agent.session, ref, pick([0, 1, len(agent.jobs)]), agent.seen)
        withheld = pick([{}, {"stdout": 50}, {"stdout": 5, "value": 50}, {"stdout": 2**40}])
        return pick(
            [
                m.Done(*about, m.Result(pick(["completed", "failed", "running"]), 0), withheld),
                m.Returned(*about, pick([True, False])),
                m.Report(agent.session, about[2], agent.seen, pick([True, False, False]), (ref,)),
                m.Chunk(agent.session, m.body_handle(ref, "stdout"), 0, 50, b"y" * 50),
                m.Fetch(agent.session, pick([m.body_handle(ref, "stdin"), *map(digest_of, WASMS)]), 0, 2**18),
                m.Register(
                    agent.name,
                    agent.name,
                    2,
                    held=(ref,),
                    finished=(m.JobRef(*self.mutator.ref()),),
                    artifacts=(digest_of(pick(WASMS)),),
                ),
                m.Goodbye(agent.session),
                m.Written(agent.session, ref, *self.piece(), pick([b"", b"y", b"y" * 50])),
                m.Fed(agent.session, ref, self.mutator.random.randrange(1, 60), pick([0, 1, 50])),
            ]
        )

    def piece(self) -> tuple[int, str, int]:
        """For whom, of which stream, and where in it; mostly as a follower has it."""
        pick, streams = self.mutator.random.choice, self.world.core.streams
        known = [each for live in streams.jobs.values() for each in live.followers if each.number]
        stream = pick(["stdout", "stderr"])
        if not known or self.mutator.random.random() < 0.2:
            return self.mutator.random.randrange(1, 60), stream, pick([0, 1, 50])
        follower = pick(known)
        return follower.number, stream, follower.offset(stream)

    def say(self, peer: str, principal: str, frames: Frames) -> None:
        """As the shell does: what is no message is rejected."""
        route = (f"w{peer}" if peer.isdigit() else peer).encode(), b""
        try:
            message = decode(frames, SIDES[0], MAX_REQUEST)
        except Malformed as error:
            self.world.step(Rejected(route, error))
            return
        self.learn(message)
        self.world.step(Received(route, principal, message))
        if self.mutator.random.random() < 0.02:
            self.world.step(Unreachable(route, message))

    def learn(self, message: m.Message) -> None:
        """What the broker has now can be named from now on."""
        core, pool = self.world.core, self.mutator.pools
        pool["session"] = [0, 1, *core.workers.sessions][-8:]
        pool["ref"] = [job.ref for job in list(core.jobs.values())[-8:] if job.attempt] or []
        if isinstance(message, m.Done):
            pool["handle"] = [*pool["handle"][:7], *(m.body_handle(message.ref, name) for name in ("stdout", "value"))]

    def honest(self) -> None:
        agent = self.mutator.random.choice(self.agents)
        agent.look()
        known = self.world.core.workers.sessions.get(agent.session)
        if known is None or known.route[0] != agent.peer.encode():
            agent.register(held=tuple(agent.jobs))
        elif agent.jobs:
            ref = self.mutator.random.choice(list(agent.jobs))
            del agent.jobs[ref]
            agent.give(m.Done(agent.session, ref, len(agent.jobs), agent.seen, m.Result("completed", 0), stdout=b"o"))
        else:
            agent.report()

    def disk(self, draw: float) -> None:
        world, pick = self.world, self.mutator.random.choice
        if draw < 0.98:
            world.sync(self.mutator.random.randrange(len(world.writes) + 1))
        else:
            world.step(pick([DiskFailing(True), DiskFailing(False), DiskWorks(), ModuleUnsaved(digest_of(WASMS[0]))]))

    def finish(self) -> None:
        """A client that comes last is served."""
        self.world.step(DiskWorks())
        self.world.sync()
        self.world.ask("late", m.Hello(1), m.Welcome)
        self.world.ask("late", m.ListWorkers(2), m.WorkerList)
        self.world.wait(60.0)


class Slandered(Agent):
    """An honest worker on whose connection somebody else speaks too, so that not every answer is to its own words."""

    def register(self, held: tuple[m.JobRef, ...] = (), **_: Any) -> list[m.Message]:
        past = {"ended": self.session, "seen": self.seen}
        return self._hear(self.world.give(self.peer, m.Register(self.name, self.name, self.slots, held=held, **past)))

    def _hear(self, messages: list[m.Message]) -> list[m.Message]:
        for message in messages:
            if isinstance(message, m.Registered):
                self.session, self.seen = message.session, 0
            elif isinstance(message, m.Dispatch) and message.session == self.session:
                self.seen = message.sequence
                self.jobs[message.ref] = message
        return messages


class FuzzedWorld(World):
    """A world in which every word of the core is put on the wire and read again."""

    def step(self, event: Event) -> None:
        if isinstance(event, Received) and not isinstance(event.message, m.Request):
            self.open[event.route[0].decode(), 0] += 1  # what can't be answered may be refused
        super().step(event)

    def _carry_out(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, Send):
                legible(action.message)
        super()._carry_out(actions)
