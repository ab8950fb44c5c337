"""Bodies that travel in pieces: modules and inputs to workers, results from them."""

from __future__ import annotations

import pytest

from minilambda.broker.events import ModuleSlice
from minilambda.broker.modules import OVERHEAD
from minilambda.fields import MAX_FRAME
from minilambda.messages import (
    Acknowledge,
    Cancel,
    Chunk,
    Dispatch,
    Fetch,
    GetStatus,
    JobRef,
    JobResult,
    JobSpec,
    JobStatus,
    Message,
    Run,
    body_handle,
)
from tests.broker_world import DIGEST, WASM, Agent, World, digest_of

LARGE = bytes(range(256)) * 4096  # 1 MiB
KIB = 1024


def part_of(world: World, message: Message) -> ModuleSlice:
    return world.slices[id(message)]


def sized(number: int, size: int) -> bytes:
    return b"%08d" % number + bytes(size - 8)


# --- modules to workers ------------------------------------------------------------------------------


def test_a_small_module_rides_along_once_in_a_session() -> None:
    world = World()
    agent = world.worker("w", 4)
    for number in (1, 2):
        world.run(f"j{number}", f"c{number}")
    first, second = (message for message in agent.look() if type(message) is Dispatch)
    assert part_of(world, first) == ModuleSlice("wasm", DIGEST, 0, len(WASM))
    assert id(second) not in world.slices
    assert (first.module_size, second.module_size) == (len(WASM), len(WASM))
    agent.register(held=tuple(agent.jobs))
    world.run("j3", "c3")
    (third,) = (message for message in agent.look() if type(message) is Dispatch)
    assert part_of(world, third).digest == DIGEST


def test_a_module_that_left_the_store_rides_along_again() -> None:
    world = World(store_bytes=OVERHEAD + 100)
    agent = world.worker("w", 4)
    for turn, number in enumerate((1, 2, 1)):
        world.run(f"j{turn}", wasm=sized(number, 100), detach=True)
        (message,) = (message for message in agent.look() if type(message) is Dispatch)
        assert part_of(world, message).digest == digest_of(sized(number, 100))
        agent.done(f"j{turn}")


def dispatched(agent: Agent) -> list[Dispatch]:
    return [message for message in agent.look() if type(message) is Dispatch]


def test_a_module_that_a_worker_has_by_its_word_does_not_ride_along() -> None:
    world = World()
    agent = world.worker("w", 2, artifacts=(digest_of(b"other"), DIGEST))
    world.run("j")
    (message,) = dispatched(agent)
    assert id(message) not in world.slices
    world.run("k", "c", wasm=sized(1, 100))
    (message,) = dispatched(agent)
    assert part_of(world, message).digest == digest_of(sized(1, 100))


def test_a_worker_that_lies_about_what_it_has_asks_for_it_as_usual() -> None:
    world = World()
    agent = world.worker("w", artifacts=(DIGEST,))
    world.run("j")
    (message,) = dispatched(agent)
    (chunk,) = agent.give(Fetch(agent.session, DIGEST, 0, message.module_size))
    assert part_of(world, chunk) == ModuleSlice("data", DIGEST, 0, len(WASM))


def test_what_a_worker_has_brings_it_no_job_before_one_that_has_run_the_module() -> None:
    world = World()
    old = world.worker("old")
    world.run("j")
    old.look()
    old.done("j")
    new = world.worker("new", artifacts=(DIGEST,))
    for number in range(3):
        world.run(f"j{number}", f"c{number}")
        assert len(dispatched(old)) == 1 and dispatched(new) == []
        old.done(f"j{number}")


def test_what_a_worker_has_says_nothing_about_other_workers_or_its_next_session() -> None:
    world = World()
    agent = world.worker("w", artifacts=(DIGEST,))
    agent.artifacts = ()
    agent.register()
    world.run("j")
    (message,) = dispatched(agent)
    assert part_of(world, message).digest == DIGEST


def large_job(world: World) -> Agent:
    agent = world.worker("w")
    world.run("j", wasm=LARGE)
    (message,) = agent.look()
    assert id(message) not in world.slices
    return agent


def test_a_large_module_is_fetched_in_pieces() -> None:
    world = World()
    agent = large_job(world)
    handle, total = digest_of(LARGE), len(LARGE)
    for offset, asked, size in ((0, MAX_FRAME, MAX_FRAME), (5, 7, 7), (total - 3, 10**9, 3), (0, 10**9, MAX_FRAME)):
        (chunk,) = agent.give(Fetch(agent.session, handle, offset, asked))
        assert chunk == Chunk(agent.session, handle, offset, total)
        assert part_of(world, chunk) == ModuleSlice("data", handle, offset, size)


