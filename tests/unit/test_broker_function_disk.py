"""Functions at a broker with a journal: what was answered is there after a restart, what the disk refuses is undone."""

from __future__ import annotations

import random
import sqlite3

import pytest

from minilambda.broker import tables
from minilambda.broker.events import DiskFailing, DiskWorks, ModuleUnsaved, Received
from minilambda.broker.function_side import MAX_PENDING_BYTES
from minilambda.messages import Accepted, Deploy, Deployed, JobSpec, Message, SetAlias, Undeploy
from minilambda.settings import BrokerSettings
from tests.broker_world import DIGEST, WASM, World, digest_of
from tests.function_talk import OTHER, call, deploy, named, refused, rows

# --- the disk ------------------------------------------------------------------------------------------


def test_a_deploy_is_answered_when_it_is_on_the_disk() -> None:
    world = World(durable=True)
    assert world.give("d", Deploy(1, "f", JobSpec(DIGEST), wasm=WASM)) == []
    assert world.give("e", Deploy(2, "f", JobSpec(DIGEST), wasm=WASM)) == []  # the same again is as safe
    world.sync()
    assert world.only("d", Deployed) == Deployed(1, "f", 1, "live")
    assert world.only("e", Deployed) == Deployed(2, "f", 1, "live")


def test_functions_are_there_again_after_a_restart_with_their_history_and_their_modules() -> None:
    # given
    world = World(durable=True)
    for number in range(3):
        deploy(world, args=(str(number),), files={"/a": digest_of(b"")}, env={"K": "v"})
    deploy(world, "g", alias="", wasm=OTHER, shared=True)
    world.give("d", Undeploy(1, "f", 2))
    world.give("d", SetAlias(2, "f", "stable", 1))
    world.sync()
    world.wait(1.0)
    before = [rows(world), rows(world, "f"), rows(world, "g")]
    # when
    world.take("d")
    world.crash(0.0)
    # then
    assert [rows(world), rows(world, "f"), rows(world, "g")] == before
    assert world.core.modules.pinned == len(WASM) + len(OTHER)
    assert deploy(world, args=("2",), files={"/a": digest_of(b"")}, env={"K": "v"}) == 3
    world.give("d", SetAlias(1, "f", "live"))
    world.sync()
    assert world.only("d", Deployed).version == 1
    world.give("d", Undeploy(2, "f"))
    world.sync()
    world.crash()
    assert [row["function"] for row in rows(world)] == ["g"]


def test_what_was_not_answered_may_be_gone_and_what_was_is_there() -> None:
    world = World(durable=True)
    deploy(world, args=("1",))
    world.give("d", Deploy(1, "f", JobSpec(DIGEST, args=("2",))))
    world.crash()
    assert [row["version"] for row in rows(world, "f")] == [1] and named(world, "live") == 1


def test_a_detached_call_is_the_same_job_after_a_restart_although_the_alias_has_moved() -> None:
    # given
    world = World(durable=True)
    deploy(world, args=("old",))
    call(world, "j", detach=True)
    world.sync()
    world.only("c", Accepted)
    deploy(world, args=("new",))
    # when
    world.crash()
    # then
    assert call(world, "j", detach=True, again=True) == [Accepted(1, "j", "queued")]
    job = world.core.jobs["local", "j"]
    assert (job.spec.args, job.function) == (("old",), "f@1")


def test_a_disk_that_stops_undoes_what_it_has_not_taken() -> None:
    # given
    world = World(durable=True)
    deploy(world, args=("1",))
    deploy(world, args=("2",))
    deploy(world, "gone")
    before = [rows(world, "f"), rows(world, "gone"), rows(world)]
    # when
    world.give("a", Deploy(1, "f", JobSpec(DIGEST, args=("3",))))
    world.give("b", SetAlias(2, "f", "stable", 3))
    world.give("c", Undeploy(3, "f", 1))
    world.give("d", Undeploy(4, "gone"))
    world.give("e", Deploy(5, "new", JobSpec(digest_of(OTHER)), wasm=OTHER))
    world.give("g", Undeploy(6, "f"))
    world.step(DiskFailing(True))
    # then
    assert [refused(world.take(peer)) for peer in "abcdeg"] == ["storage_failed"] * 6
    assert [rows(world, "f"), rows(world, "gone"), rows(world)] == before
    assert refused(world.give("a", Undeploy(7, "f"))) == "storage_failed"
    # and when the disk takes it all in the end
    world.step(DiskWorks())
    world.sync()
    world.crash(0.0)
    assert [rows(world, "f"), rows(world, "gone"), rows(world)] == before


def test_large_versions_that_wait_for_the_disk_are_few() -> None:
    # given a client that makes one after the other, faster than the disk takes them
    world = World(durable=True)
    deploy(world)
    specs = [JobSpec(DIGEST, env={"A": f"{number}" + "x" * 200_000}) for number in range(400)]
    answers = [each for spec in specs for each in world.give("d", Deploy(1, "f", spec))]
    # then it is refused in time, and goes on when the disk has caught up
    assert {refused([each]) for each in answers} == {"busy"}
    assert sum(change.cost for change in world.core.functions.pending) < MAX_PENDING_BYTES + 1_000_000
    world.sync()
    world.take("d")
    assert world.give("d", Deploy(2, "f", specs[-1])) == []


