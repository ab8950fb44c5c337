"""Files of jobs at the broker: held with the module, fetched by the worker that has the job, gone with the job."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest

from minilambda.broker import tables
from minilambda.broker.contents import MAX_SPEC_BYTES
from minilambda.broker.events import ModuleSlice, ModuleUnsaved
from minilambda.broker.modules import OVERHEAD
from minilambda.fields import MAX_FRAME
from minilambda.messages import (
    Accepted,
    Chunk,
    Dispatch,
    Fetch,
    GetResult,
    Hello,
    JobResult,
    JobSpec,
    ListModules,
    Message,
    ModuleList,
    Put,
    Refused,
    Result,
    Run,
    Stored,
    Welcome,
    body_handle,
)
from minilambda.paths import NOTHING
from minilambda.wire import encode
from tests.broker_world import WASM, Agent, World, digest_of, kinds

DATA, OTHER = b"a,b\n1,2\n", bytes(300_000)
FILES = {"/data/table.csv": digest_of(DATA), "/lib/pkg/__init__.py": digest_of(OTHER)}
SCRATCH = {"scratch": 65536, "collect": ("/tmp/out.csv",)}


def put(world: World, *contents: bytes, principal: str = "local") -> None:
    for data in contents:
        answer = world.ask("p", Put(1, digest_of(data), len(data), data=data), Stored, principal)
        assert answer.complete


def refused(answers: list[Message]) -> tuple[str, str]:
    (answer,) = answers
    assert type(answer) is Refused
    return answer.code, answer.message


def dispatched(agent: Agent) -> Dispatch:
    (message,) = (message for message in agent.look() if type(message) is Dispatch)
    return message


def test_the_greeting_offers_files() -> None:
    assert "files" in World().ask("c", Hello(1), Welcome).features


def test_a_job_is_refused_by_the_name_of_each_file_that_is_missing_and_then_runs() -> None:
    # given
    world = World()
    agent = world.worker("w")
    # then
    for data in (DATA, OTHER):
        code, sentence = refused(world.run("j", files=FILES))
        assert code == "not_found" and digest_of(data) in sentence
        put(world, data)
    assert world.run("j", files=FILES) == []
    assert dispatched(agent).spec.files == FILES


def test_a_file_is_unknown_to_a_principal_that_has_not_sent_its_bytes() -> None:
    world = World()
    put(world, DATA, OTHER, principal="alice")
    assert refused(world.run("j", files=FILES, principal="bob"))[0] == "not_found"
    assert world.run("j", files=FILES, principal="alice") == []


def test_an_empty_file_need_not_be_sent() -> None:
    world = World()
    agent = world.worker("w")
    assert world.ask("c", Put(1, NOTHING, 0), Stored) == Stored(1, NOTHING, 0, True)
    assert refused(world.give("c", Put(2, digest_of(DATA), 0)))[0] == "bad_request"
    assert world.run("j", files={"/empty": NOTHING}) == []
    assert dispatched(agent).spec.files == {"/empty": NOTHING}


def test_files_stay_while_their_job_is_unfinished_and_may_go_then() -> None:
    # given
    world = World(store_bytes=2 * OVERHEAD + len(WASM) + len(DATA))
    agent = world.worker("w")
    put(world, DATA)
    world.run("j", files={"/a": digest_of(DATA), "/b": digest_of(DATA)})
    # then
    rows = world.ask("c", ListModules(2), ModuleList).modules
    assert {row["module"]: row["jobs"] for row in rows}[digest_of(DATA)] == 1
    assert refused(world.give("c", Put(3, digest_of(OTHER), len(OTHER), data=OTHER[:10])))[0] == "busy"
    # when
    agent.done("j")
    # then
    put(world, b"more", b"and more")
    assert digest_of(DATA) not in world.core.modules.owned("local")


def test_a_worker_fetches_what_its_own_unfinished_jobs_name_and_nothing_else() -> None:
    # given
    world = World()
    mine, its = world.worker("mine"), world.worker("its")
    put(world, DATA, OTHER)
    world.run("j1", "c1", files={"/data": digest_of(OTHER)})
    world.run("j2", "c2", files={"/data": digest_of(DATA)})
    agent, other = (mine, its) if mine.names == ["j1"] else (its, mine)
    handle = digest_of(OTHER)
    # then
    (sized,) = agent.give(Fetch(agent.session, handle, 0, 0))
    assert sized == Chunk(agent.session, handle, 0, len(OTHER)) and id(sized) not in world.slices
    (chunk,) = agent.give(Fetch(agent.session, handle, MAX_FRAME, MAX_FRAME))
    assert world.slices[id(chunk)] == ModuleSlice("data", handle, MAX_FRAME, len(OTHER) - MAX_FRAME)
    assert other.give(Fetch(other.session, handle, 0, 10)) == [Chunk(other.session, handle, 0, 0)]
    agent.done("j1")
    assert agent.give(Fetch(agent.session, handle, 0, 10)) == [Chunk(agent.session, handle, 0, 0)]


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"files": {"/a": digest_of(DATA), "/a/b/c": digest_of(DATA)}}, "'/a'"),
        ({"files": {"/tmp": digest_of(DATA)}, "scratch": 1}, "'/tmp'"),
        ({"files": {"/tmp/x": digest_of(DATA)}, "scratch": 1}, "'/tmp/x'"),
        ({"collect": ("/data/x",), "scratch": 1}, "'/data/x'"),
        ({"collect": ("/tmp/x",)}, "scratch"),
    ],
)
def test_paths_that_can_not_be_together_are_refused(spec: dict[str, object], word: str) -> None:
    world = World()
    put(world, DATA)
    code, sentence = refused(world.run("j", **spec))
    assert code == "bad_request" and word in sentence


def test_a_path_that_only_begins_like_another_is_no_folder_of_it() -> None:
    world = World()
    put(world, DATA)
    names = ("/a", "/a-b", "/a!/b", "/ab/c", "/tmpx")
    assert world.run("j", files=dict.fromkeys(names, digest_of(DATA)), scratch=1) == []


MOST = {f"/{number:04d}{'x' * 100}": digest_of(DATA) for number in range(1320)}


@pytest.mark.parametrize("spec", [{"files": MOST}, {"args": ("x" * (MAX_SPEC_BYTES - 5),)}], ids=["files", "args"])
def test_the_header_of_a_dispatch_fits_its_frame_at_the_most_that_texts_may_take(spec: dict[str, object]) -> None:
    # given a worker that has to be told of many results
    world = World()
    agent = world.worker("w", 64)
    put(world, DATA)
    names = [f"{'j' * 60}{number:04d}" for number in range(64)]
    for name in names:
        world.run(name, f"c{name}", principal="p" * 64)
    for name in names:
        agent.done(name)
    agent.look()
    # when
    assert world.run("j", stdin=bytes(4096), **spec) == []
    # then
    message = replace(dispatched(agent), wasm=bytes(4096), values=bytes(4096))
    assert len(encode(message)[0]) <= MAX_FRAME


def test_paths_that_take_too_much_of_a_header_are_refused() -> None:
    world = World()
    put(world, DATA)
    too_long = {f"{path}/{'ä' * 40}": digest for path, digest in MOST.items()}
    assert refused(world.run("j", files=too_long))[0] == "input_too_large"


def test_what_was_collected_comes_with_the_result_and_later_again() -> None:
    # given
    world = World()
    agent = world.worker("w")
    world.run("j", **SCRATCH)
    # when
    agent.done("j", collected=b"a map")
    # then
    assert world.only("c", JobResult).collected == b"a map"
    assert world.ask("d", GetResult(2, "j"), JobResult).collected == b"a map"
    assert world.core.results.bytes > len(b"a map")


def test_a_large_collection_is_withheld_and_fetched() -> None:
    # given
    world = World()
    agent = world.worker("w")
    world.run("j", **SCRATCH)
    handle = body_handle(agent.ref("j"), "collected")
    # when
    fetches = agent.done("j", Result("failed"), withheld={"collected": len(OTHER)})
    for fetch in (fetch for fetch in fetches if type(fetch) is Fetch):
        assert fetch.handle == handle
        data = OTHER[fetch.offset : fetch.offset + fetch.size]
        agent.give(Chunk(agent.session, handle, fetch.offset, len(OTHER), data))
    # then
    assert world.only("c", JobResult).collected == OTHER


def test_a_detached_job_is_promised_with_its_files_and_outlives_the_broker_with_them() -> None:
    # given
    world = World(durable=True)
    put(world, DATA, OTHER)
    world.run("j", files=FILES, detach=True, **SCRATCH)
    world.sync()
    assert world.only("c", Accepted).job == "j"
    # when
    world.crash()
    agent = world.worker("w")
    world.sync()
    # then
    assert agent.jobs[agent.ref("j")].spec == JobSpec(digest_of(WASM), files=FILES, **SCRATCH)  # type: ignore[arg-type]
    handle = digest_of(OTHER)
    assert agent.give(Fetch(agent.session, handle, 0, 0)) == [Chunk(agent.session, handle, 0, len(OTHER))]
    # and when
    agent.done("j", collected=b"a map")
    world.sync()
    world.crash()
    assert world.ask("c", GetResult(2, "j"), JobResult).collected == b"a map"


def test_a_job_whose_file_is_gone_from_the_disk_fails_with_a_word() -> None:
    world = World(durable=True)
    put(world, DATA)
    world.run("j", files={"/data": digest_of(DATA)}, detach=True)
    world.sync()
    world.disk.execute("DELETE FROM modules WHERE digest = ?", (digest_of(DATA),))
    world.crash()
    world.sync()
    answer = world.ask("c", GetResult(1, "j"), JobResult)
    assert answer.result.error is not None and answer.result.error.code == "internal"


def test_a_job_whose_file_does_not_fit_on_the_disk_is_not_promised() -> None:
    world = World(durable=True)
    put(world, DATA)
    world.run("j", files={"/data": digest_of(DATA)}, detach=True)
    world.step(ModuleUnsaved(digest_of(DATA)))
    assert refused(world.take("c"))[0] == "storage_failed"
    world.sync()
    assert not world.core.jobs and not world.core.modules.needs()


def test_a_job_that_is_run_again_needs_its_files_still() -> None:
    # given
    world = World(store_bytes=2 * OVERHEAD + len(WASM) + len(DATA))
    agent = world.worker("w")
    put(world, DATA)
    world.run("j", files={"/data": digest_of(DATA)})
    agent.done("j")
    world.take("c")
    spec = JobSpec(digest_of(WASM), files={"/data": digest_of(DATA)})
    # then
    assert kinds(world.give("c", Run(2, "k", spec, detach=True))) == ["accepted"]
    agent.done("k")
    put(world, b"more", b"and more")
    assert refused(world.give("c", Run(3, "l", spec, detach=True, wasm=WASM)))[0] == "not_found"


def test_a_journal_from_before_there_were_files_is_taken_over() -> None:
    # given
    old = sqlite3.connect(":memory:", isolation_level=None)
    old.executescript(
        "CREATE TABLE results (number INTEGER PRIMARY KEY, value BLOB NOT NULL, content BLOB NOT NULL);"
        "INSERT INTO results VALUES (1, x'', x'07'); CREATE TABLE jobs (number INTEGER PRIMARY KEY);"
    )
    # when
    tables.prepare(old, 1)
    # then
    assert old.execute("SELECT * FROM results").fetchall() == [(1, b"", b"\x07", b"")]
    assert old.execute("PRAGMA user_version").fetchone() == (tables.SCHEMA,)
    old.close()
