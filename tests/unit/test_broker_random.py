"""Clients and workers that say anything at all: the broker's state stays sound, and every job ends once."""

from __future__ import annotations

import random

import pytest

from minilambda.broker.authority import EVERYBODY
from minilambda.broker.events import DiskFailing, DiskWorks, ModuleUnsaved, Paused, Received, Unreachable
from minilambda.broker.functions import Function, FunctionKey
from minilambda.messages import (
    TERMINAL,
    Call,
    Cancel,
    Chunk,
    Credit,
    Deploy,
    Done,
    ErrorInfo,
    Fed,
    Feed,
    Fetch,
    Follow,
    GetResult,
    GetStatus,
    Goodbye,
    Hello,
    Input,
    JobRef,
    JobSpec,
    ListFunctions,
    ListModules,
    ListWorkers,
    Message,
    Put,
    Register,
    Report,
    Result,
    Returned,
    Run,
    SetAlias,
    Undeploy,
    Unfollow,
    Usage,
    Watch,
    Written,
    body_handle,
)
from tests.broker_world import Agent, World, digest_of

MODULES = [b"\0asm one", b"\0asm two", b"\0asm" + bytes(3000)]
RESULTS = [
    Result("completed", 0, usage=Usage(run_ms=0.1)),
    Result("completed", 0, usage=Usage(run_ms=700.0, load_ms=1.0)),
    Result("failed", error=ErrorInfo("trap", "x")),
    Result("running"),
    Result("cancelled"),
]


