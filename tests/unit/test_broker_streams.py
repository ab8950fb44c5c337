"""The broker between running jobs and those who follow or feed them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from minilambda.broker.authority import Authority, make_entry
from minilambda.broker.events import AccessChanged, Received, Unreachable
from minilambda.broker.live import AT_ONCE, MAX_FOLLOWERS, MAX_FOLLOWS
from minilambda.broker.stream_side import PIECE
from minilambda.curve import make_pair
from minilambda.fields import MAX_FRAME
from minilambda.keys import principal_of
from minilambda.messages import (
    Allow,
    Chunk,
    Credit,
    Done,
    Fed,
    Feed,
    Follow,
    Followed,
    Input,
    Message,
    Output,
    Refused,
    Result,
    Taken,
    Unfollow,
    Unwatch,
    Watch,
    Written,
    body_handle,
)
from tests.broker_world import Agent, World, kinds

MUCH = 10**6


class Stage:
    """A broker, a worker with one job, and a client that follows it."""

    def __init__(self, credit: int = MUCH, **settings: Any) -> None:
        self.world = World(**settings)
        self.agent = self.world.worker("w")
        self.world.run("j", detach=True)
        self.ref = self.agent.ref("j")
        self.follow(credit)
        self.watch = self.watched()

    def follow(self, credit: int = MUCH, request: int = 7, peer: str = "f", **more: Any) -> list[Message]:
        return self.world.give(peer, Follow(request, "j", credit, **more))

    def watched(self, agent: Agent | None = None) -> Watch:
        (watch,) = [each for each in (agent or self.agent).look() if type(each) is Watch]
        return watch

    def write(self, data: bytes, offset: int = 0, stream: str = "stdout", watch: Watch | None = None) -> list[int]:
        """The worker sends a piece; the credit that it is told of then, bytes."""
        watch = watch or self.watch
        self.allowed()
        return allows(self.agent.give(Written(watch.session, watch.ref, watch.follower, stream, offset, data)))

    def allowed(self) -> list[int]:
        """The credit that the worker was told of, bytes."""
        return allows(self.agent.look())

    def heard(self, peer: str = "f") -> list[Message]:
        return self.world.take(peer)


def allows(messages: list[Message]) -> list[int]:
    return [each.bytes for each in messages if type(each) is Allow]


def said(messages: list[Message], stream: str = "stdout") -> bytes:
    """The output in messages, which must be without gaps."""
    pieces = [each for each in messages if isinstance(each, Output) and each.stream == stream]
    for before, after in itertools.pairwise(pieces):
        assert after.offset == before.offset + len(before.data)
    return b"".join(each.data for each in pieces)


# --- while it runs ------------------------------------------------------------------------------------


def test_a_worker_is_asked_for_what_a_follower_may_have_and_its_pieces_go_on() -> None:
    stage = Stage(credit=500)
    assert (stage.watch.ref, stage.watch.stdout, stage.watch.stderr, stage.watch.credit) == (stage.ref, 0, 0, 500)
    stage.write(b"one")
    stage.write(b"two", 3)
    stage.write(b"oh", 0, "stderr")
    assert stage.heard() == [
        Output(7, "j", 1, "stdout", 0, b"one"),
        Output(7, "j", 1, "stdout", 3, b"two"),
        Output(7, "j", 1, "stderr", 0, b"oh"),
    ]


def test_the_end_of_a_job_brings_the_rest_and_the_last_word() -> None:
    stage = Stage()
    stage.write(b"one")
    stage.agent.done("j", stdout=b"one and two", stderr=b"oh")
    heard = stage.heard()
    assert kinds(heard) == ["output", "output", "output", "followed"]
    assert (said(heard), said(heard, "stderr")) == (b"one and two", b"oh")
    assert heard[-1] == Followed(7, "j", 1, "completed")
    assert not stage.world.core.streams.jobs


def test_a_follower_is_told_once_that_it_has_all_that_there_was_when_it_came() -> None:
    stage = Stage(credit=5)
    stage.write(b"12345")
    stage.write(b"", 5)
    stage.write(b"", 5)
    assert stage.heard() == [Output(7, "j", 1, "stdout", 0, b"12345"), Output(7, "j", 1, "stdout", 5)]


def test_credit_reaches_the_worker_and_never_grows_beyond_the_window() -> None:
    stage = Stage(credit=10, window_bytes=2 * PIECE)
    stage.world.give("f", Credit(7, PIECE))
    stage.world.give("f", Credit(7, 2**48))
    stage.world.give("f", Credit(7, 2**48))
    assert stage.allowed() == [PIECE]
    assert stage.write(bytes(10)) == [PIECE - 10]


def test_a_flood_of_little_credit_is_told_in_words_as_few_as_the_workers_own() -> None:
    stage = Stage(credit=1)
    for _ in range(100):
        stage.world.give("f", Credit(7, 1))
    assert stage.allowed() == []
    assert stage.write(b"1") == [100]
    assert stage.write(bytes(100), 1) == []
    stage.world.give("f", Credit(7, 1))
    assert stage.allowed() == [1]


def test_who_follows_over_and_over_can_not_keep_a_worker_from_its_work() -> None:
    stage = Stage()
    answers = [each for request in range(1000) for each in stage.follow(request=request % 2, peer="g")]
    refused = [each for each in answers if isinstance(each, Refused)]
    assert {each.code for each in refused} == {"busy"} and min(each.retry_after_ms or 0 for each in refused) > 0
    assert len(stage.agent.look()) < 2 * AT_ONCE
    stage.world.wait(2.0)
    assert stage.follow(request=5, peer="g") == []


def test_an_absurd_credit_is_cut_to_the_window() -> None:
    assert Stage(credit=2**48, window_bytes=1000).watch.credit == 1000


def test_a_job_that_waits_is_watched_once_a_worker_has_it() -> None:
    world = World()
    world.run("j", detach=True)
    assert world.give("f", Follow(7, "j", MUCH)) == [Output(7, "j", 0, "stdout", 0)]
    assert kinds(Agent(world, "w", 1).register()) == ["dispatch", "watch"]


def test_the_watch_comes_behind_the_dispatch_where_both_wait_for_the_disk() -> None:
    world = World(durable=True)
    agent = world.worker("w")
    world.run("j", detach=True)
    world.give("f", Follow(7, "j", MUCH))
    assert agent.look() == []
    world.sync()
    assert kinds(agent.look()) == ["dispatch", "watch"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": 1},
        {"data": b"", "offset": 1},
        {"data": bytes(501)},
        {"stream": "stderr", "offset": 5},
        {"follower": 999},
        {"ref": ("local", "j", 2)},
        {"ref": ("local", "other", 1)},
    ],
)
def test_a_piece_that_was_not_asked_for_goes_nowhere_and_is_counted(wrong: dict[str, Any]) -> None:
    stage = Stage(credit=500)
    piece = Written(stage.watch.session, stage.ref, stage.watch.follower, "stdout", 0, b"x")
    if "ref" in wrong:
        wrong["ref"] = type(stage.ref)(*wrong["ref"])
    stage.agent.give(replace(piece, **wrong))
    assert stage.heard() == []
    assert sum(stage.world.core.rejected.values()) == 1
    stage.write(b"right")
    assert said(stage.heard()) == b"right"


def test_a_follower_is_told_once_that_it_has_what_there_was() -> None:
    stage = Stage()
    stage.write(b"before")
    stage.write(b"", 6)
    stage.write(b"", 6)
    stage.write(b"after", 6)
    assert [each.data for each in stage.heard() if isinstance(each, Output)] == [b"before", b"", b"after"]
    assert not stage.world.core.rejected


def test_a_piece_larger_than_pieces_are_is_refused() -> None:
    stage = Stage()
    stage.write(bytes(PIECE + 1))
    assert stage.heard() == [] and stage.world.core.rejected == {"bad_piece": 1}


def test_another_worker_can_not_speak_for_the_one_that_has_the_job() -> None:
    stage = Stage()
    other = stage.world.worker("v")
    other.give(Written(other.session, stage.ref, stage.watch.follower, "stdout", 0, b"evil"))
    assert stage.heard() == [] and stage.world.core.rejected == {"stale_piece": 1}


def test_a_job_runs_anew_and_its_follower_hears_of_the_new_attempt_from_the_beginning() -> None:
    stage = Stage()
    stage.write(b"first")
    assert [each.attempt for each in stage.heard() if isinstance(each, Output)] == [1]
    stage.agent.goodbye()
    stage.agent = Agent(stage.world, "v", 1)
    (watch,) = [each for each in stage.agent.register() if type(each) is Watch]
    assert (watch.ref.attempt, watch.stdout) == (2, 0)
    stage.write(b"second", watch=watch)
    assert stage.heard() == [Output(7, "j", 2, "stdout", 0, b"second")]


def test_a_worker_that_registers_again_goes_on_where_the_follower_is() -> None:
    stage = Stage()
    stage.write(b"one")
    answers = stage.agent.register(held=(stage.ref,))
    (watch,) = [each for each in answers if type(each) is Watch]
    assert (watch.stdout, watch.ref.attempt, watch.credit) == (3, 1, MUCH - 3)
    assert watch.follower != stage.watch.follower
    stage.write(b"two", 3)  # in the old session
    stage.write(b"two", 3, watch=watch)
    assert said(stage.heard()) == b"onetwo"


def test_two_followers_have_their_own_places() -> None:
    stage = Stage(credit=100)
    stage.follow(request=8, stdout=2)
    watch = stage.watched()
    stage.write(b"abc")
    stage.write(b"c", 2, watch=watch)
    assert [(each.request, each.data) for each in stage.heard() if isinstance(each, Output)] == [(7, b"abc"), (8, b"c")]


# --- coming and going ---------------------------------------------------------------------------------


def test_a_follow_sent_again_takes_the_place_of_the_first() -> None:
    stage = Stage()
    stage.write(b"one")
    stage.heard()
    assert stage.follow(stdout=3, attempt=1) == []
    again = stage.agent.look()
    assert kinds(again) == ["unwatch", "watch"] and again[0].follower == stage.watch.follower  # type: ignore[attr-defined]
    stage.write(b"late", 3)
    stage.write(b"two", 3, watch=again[1])  # type: ignore[arg-type]
    assert said(stage.heard()) == b"two"


def test_offsets_of_another_attempt_count_for_nothing() -> None:
    stage = Stage()
    stage.follow(request=8, stdout=3, attempt=4)
    assert stage.watched().stdout == 0


def test_who_has_enough_is_answered_at_once_and_the_worker_stops() -> None:
    stage = Stage()
    assert stage.world.give("f", Unfollow(7)) == [Followed(7, "j", 1, "assigned")]
    assert [type(each) for each in stage.agent.look()] == [Unwatch]
    assert stage.world.give("f", Unfollow(7)) == [] == stage.world.give("f", Credit(7, 5))


def test_a_follower_that_can_not_be_reached_is_forgotten_and_its_worker_told() -> None:
    stage = Stage()
    stage.write(b"one")
    (output,) = stage.heard()
    stage.world.step(Unreachable((b"f", b""), output))
    assert [type(each) for each in stage.agent.look()] == [Unwatch]
    assert not stage.world.core.streams.jobs


def test_a_follower_for_whom_too_much_waits_is_told_so_and_its_worker_too() -> None:
    stage = Stage()
    stage.write(b"one")
    (output,) = stage.heard()
    stage.world.step(Unreachable((b"f", b""), output, behind=True))
    (refused,) = stage.world.take("f")
    assert (type(refused), refused.request, refused.code) == (Refused, 7, "busy")
    assert refused.retry_after_ms
    assert [type(each) for each in stage.agent.look()] == [Unwatch]
    assert not stage.world.core.streams.jobs
    stage.world.step(Unreachable((b"f", b""), refused, behind=True))  # there is no room even for that
    assert stage.world.take("f") == []


def test_one_connection_can_not_follow_without_end() -> None:
    stage = Stage()
    for number in range(5):
        stage.world.run(f"j{number}", detach=True)
    answers = [
        each for request in range(10_000) for each in stage.world.give("g", Follow(request, f"j{request % 5}", 1))
    ]
    refused = [each for each in answers if isinstance(each, Refused) and each.code == "busy"]
    assert len(refused) >= 10_000 - MAX_FOLLOWS
    lives = stage.world.core.streams.jobs
    assert sum(len(live.followers) for live in lives.values()) <= MAX_FOLLOWS + 1


def test_many_followers_of_one_job_make_room_for_each_other() -> None:
    stage = Stage()
    for number in range(MAX_FOLLOWERS):
        stage.follow(peer=f"c{number}")
    (refused,) = stage.heard()
    assert isinstance(refused, Refused) and (refused.request, refused.code) == (7, "busy")


def test_a_job_that_nobody_knows_can_not_be_followed() -> None:
    refused = World().ask("f", Follow(7, "j", MUCH), Refused)
    assert refused.code == "not_found"


# --- ended jobs ---------------------------------------------------------------------------------------


def ended(**settings: Any) -> World:
    world = World(**settings)
    agent = world.worker("w")
    world.run("j", detach=True)
    agent.done("j", Result("failed", error=None), stdout=bytes(200_000), stderr=b"why")
    return world


def test_an_ended_job_is_served_from_its_result_within_the_credit() -> None:
    world = ended()
    heard = world.give("f", Follow(7, "j", 100_000))
    assert kinds(heard) == ["output", "output"] and len(said(heard)) == 100_000
    heard += world.give("f", Credit(7, 100_002))
    heard += world.give("f", Credit(7, 2))
    assert (said(heard), said(heard, "stderr")) == (bytes(200_000), b"why")
    assert kinds(heard[-2:]) == ["output", "followed"] and heard[-1].state == "failed"  # type: ignore[attr-defined]
    assert all(len(each.data) <= PIECE for each in heard if isinstance(each, Output))


def test_what_is_told_of_an_ended_job_takes_no_memory_of_its_own() -> None:
    stage = Stage(credit=0)
    stage.agent.done("j", stdout=bytes(3 * PIECE))
    heard = [each for request in range(100, 110) for each in stage.follow(MUCH, request, "g")]
    views = [each.data for each in heard if isinstance(each, Output)]
    bodies = {id(view.obj) for view in views if isinstance(view, memoryview)}
    assert len(views) == 30 and len(bodies) == 1


def test_an_ended_job_is_told_from_the_offsets_on() -> None:
    heard = ended().give("f", Follow(7, "j", MUCH, attempt=1, stdout=199_999, stderr=3))
    assert (said(heard), said(heard, "stderr"), kinds(heard)) == (b"\0", b"", ["output", "followed"])


def test_a_result_that_goes_while_somebody_reads_it_is_expired() -> None:
    world = ended(result_ttl=1.0)
    world.give("f", Follow(7, "j", 1))
    world.wait(2.0)
    (refused,) = world.take("f")
    assert isinstance(refused, Refused) and refused.code == "expired"
    assert not world.core.streams.jobs


def test_the_last_word_waits_until_the_disk_has_the_end() -> None:
    world = World(durable=True)
    agent = world.worker("w")
    world.run("j", detach=True)
    world.give("f", Follow(7, "j", MUCH))
    world.sync()
    agent.done("j", stdout=b"out")
    assert kinds(world.take("f")) == ["output"]
    world.sync()
    assert kinds(world.take("f")) == ["followed"]


def test_output_that_is_fetched_from_the_worker_is_told_once_it_is_there() -> None:
    stage = Stage()
    stage.write(b"y" * 10)
    ref = stage.ref
    del stage.agent.jobs[ref]
    stage.agent.give(Done(stage.agent.session, ref, 0, stage.agent.seen, Result("completed", 0), {"stdout": 50}))
    assert kinds(stage.heard()) == ["output"]
    stage.follow(request=8)
    stage.agent.give(Chunk(stage.agent.session, body_handle(ref, "stdout"), 0, 50, b"y" * 50))
    heard = stage.heard()
    assert kinds(heard) == ["output", "followed", "output", "followed"]


# --- rights -------------------------------------------------------------------------------------------


def with_keys() -> tuple[World, dict[str, str], Authority]:
    public = {name: make_pair().public for name in ("ann", "bob", "root", "w")}
    roles = {"ann": "client", "bob": "client", "root": "admin", "w": "worker"}
    authority = Authority([make_entry(roles[name], key, name) for name, key in public.items()])
    world = World()
    who = {name: principal_of(key) for name, key in public.items()}
    world.run("j", detach=True, principal=who["ann"])
    world.core.access.authority = authority
    return world, who, authority


def test_an_admin_follows_the_jobs_of_others_and_a_client_does_not() -> None:
    world, who, _ = with_keys()
    (refused,) = world.give("b", Follow(1, "j", MUCH, principal=who["ann"]), who["bob"])
    assert isinstance(refused, Refused) and refused.code == "forbidden"
    (refused,) = world.give("b", Follow(2, "j", MUCH), who["bob"])
    assert isinstance(refused, Refused) and refused.code == "not_found"
    assert kinds(world.give("r", Follow(3, "j", MUCH, principal=who["ann"]), who["root"])) == ["output"]


def test_who_loses_the_right_hears_no_more() -> None:
    world, who, authority = with_keys()
    world.give("a", Follow(1, "j", MUCH), who["ann"])
    later = authority.without("ann")[0]
    world.step(AccessChanged(later, authority.lost(later), frozenset({b"a"})))
    assert not world.core.streams.jobs


# --- input --------------------------------------------------------------------------------------------


class Fed1:
    """A broker, a worker with one job that takes input, and its client."""

    def __init__(self, **spec: Any) -> None:
        self.world = World()
        self.agent = self.world.worker("w")
        self.world.run("j", detach=True, stream=True, **spec)
        self.ref = self.agent.ref("j")

    def put(self, request: int, offset: int, data: bytes = b"", peer: str = "c", **more: Any) -> list[Message]:
        return self.world.give(peer, Input(request, "j", offset, data=data, **more))

    def feed(self) -> Feed:
        (feed,) = self.agent.look()
        assert isinstance(feed, Feed)
        return feed

    def fed(self, feed: Feed, received: int) -> list[Message]:
        self.agent.give(Fed(feed.session, feed.ref, feed.number, received))
        return self.world.take("c")


def test_input_goes_to_the_worker_and_is_taken_when_the_guest_has_it() -> None:
    stage = Fed1()
    assert stage.put(1, 0, b"hello") == []
    feed = stage.feed()
    assert (feed.ref, feed.offset, feed.data, feed.eof) == (stage.ref, 0, b"hello", False)
    assert stage.fed(feed, 5) == [Taken(1, "j", 5)]
    assert stage.put(2, 5, b"!", eof=True) == []
    feed = stage.feed()
    assert feed.eof and stage.fed(feed, 6) == [Taken(2, "j", 6)]
    (refused,) = stage.put(3, 6, b"more")
    assert isinstance(refused, Refused) and refused.code == "conflict"


def test_one_piece_of_input_is_on_its_way_at_a_time() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    (refused,) = stage.put(2, 5, b"more")
    assert isinstance(refused, Refused) and (refused.code, refused.retry_after_ms) == ("busy", 50)


def test_input_sent_again_goes_to_the_worker_once() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    feed = stage.feed()
    assert stage.put(1, 0, b"hello") == stage.put(1, 0, b"hello") == []
    assert stage.agent.look() == []
    assert stage.fed(feed, 5) == [Taken(1, "j", 5)]


def test_another_piece_in_the_place_of_one_on_its_way_has_to_wait() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    for request, data, eof in ((2, b"hello!", False), (3, b"hello", True), (4, b"", False)):
        (refused,) = stage.put(request, 0, data, eof=eof)
        assert isinstance(refused, Refused) and refused.code == "busy"
    assert stage.fed(stage.feed(), 5) == [Taken(1, "j", 5)]


def test_input_that_could_not_be_sent_to_the_worker_is_to_be_sent_again() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    stage.world.step(Unreachable((b"w", b""), stage.feed()))
    (refused,) = stage.world.take("c")
    assert isinstance(refused, Refused) and (refused.request, refused.code) == (1, "busy")
    assert stage.put(2, 0, b"hello") == []
    assert stage.fed(stage.feed(), 5) == [Taken(2, "j", 5)]


def test_input_sent_again_from_elsewhere_answers_the_first() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    stage.put(9, 0, b"hello", peer="d")
    (refused,) = stage.world.take("c")
    assert isinstance(refused, Refused) and (refused.request, refused.code) == (1, "busy")


def test_a_gap_is_refused() -> None:
    stage = Fed1()
    stage.put(1, 100, b"hello")
    (refused,) = stage.fed(stage.feed(), 0)
    assert isinstance(refused, Refused) and refused.code == "conflict" and "0 bytes" in refused.message
    assert not stage.world.core.streams.jobs


def test_input_can_not_end_before_what_the_guest_has_and_goes_on_behind_it() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    stage.fed(stage.feed(), 5)
    stage.put(2, 3, b"", eof=True)
    (refused,) = stage.fed(stage.feed(), 5)
    assert isinstance(refused, Refused) and refused.code == "conflict" and "5 bytes" in refused.message
    stage.put(3, 5, b"!", eof=True)
    assert stage.fed(stage.feed(), 6) == [Taken(3, "j", 6)]


def test_an_end_of_input_that_only_the_worker_remembers_holds() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    (refused,) = stage.fed(stage.feed(), 3)
    assert isinstance(refused, Refused) and refused.code == "conflict" and "ended at 3 bytes" in refused.message
    (refused,) = stage.put(2, 3, b"lo")
    assert isinstance(refused, Refused) and refused.code == "conflict"


@pytest.mark.parametrize(
    ("data", "spec", "code"),
    [(b"x", {"stream": False}, "bad_request"), (bytes(MAX_FRAME + 1), {"stream": True}, "input_too_large")],
)
def test_input_that_can_never_be_taken_is_refused(data: bytes, spec: dict[str, Any], code: str) -> None:
    world = World()
    world.run("j", detach=True, **spec)
    assert world.ask("c", Input(1, "j", 0, data=data), Refused).code == code


def test_input_for_a_job_that_waits_comes_too_early() -> None:
    world = World()
    world.run("j", detach=True, stream=True)
    refused = world.ask("c", Input(1, "j", 0, data=b"x"), Refused)
    assert (refused.code, refused.retry_after_ms) == ("busy", 50)
    assert not world.core.streams.jobs


def test_a_job_that_ends_answers_the_input_that_was_on_its_way() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    stage.agent.done("j")
    assert stage.world.take("c") == [Taken(1, "j", 0)]
    (refused,) = stage.put(2, 0, b"hello")
    assert isinstance(refused, Refused) and refused.code == "conflict"


def test_an_ended_job_still_says_what_it_has_taken() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    stage.fed(stage.feed(), 5)
    stage.agent.done("j")
    assert stage.put(1, 0, b"hello") == [Taken(1, "j", 5)]


def test_a_job_that_takes_input_never_runs_again() -> None:
    stage = Fed1(retries=5)
    stage.agent.goodbye()
    job = stage.world.core.jobs["local", "j"]
    assert (job.state, job.code) == ("failed", "worker_lost")


def test_input_on_its_way_to_a_worker_that_hands_the_job_back_is_to_be_sent_again() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    stage.agent.hand_back(stage.ref)
    (refused,) = stage.world.take("c")
    assert isinstance(refused, Refused) and (refused.code, refused.retry_after_ms) == ("busy", 50)


def test_input_on_its_way_in_an_earlier_session_is_to_be_sent_again() -> None:
    stage = Fed1()
    stage.put(1, 0, b"hello")
    stage.agent.register(held=(stage.ref,))
    (refused,) = stage.world.take("c")
    assert isinstance(refused, Refused) and refused.code == "busy"


def test_a_word_of_the_worker_about_input_that_nobody_waits_for_is_counted() -> None:
    stage = Fed1()
    stage.agent.give(Fed(stage.agent.session, stage.ref, 1, 5))
    assert stage.world.core.rejected == {"stale_piece": 1}


def test_jobs_that_nobody_follows_or_feeds_leave_nothing() -> None:
    world = World()
    agent = world.worker("w")
    world.run("j")
    assert kinds(agent.look()) == ["dispatch"]
    assert kinds(agent.done("j", stdout=b"out")) == []
    assert not world.core.streams.jobs
    world.step(Received((b"c", b""), "local", Credit(1, 5)))
    assert world.core.rejected == {}