@pytest.mark.parametrize("offset", [len(LARGE), 10**12])
def test_behind_the_end_of_a_module_there_is_nothing(offset: int) -> None:
    world = World()
    agent = large_job(world)
    (chunk,) = agent.give(Fetch(agent.session, digest_of(LARGE), offset, 10))
    assert chunk == Chunk(agent.session, digest_of(LARGE), offset, len(LARGE))
    assert id(chunk) not in world.slices


def test_a_worker_gets_no_module_but_of_jobs_that_it_has() -> None:
    world = World()
    agent = large_job(world)
    other = world.worker("other")
    nothing = Chunk(other.session, digest_of(LARGE), 0, 0)
    assert other.give(Fetch(other.session, digest_of(LARGE), 0, 10)) == [nothing]
    agent.done("j")
    assert agent.give(Fetch(agent.session, digest_of(LARGE), 0, 10)) == [Chunk(agent.session, digest_of(LARGE), 0, 0)]


# --- inputs to workers -------------------------------------------------------------------------------


def test_a_large_input_is_withheld_and_fetched_in_pieces() -> None:
    world = World(inline_bytes=1000)
    agent = world.worker("w")
    world.give("c", Run(1, "a.b", JobSpec(DIGEST), wasm=WASM, stdin=LARGE, values=b"v" * 1001))
    (message,) = agent.look()
    assert type(message) is Dispatch
    assert (message.withheld, message.stdin, message.values) == ({"stdin": len(LARGE), "values": 1001}, b"", b"")
    for body, data in (("stdin", LARGE), ("values", b"v" * 1001)):
        handle = body_handle(message.ref, body)
        (chunk,) = agent.give(Fetch(agent.session, handle, 300, 600))
        assert chunk == Chunk(agent.session, handle, 300, len(data), data[300:900])


@pytest.mark.parametrize(
    "handle", ["", "j", "j/1", "j/1/stdin", "j/2/stdin/local", "j/1/story/local", "j/1/stdin/ann", "///", "sha256:"]
)
def test_a_handle_of_nothing_gives_nothing(handle: str) -> None:
    world = World(inline_bytes=1)
    agent = world.worker("w")
    world.run("j", stdin=b"secret")
    assert agent.give(Fetch(agent.session, handle, 0, 10)) == [Chunk(agent.session, handle, 0, 0)]


# --- results from workers ----------------------------------------------------------------------------


class Holder:
    """A worker that keeps back the bodies of its results and hands them out as asked."""

    def __init__(self, world: World, *jobs: str, slots: int = 4, name: str = "w") -> None:
        self.world, self.agent = world, world.worker(name, slots)
        self.bodies: dict[str, bytes] = {}
        self.asked: list[Fetch] = []
        for job in jobs:
            world.run(job, f"c-{job}")

    def finish(self, job: str, **bodies: bytes) -> None:
        ref = self.agent.ref(job)
        self.bodies |= {body_handle(ref, name): data for name, data in bodies.items()}
        self.note(self.agent.done(job, withheld={name: len(data) for name, data in bodies.items()}))

    def note(self, messages: list[Message]) -> None:
        self.asked += [message for message in messages if type(message) is Fetch]

    def answer(self) -> None:
        fetch = self.asked.pop(0)
        data = self.bodies[fetch.handle]
        piece = data[fetch.offset : fetch.offset + fetch.size]
        self.note(self.agent.give(Chunk(self.agent.session, fetch.handle, fetch.offset, len(data), piece)))

    def answer_all(self) -> None:
        while self.asked:
            self.answer()


def test_withheld_output_is_fetched_before_the_job_ends() -> None:
    world = World(window_bytes=2 * MAX_FRAME)
    holder = Holder(world, "j")
    holder.finish("j", stdout=LARGE, value=b"v" * 300 * KIB)
    assert sum(fetch.size for fetch in holder.asked) == 2 * MAX_FRAME
    while holder.asked:
        assert world.take("c-j") == []
        assert sum(fetch.size for fetch in holder.asked) <= 2 * MAX_FRAME
        holder.answer()
    answer = world.only("c-j", JobResult)
    assert (answer.stdout, answer.stderr, answer.value) == (LARGE, b"", b"v" * 300 * KIB)
    assert not world.core.workers.by_id["w"].leaving


def test_one_workers_transfer_does_not_delay_anothers() -> None:
    world = World(window_bytes=MAX_FRAME)
    slow, fast = Holder(world, "slow", slots=1), Holder(world, "fast", slots=1, name="w2")
    slow.finish("slow", stdout=LARGE)
    fast.finish("fast", stdout=LARGE)
    fast.answer_all()
    assert world.only("c-fast", JobResult).stdout == LARGE