class Chaos:
    """Draws events from one seed."""

    def __init__(self, seed: int, durable: bool = False) -> None:
        self.random = random.Random(seed)
        self.requests = 0
        self.world = World(
            durable=durable,
            prefetch=self.random.choice([0, 1, 2]),
            prefetch_time=self.random.choice([0.0001, 0.005, 1.0]),
            max_queued=self.random.choice([3, 100]),
            results_bytes=self.random.choice([8_000, 10**9]),
            store_bytes=self.random.choice([12_000, 10**9]),
            inline_bytes=self.random.choice([1, 100, 10_000]),
            window_bytes=self.random.choice([1, 10**6]),
            recall_after=0.01,
            result_ttl=self.random.choice([1.0, 300.0]),
        )
        self.agents = [self.world.worker(f"w{n}", self.random.choice([1, 2])) for n in range(3)]

    def step(self) -> None:
        draw = self.random.random()
        if draw < 0.35:
            self.world.give(self.random.choice("abc"), self.request(), self.random.choice(["ann", "bob"]))
        elif draw < 0.6:
            self.honest()
        elif draw < 0.85:
            peer = self.random.choice(self.agents).peer.encode()
            self.world.step(Received((peer, b""), "local", self.nonsense()))
        elif draw < 0.87:
            self.world.step(Unreachable((self.random.choice(self.agents).peer.encode(), b""), self.nonsense()))
        elif draw < 0.88:
            self.world.step(Paused())
        else:
            self.world.wait(self.random.choice([0.001, 0.02, 0.5, 3.0]))

    def disk(self) -> None:
        """The disk takes what it takes, fails and recovers, and the broker dies now and then."""
        draw, world = self.random.random(), self.world
        if draw < 0.5:
            world.sync(self.random.randrange(len(world.writes) + 1))
        elif draw < 0.52:
            world.step(DiskFailing(self.random.choice([True, False])))
        elif draw < 0.56:
            world.step(DiskWorks())
        elif draw < 0.57:
            world.step(ModuleUnsaved(digest_of(self.random.choice(MODULES))))
        elif draw < 0.58:
            world.crash(self.random.choice([0.1, 3.0]), self.random.choice([0.0, -1000.0, 1000.0]))

    def request(self) -> Message:
        self.requests += 1
        number, pick = self.requests, self.random.choice
        job, module = f"j{self.random.randrange(8)}", pick(MODULES)
        spec = JobSpec(
            digest_of(module),
            group=pick(["", "g"]),
            priority=pick([0, 1]),
            retries=pick([0, 5]),
            queue_timeout_ms=pick([0, 0, 100]),
            if_no_workers=pick(["wait", "wait", "fail"]),
            stream=pick([True, False]),
        )
        offsets = {"attempt": pick([0, 1, 2]), "stdout": pick([0, 0, 2, 9]), "stderr": pick([0, 1])}
        return pick(
            [
                Follow(pick([number, number - 1]), job, pick([0, 1, 3, 2**48]), **offsets),
                Follow(number, job, 2**40),
                Credit(number - self.random.randrange(20), pick([1, 2, 2**48])),
                Unfollow(number - self.random.randrange(20)),
                Input(number, job, pick([0, 0, 1, 5]), pick([True, False]), pick([b"", b"x", b"12345"])),
                Run(number, job, spec, pick([True, False]), wasm=module, stdin=pick([b"", b"x" * 50])),
                Run(number, job, spec),
                GetStatus(number, job),
                GetResult(number, job, pick([0, 10, 5000])),
                Cancel(number, job),
                Put(number, digest_of(module), len(module), pick([0, 4]), pick([b"", module[:4], module[4:], b"evil"])),
                Deploy(number, pick("fg"), spec, pick(["", "live", "a"]), pick([True, False]), pick([b"", module])),
                SetAlias(number, pick("fg"), pick(["live", "a"]), pick([0, 0, 1, 2, 9]), drop=pick([0, 0, 1]) == 1),
                Undeploy(number, pick("fg"), pick([0, 1, 2, 3])),
                Call(number, job, pick(["f", "g", "f@1", "g@a"]), detach=pick([True, False]), again=pick([0, 1]) == 1),
                ListFunctions(number, pick(["", "f"])),
                Hello(number),
                ListModules(number),
                ListWorkers(number),
            ]
        )

    def functions(self) -> dict[FunctionKey, Function]:
        """All that the broker has."""
        table = self.world.core.functions.table
        return {key: table.own(key) for key in table.keys_of(EVERYBODY)}

    def ref(self) -> JobRef:
        known = [ref for agent in self.agents for ref in agent.jobs]
        guess = JobRef(self.random.choice(["ann", "bob"]), f"j{self.random.randrange(8)}", self.random.randrange(1, 4))
        return self.random.choice([*known, guess])

    def nonsense(self) -> Message:
        pick = self.random.choice
        session, queue, seen = (
            pick([agent.session for agent in self.agents] + [0]),
            pick([0, 1, 2, 99]),
            pick([0, 1, 5]),
        )
        ref = self.ref()
        handle = body_handle(ref, pick(["stdin", "stdout", "value"]))
        about, stream, data = self.random.randrange(1, 30), pick(["stdout", "stderr"]), pick([b"", b"o", b"ou", b"out"])
        return pick(
            [
                Report(session, queue, seen, pick([True, False]), (ref,)),
                Done(session, ref, queue, seen, pick(RESULTS), pick([{}, {"stdout": 5}, {"x": 1}])),
                Returned(session, ref, queue, seen, pick([True, False])),
                Register(pick(["w0", "w1", "x"]), "n", 1, held=(ref, self.ref()), finished=(self.ref(),)),
                Goodbye(session),
                Written(session, ref, about, stream, pick([0, 0, 1, 2]), data),
                Fed(session, ref, about, pick([0, 1, 5])),
                Fetch(session, pick([handle, digest_of(pick(MODULES))]), pick([0, 3, 9999]), pick([0, 5])),
                Chunk(session, handle, pick([0, 5]), pick([0, 5]), pick([b"", b"12345"])),
            ]
        )

    def honest(self) -> None:
        agent = self.random.choice(self.agents)
        self.answer(agent)
        known = self.world.core.workers.sessions.get(agent.session)
        if known is None or known.route[0] != agent.peer.encode():
            agent.register(held=tuple(agent.jobs))
        elif agent.jobs and self.random.random() < 0.8:
            ref = self.random.choice(list(agent.jobs))
            dispatch = agent.jobs.pop(ref)
            assert dispatch.session <= agent.session
            agent.give(
                Done(agent.session, ref, len(agent.jobs), agent.seen, self.random.choice(RESULTS), stdout=b"out")
            )
        else:
            agent.report(*agent.jobs)

    def answer(self, agent: Agent) -> None:
        """A worker tells its followers something, and takes input."""
        for message in agent.look():
            if isinstance(message, Watch) and message.session == agent.session and message.credit > 1:
                agent.give(Written(agent.session, message.ref, message.follower, "stdout", message.stdout, b"o"))
            elif isinstance(message, Feed) and message.session == agent.session:
                taken = message.offset + len(message.data)
                agent.give(Fed(agent.session, message.ref, message.number, self.random.choice([taken, 0])))

    def finish(self) -> None:
        """From now on nobody lies, nobody asks for more, and the disk works."""
        self.world.step(DiskWorks())
        for agent in self.agents:
            self.world.wait(0.001)
            agent.report()  # with what has arrived; else the broker would take the next word for an impatient one
            agent.jobs.clear()
            agent.register()
        for _ in range(400):
            self.world.sync()
            for agent in self.agents:
                if agent.look() and not agent.jobs:
                    agent.report()
                for ref in list(agent.jobs):
                    del agent.jobs[ref]
                    agent.give(Done(agent.session, ref, len(agent.jobs), agent.seen, RESULTS[0]))
                agent.report()
            self.world.wait(0.1)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_peers_say_the_state_is_sound_and_every_job_ends(seed: int) -> None:
    chaos = Chaos(seed)
    for _ in range(150):
        chaos.step()
    chaos.finish()
    core = chaos.world.core
    assert [job.tell("it has not ended") for job in core.jobs.values() if job.state not in TERMINAL] == []
    assert (len(core.queue), core.recalls, core.input_bytes) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_peers_and_the_disk_do_the_state_is_sound_and_every_job_ends(seed: int) -> None:
    chaos = Chaos(seed, durable=True)
    for _ in range(150):
        chaos.step()
        chaos.disk()
    chaos.finish()
    core = chaos.world.core
    assert [job.tell("it has not ended") for job in core.jobs.values() if job.state not in TERMINAL] == []
    assert (len(core.queue), core.recalls, core.input_bytes) == (0, 0, 0)
    assert core.promises.held == 0 and core.promises.fresh() == [] and not core.functions.pending
    kept = {job.key: job.called for job in core.jobs.values() if job.journaled}
    functions = chaos.functions()
    chaos.world.sync()
    chaos.world.crash()
    assert {job.key: job.called for job in chaos.world.core.jobs.values()} == kept
    assert chaos.functions() == functions