def test_a_full_disk_takes_no_versions_but_lets_some_go() -> None:
    world = World(durable=True)
    deploy(world)
    world.step(DiskFailing(False))
    assert refused(world.give("d", Deploy(1, "g", JobSpec(DIGEST)))) == "storage_failed"
    world.give("d", Undeploy(1, "f"))
    world.sync()
    assert world.only("d", Deployed).version == 0


def test_a_module_that_the_disk_has_no_room_for_makes_no_version() -> None:
    world = World(durable=True)
    deploy(world)
    world.give("d", Deploy(1, "f", JobSpec(digest_of(OTHER)), wasm=OTHER))
    world.step(ModuleUnsaved(digest_of(OTHER)))
    assert refused(world.take("d")) == "storage_failed"
    world.sync()
    world.crash()
    assert [row["version"] for row in rows(world, "f")] == [1]


def test_a_version_whose_module_the_disk_has_lost_is_gone_with_its_aliases() -> None:
    # given
    world = World(durable=True)
    deploy(world, args=("1",))
    deploy(world, alias="other", wasm=OTHER)
    deploy(world, "g", alias="live", wasm=OTHER)
    # when
    world.disk.execute("DELETE FROM modules WHERE digest = ?", (digest_of(OTHER),))
    world.crash()
    # then
    assert [(row["version"], row["aliases"]) for row in rows(world, "f")] == [(1, ["live"])]
    assert [row["function"] for row in rows(world)] == ["f"]
    world.sync()
    world.crash()
    assert [row["version"] for row in rows(world, "f")] == [1]
    assert deploy(world, wasm=OTHER) == 3


def test_a_journal_from_before_there_were_functions_is_taken_over() -> None:
    # given a journal of version 1, with a job in it
    old = sqlite3.connect(":memory:", isolation_level=None)
    now = World(durable=True)
    now.run("j", detach=True, stdin=b"in")
    now.sync()
    for line in now.disk.iterdump():
        old.execute(line)
    old.execute("COMMIT") if old.in_transaction else None
    for table, column in (("jobs", "function"), ("jobs", "call"), ("results", "collected")):
        old.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    old.executescript("DROP TABLE functions; DROP TABLE versions; PRAGMA user_version = 1;")
    # when
    tables.prepare(old, 1)
    # then
    assert old.execute("PRAGMA user_version").fetchone() == (tables.SCHEMA,)
    assert tables.read(old) == tables.read(now.disk)
    old.close()


@pytest.mark.parametrize("aliases", ["[]", "{", '{"live": 3}', '{"live": ["x"]}'])
def test_damaged_aliases_refuse_the_journal_with_a_sentence(aliases: str) -> None:
    world = World(durable=True)
    deploy(world)
    world.disk.execute("UPDATE functions SET aliases = ?", (aliases,))
    with pytest.raises(tables.JournalRefused, match="aliases of the function 'f'"):
        tables.read(world.disk)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_the_disk_takes_what_was_answered_outlives_the_broker(seed: int) -> None:
    # given a client that makes versions and lets some go, and knows what it was told
    rng = random.Random(seed)
    world = World(durable=True, audited=seed % 5 == 0)
    told: dict[int, tuple[str, ...]] = {}  # versions that were answered for, and that were not to go
    gone: set[int] = set()  # versions that were to go
    asked: dict[str, Message] = {}  # by the connection that waits for an answer

    def listen() -> None:
        for peer in list(asked):
            for answer in world.take(peer):
                request = asked.pop(peer)
                if type(answer) is Deployed and isinstance(request, Deploy) and answer.version not in gone:
                    told[answer.version] = request.spec.args

    for step in range(120):
        draw = rng.random()
        if draw < 0.5:
            peer = f"c{step}"
            asked[peer] = Deploy(step, "f", JobSpec(DIGEST, args=(str(rng.randrange(6)),)), wasm=WASM)
            world.step(Received((peer.encode(), b""), "local", asked[peer]))
        elif draw < 0.6 and told:
            number = rng.choice(list(told))
            peer = f"c{step}"
            asked[peer] = Undeploy(step, "f", number)
            gone.add(number)
            del told[number]
            world.step(Received((peer.encode(), b""), "local", asked[peer]))
        elif draw < 0.8:
            world.sync(rng.randrange(len(world.writes) + 1))
        elif draw < 0.85:
            world.step(DiskFailing(True))
            world.step(DiskWorks())
        elif draw < 0.9:
            # when
            listen()
            world.crash()
            asked.clear()
            # then
            found = world.core.functions.table.get(("local", "f"))
            versions = {} if found is None else {each.number: each.spec.args for each in found.versions.values()}
            assert told.items() <= versions.items()
        listen()


def test_functions_outlive_a_broker_whose_store_is_smaller_than_before() -> None:
    # given
    world = World(durable=True, store_bytes=100_000)
    deploy(world, wasm=bytes(40_000))
    # when
    world.settings = BrokerSettings(store_bytes=60_000)
    world.crash()
    # then
    assert [row["version"] for row in rows(world)] == [1]
    large = bytes(10_000)
    assert refused(world.give("d", Deploy(1, "g", JobSpec(digest_of(large)), wasm=large))) == "quota_exceeded"
