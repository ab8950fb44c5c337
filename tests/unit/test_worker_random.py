"""A worker's core under random events in any order: it never raises, and each job that it accepts ends once."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from minilambda import messages as m
from minilambda.worker import actions as a
from minilambda.worker import events as e
from minilambda.worker.jobs import Job
from minilambda.worker.live import PIECE
from tests.unit.worker_driver import Driver, digest_of, outcome, ref, wasm_of

SEEDS = int(os.environ.get("SEEDS", "60"))
FIRST = int(os.environ.get("SEED", "1"))
STEPS = 250

MODULES = [wasm_of("small"), wasm_of("other"), wasm_of("large", 700_000), wasm_of("larger", 1_500_000)]
STDIN = bytes(300_000)
FILES = [b"small file", bytes(20_000), bytes(700_000), MODULES[2]]


class Followed:
    """What one follower may hear next."""

    def __init__(self, session: int, ref: m.JobRef, credit: int, offset: int) -> None:
        self.session, self.ref, self.credit = session, ref, credit
        self.places = {"stdout": offset, "stderr": 0}
        self.caught_up = False

    def hear(self, piece: m.Written) -> None:
        assert (piece.session, piece.ref, piece.offset) == (self.session, self.ref, self.places[piece.stream])
        assert len(piece.data) <= min(PIECE, self.credit) and (piece.data or not self.caught_up)
        self.caught_up |= not piece.data
        self.credit -= len(piece.data)
        self.places[piece.stream] += len(piece.data)


class Chaos:
    """One run: a broker and processes that do anything, honest or not, and the book of what became of each job."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        choice = self.random.choice
        self.driver = Driver(
            jitter=self.random.random(),
            compiler=choice(["tiered", "tiered", "cranelift", "winch"]),
            slots=choice([1, 2, 4]),
            compilers=choice([1, 2]),
            modules_per_runner=choice([1, 2, 16]),
            compile_timeout=choice([0.5, 120.0]),
            grace=choice([0.0, 5.0]),
        )
        self.driver.auto = set()
        self.accepted: set[m.JobRef] = set()
        self.ends: dict[m.JobRef, str] = {}
        self.bodies: dict[str, bytes] = {digest_of(wasm): wasm for wasm in [*MODULES, *FILES]}
        self.fetches: list[m.Fetch] = []
        self.sessions = 0
        self.followers: list[Followed] = []  # by their numbers
        self.feeds = 0

    # --- the book ---

    def read(self) -> None:
        """Enters what the worker said since the last call."""
        for message in self.driver.sent:
            if isinstance(message, m.Done):
                assert message.ref in self.accepted, f"never accepted: {message.ref}"
                assert self.ends.get(message.ref, "done") == "done", f"{message.ref} was {self.ends[message.ref]}"
                self.ends[message.ref] = "done"
            elif isinstance(message, m.Returned) and not message.begun and message.ref in self.accepted:
                assert message.ref not in self.driver.core.execution.jobs
                self.ends.setdefault(message.ref, "returned")
                assert self.ends[message.ref] != "done" or message.ref not in self.driver.core.finished
            elif isinstance(message, m.Fetch):
                self.fetches.append(message)
            elif isinstance(message, m.Written):
                self.followers[message.follower].hear(message)
        self.driver.sent.clear()
        self.driver.done_actions.clear()

    @property
    def held(self) -> dict[m.JobRef, Job]:
        return self.driver.core.execution.jobs

    def any_ref(self) -> m.JobRef:
        return self.random.choice([*sorted(self.accepted, key=repr), ref("unknown")])

    # --- the broker ---

    def register(self) -> None:
        self.sessions += 1
        self.fetches.clear()
        self.driver.register(self.sessions)

    def register_again(self) -> None:
        self.driver.hear(m.RegisterAgain())

    def dispatch(self) -> None:
        driver, choice = self.driver, self.random.choice
        if not driver.core.link.session:
            return
        job = ref(f"job-{self.random.randrange(200)}", self.random.randint(1, 3), choice(["ann", "bob"]))
        if job in self.accepted and self.random.random() < 0.9:
            return
        withheld = {"stdin": len(STDIN)} if self.random.random() < 0.3 else {}
        if withheld:
            self.bodies[m.body_handle(job, "stdin")] = STDIN
        new = job not in self.accepted and not driver.core.draining
        if new:
            self.accepted.add(job)
        elif job not in self.held and job not in driver.core.finished:
            return  # an honest broker does not send an attempt anew that came back
        spec: dict[str, object] = {"timeout_ms": choice([0, 50]), "stream": self.random.random() < 0.3}
        if self.random.random() < 0.3:
            some = self.random.sample(FILES, self.random.randrange(3))
            spec |= {"files": {f"/{number}": digest_of(data) for number, data in enumerate(some)}, "scratch": 65_536}
        driver.dispatch(job, choice(MODULES), self.random.random() < 0.5, withheld, **spec)

    def recall(self) -> None:
        self.driver.hear(m.Recall(self.driver.session, self.any_ref()))

    def stop(self) -> None:
        self.driver.hear(m.Stop(self.driver.session, self.any_ref()))

    def acknowledge(self) -> None:
        job = self.any_ref()
        if job in self.held and self.driver.core.link.session == self.driver.session:
            self.ends[job] = "stale"
        self.driver.acknowledge(job)

    def piece(self) -> None:
        """A piece that was asked for, honest or not."""
        if not self.fetches:
            return
        fetch = self.fetches.pop(0)
        body = self.bodies[fetch.handle]
        data, total = body[fetch.offset : fetch.offset + fetch.size], len(body)
        lie = self.random.random()
        if lie < 0.03:
            data, total = b"", 0
        elif lie < 0.06:
            data = data[:-1]
        elif lie < 0.09:
            data = data[:-1] + b"!"
        self.driver.hear(m.Chunk(self.driver.session, fetch.handle, fetch.offset, total, data))

    def follow(self) -> None:
        pick, session = self.random.choice, self.driver.session
        if self.followers and self.random.random() < 0.5:
            number, credit = self.random.randrange(len(self.followers)), pick([0, 1, 100_000])
            known = self.followers[number]
            if session == known.session == self.driver.core.link.session and known.ref in self.held:
                known.credit += credit
            self.driver.hear(pick([m.Allow(session, known.ref, number, credit), m.Unwatch(session, known.ref, number)]))
            return
        new = Followed(session, pick([self.any_ref(), *self.held]), pick([0, 1, 70_000, 10**6]), pick([0, 0, 3]))
        self.followers.append(new)
        watch = m.Watch(session, new.ref, len(self.followers) - 1, new.places["stdout"], 0, new.credit)
        self.driver.hear(watch)

    def feed(self) -> None:
        pick = self.random.choice
        self.feeds += 1
        data, ends = bytes(pick([0, 0, 5, 200_000])), self.random.random() < 0.2
        ref = pick([self.any_ref(), *self.held])
        self.driver.hear(m.Feed(self.driver.session, ref, self.feeds, pick([0, 0, 5, 10, 200_000]), ends, data))

    def write(self) -> None:
        """The guests write, and read some of their input."""
        for runner in self.driver.runners.values():
            if runner.busy is not None:
                runner.stdout += bytes(self.random.choice([0, 1, 100_000]))
                runner.stderr += bytes(self.random.choice([0, 1]))
                runner.room = self.random.choice([0, 10, 65_536])

    def oddity(self) -> None:
        session = self.random.choice([0, self.driver.session, 77])
        handle = self.random.choice([*self.bodies, "nonsense"])
        offset = self.random.choice([0, 1, 262_144, 2**48])
        self.driver.hear(
            self.random.choice(
                [
                    m.Chunk(session, handle, offset, self.random.choice([0, 5, 700_000]), b"x"),
                    m.Fetch(session, handle, offset, 2**48),
                    m.Beat(session),
                    m.Registered("somebody", 99, 0, 0, 0),
                    m.Registered("worker-id", 0, 0, 0, 0),
                    m.Stop(session, ref("unknown")),
                ]
            )
        )

    # --- processes ---

    def ready(self) -> None:
        for slot, runner in self.driver.runners.items():
            if not runner.ready:
                self.driver.ready(slot)
                return

    def finish(self) -> None:
        for slot, runner in self.driver.runners.items():
            if runner.busy is not None:
                code = self.random.choice([None, None, None, "stack_overflow"])
                how = outcome(bytes(self.random.choice([0, 5, 2_000_000])), code=code)
                self.driver.finish(slot, how, bad_artifact=self.random.random() < 0.1)
                return

    def die(self) -> None:
        dying = [slot for slot, runner in self.driver.runners.items() if runner.dying]
        living = sorted(self.driver.runners) if self.random.random() < 0.1 else []
        if dying or living:
            self.driver.die(self.random.choice(dying or living))

    def seen(self) -> None:
        slot = self.random.randrange(self.driver.settings.slots)
        self.driver.event(e.OutputSeen(slot, self.random.choice([0, 0, 0, 2**40])))

    def compiled(self) -> None:
        if self.driver.compiling:
            digest = self.random.choice(sorted(self.driver.compiling))
            code = self.random.choice([None, None, None, "invalid_module", "compile_limit"])
            self.driver.compiled(self.bodies[digest], code, "It failed." if code else "")

    def look(self) -> None:
        if self.driver.finds:
            self.driver.answer_find()

    def look_for_files(self) -> None:
        if self.driver.files.looks:
            self.driver.event(self.driver.files.look())
        elif self.random.random() < 0.1:  # the disk loses a file
            self.driver.files.vanishing = {digest_of(self.random.choice(FILES))}

    def lock(self) -> None:
        digest = digest_of(self.random.choice(MODULES))
        if all(digest != locked for locked, _ in self.driver.locks):
            self.driver.foreign_locks ^= {digest}

    def wait(self) -> None:
        self.driver.advance(self.random.choice([0.001, 0.03, 0.2, 3.0]))

    def steps(self) -> list[Callable[[], None]]:
        broker = [*[self.dispatch] * 6, *[self.piece] * 6, self.recall, self.stop, self.acknowledge, self.oddity]
        processes = [self.ready, self.ready, *[self.finish] * 3, self.die, self.seen, *[self.compiled] * 2, self.lock]
        live = [self.follow, self.follow, self.feed, self.feed, self.write, self.write]
        return [*broker, *processes, *live, *[self.look] * 6, *[self.look_for_files] * 3, self.wait, self.wait]

    def run(self) -> None:
        steps = self.steps()
        self.register()
        for _ in range(STEPS):
            fate = self.random.random()
            if fate < 0.02:
                self.register_again()
            elif self.driver.core.link.session == 0 and fate < 0.3:
                self.register()
            else:
                self.random.choice(steps)()
            self.read()

    def calm_down(self) -> None:
        """The broker and the processes do their duty until nothing is left to do."""
        driver = self.driver
        driver.foreign_locks.clear()
        for _ in range(2_000):
            if not driver.core.link.session:
                self.register()
            self.read()
            busy = [slot for slot, runner in driver.runners.items() if runner.busy is not None and not runner.dying]
            dying = [slot for slot, runner in driver.runners.items() if runner.dying]
            if driver.finds:
                self.look()
            elif driver.files.looks:
                self.look_for_files()
            elif self.fetches:
                fetch = self.fetches.pop(0)
                body = self.bodies[fetch.handle]
                data = body[fetch.offset : fetch.offset + fetch.size]
                driver.hear(m.Chunk(driver.session, fetch.handle, fetch.offset, len(body), data))
            elif driver.compiling:
                driver.compiled(self.bodies[min(driver.compiling)])
            elif dying:
                driver.die(dying[0])
            elif busy:
                driver.finish(busy[0])
            elif any(not runner.ready for runner in driver.runners.values()):
                self.ready()
            elif driver.core.finished:
                for job in list(driver.core.finished):
                    driver.acknowledge(job)
            elif not self.held and driver.core.execution.modules.next_deadline() is None:
                break
            else:
                driver.advance(0.5)
        self.read()


@pytest.mark.parametrize("block", range(3))
def test_each_accepted_job_ends_exactly_once_whatever_happens(block: int) -> None:
    for seed in range(FIRST + block, FIRST + SEEDS, 3):
        chaos = Chaos(seed)
        try:
            chaos.run()
            chaos.calm_down()
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        assert not chaos.held, f"seed {seed}: stuck: {chaos.held}"
        assert chaos.accepted == chaos.ends.keys(), f"seed {seed}: without an end: {chaos.accepted - chaos.ends.keys()}"
        left = (chaos.driver.wasm, chaos.driver.locks, chaos.driver.files.coming)
        assert not any(left), f"seed {seed}: something is left over"


def test_a_worker_that_drains_in_the_middle_of_anything_exits() -> None:
    for seed in range(FIRST, FIRST + SEEDS):
        chaos = Chaos(seed)
        chaos.run()
        chaos.driver.event(a.Drain())
        chaos.driver.advance(chaos.driver.settings.grace + 0.1)
        assert chaos.driver.exited, f"seed {seed}"