def test_a_worker_goes_on_with_other_jobs_while_its_output_is_fetched() -> None:
    world = World(prefetch=0)
    holder = Holder(world, "j", "k", slots=1)
    assert world.state("k") == "queued"
    holder.finish("j", stdout=LARGE)
    assert world.state("k") == "assigned"
    holder.agent.done("k", stdout=b"short")
    assert world.only("c-k", JobResult).stdout == b"short"


def test_several_results_of_one_worker_share_its_window() -> None:
    world = World(window_bytes=MAX_FRAME)
    holder = Holder(world, "j", "k")
    holder.finish("j", stdout=LARGE)
    holder.finish("k", stdout=LARGE[::-1])
    assert len(holder.asked) == 1
    holder.answer_all()
    assert world.only("c-j", JobResult).stdout == LARGE
    assert world.only("c-k", JobResult).stdout == LARGE[::-1]


@pytest.mark.parametrize(
    "wrong",
    [
        Chunk(0, "", 0, 0),
        Chunk(0, "", 0, len(LARGE), b"short"),
        Chunk(0, "", 0, len(LARGE) + 1, LARGE[:MAX_FRAME]),
    ],
    ids=["gone", "short piece", "other size"],
)
def test_a_result_that_can_not_be_had_counts_as_a_loss(wrong: Chunk) -> None:
    world = World()
    holder = Holder(world, "j")
    ref = holder.agent.ref("j")
    holder.finish("j", stdout=LARGE)
    chunk = Chunk(holder.agent.session, holder.asked[0].handle, wrong.offset, wrong.total, wrong.data)
    assert Acknowledge(holder.agent.session, ref, stale=True) in holder.agent.give(chunk)
    assert world.core.jobs["local", "j"].losses == 1
    assert holder.agent.ref("j").attempt == 2


def test_a_piece_that_nobody_asked_for_is_ignored() -> None:
    world = World()
    holder = Holder(world, "j")
    holder.agent.give(Chunk(holder.agent.session, "j/1/stdout/local", 0, 5, b"evil!"))
    holder.finish("j", stdout=LARGE)
    holder.agent.give(Chunk(holder.agent.session, holder.asked[0].handle, 512 * KIB, len(LARGE), b"evil!"))
    holder.answer_all()
    assert world.only("c-j", JobResult).stdout == LARGE


def test_a_worker_lost_in_the_middle_of_its_output_is_a_loss_like_any_other() -> None:
    world = World()
    holder = Holder(world, "j")
    holder.finish("j", stdout=LARGE)
    holder.answer()
    holder.agent.goodbye()
    assert (world.state("j"), world.core.jobs["local", "j"].losses) == ("queued", 1)


def test_a_worker_that_registers_again_sends_its_output_again() -> None:
    world = World()
    holder = Holder(world, "j")
    ref = holder.agent.ref("j")
    holder.finish("j", stdout=LARGE)
    holder.answer()
    holder.asked.clear()
    holder.agent.register(finished=(ref,))
    holder.agent.jobs[ref] = None  # type: ignore[assignment]
    holder.finish("j", stdout=LARGE)
    holder.answer_all()
    assert world.only("c-j", JobResult).stdout == LARGE


def test_output_that_never_comes_is_given_up() -> None:
    world = World()
    holder = Holder(world, "j")
    holder.finish("j", stdout=LARGE)
    for _ in range(31):
        assert world.core.jobs["local", "j"].losses == 0
        world.wait(4.0)
        holder.agent.report()
    world.wait(4.0)
    assert world.core.jobs["local", "j"].losses == 1


def test_a_cancel_while_the_output_is_fetched_does_not_stop_it() -> None:
    world = World()
    holder = Holder(world, "j")
    holder.finish("j", stdout=LARGE)
    assert world.ask("d", Cancel(1, "j"), JobStatus).cancelling
    assert holder.agent.look() == []
    assert world.ask("d", GetStatus(1, "j"), JobStatus).state == "assigned"
    holder.answer_all()
    assert world.only("c-j", JobResult).result.state == "completed"


def test_more_output_than_the_broker_takes_fails_the_job() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    agent.done("j", withheld={"stdout": 2**40})
    result = world.only("c", JobResult).result
    assert result.error is not None
    assert (result.state, result.error.code) == ("failed", "output_limit")


def test_withheld_bodies_that_no_result_has_are_ignored() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    agent.done("j", withheld={"secrets": 5, "stdout": 0})
    assert world.only("c", JobResult).result.state == "completed"


def test_a_result_has_the_ref_that_its_worker_was_given() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    assert agent.ref("j") == JobRef("local", "j", 1)
