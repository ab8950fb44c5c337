"""What those see who watch a broker: counts, its clients, the story of a job, and what an observer may not."""

from __future__ import annotations

from typing import Any

import pytest

from minilambda.broker.authority import Authority, make_entry
from minilambda.broker.meters import MAX_CLIENTS, OTHER, Meters
from minilambda.curve import make_pair
from minilambda.histogram import BOUNDS, Histogram
from minilambda.keys import principal_of
from minilambda.messages import (
    Cancel,
    ErrorInfo,
    GetResult,
    GetStatus,
    JobList,
    JobSpec,
    JobStatus,
    ListJobs,
    ListModules,
    ModuleList,
    Refused,
    Result,
    Run,
    Usage,
)
from minilambda.messages.overview import ClientList, GetOverview, ListClients, Overview
from tests.broker_world import DIGEST, World

ROLES = {"alice": "client", "eye": "observer", "root": "admin"}
PUBLIC = {name: make_pair().public for name in ROLES}
WHO = {name: principal_of(key) for name, key in PUBLIC.items()}
LIST = Authority([make_entry(role, PUBLIC[name], name) for name, role in ROLES.items()])


def ran(tier: str = "warm", **usage: float) -> Result:
    return Result("completed", 0, None, Usage(**usage), tier)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def kept() -> World:
    """A broker with keys."""
    made = World()
    made.core.access.authority = LIST
    return made


def overview(world: World) -> Overview:
    return world.ask("w", GetOverview(1), Overview)


def test_an_overview_counts_the_jobs_where_they_are(world: World) -> None:
    agent = world.worker("a", slots=2)
    for job in ("one", "two", "three", "four", "five", "six"):
        world.run(job, f"c{job}", request=1)
    agent.done("one")
    agent.done("two", Result("failed", None, ErrorInfo("trap", "It trapped.")))
    found = overview(world)
    assert (found.workers, found.slots, found.accepted, found.kept) == (1, 2, 6, 2)
    assert (found.queued, found.running) == (0, 4)
    assert found.outcomes == {"completed": 1, "trap": 1}
    assert (found.modules, found.store_bytes) == (1, world.core.modules.bytes)


def test_an_overview_says_how_long_the_last_jobs_took_by_tier(world: World) -> None:
    agent = world.worker("a")
    for number in range(10):
        world.run(f"j{number}", detach=True)
        world.wait(0.001 * number)
        agent.done(f"j{number}", ran("warm" if number else "compiled", compile_ms=7.0, run_ms=1.0))
    rows = {row["tier"]: row for row in overview(world).tiers}
    assert rows["compiled"]["count"] == 1 and rows["compiled"]["p50_ms"] == 0.0
    assert rows["warm"]["count"] == 9
    assert rows["warm"]["p50_ms"] == pytest.approx(5.0) and rows["warm"]["p99_ms"] == pytest.approx(9.0)


def test_a_job_with_live_input_says_nothing_of_how_long_jobs_take(world: World) -> None:
    agent = world.worker("a")
    world.run("typed", detach=True, stream=True)
    world.wait(0.5)
    agent.done("typed", ran("warm", run_ms=500.0))
    assert overview(world).tiers == () and overview(world).outcomes == {"completed": 1}


def test_the_time_since_it_began_and_what_peers_got_wrong_are_told() -> None:
    world = World(durable=True)
    world.crash()
    world.wait(2.5)
    world.core.count("stale_result")
    found = overview(world)
    assert found.up_ms == pytest.approx(2500.0) and found.rejected == {"stale_result": 1}


def test_clients_are_listed_by_what_becomes_of_their_jobs(world: World) -> None:
    agent = world.worker("a")
    world.run("mine", "alice", principal="alice")
    world.wait(3.0)
    agent.report()
    world.run("his", "bob", principal="bob", request=1)
    world.run("his2", "bob", principal="bob", request=2, detach=True)
    world.run("his3", "bob", principal="bob", request=3, detach=True)
    world.run("his4", "bob", principal="bob", request=4, detach=True)
    agent.done("mine", Result("failed", None, ErrorInfo("deadline_exceeded", "Late.")))
    world.give("bob", Cancel(5, "his4"), "bob")
    rows = world.ask("w", ListClients(1), ClientList).clients
    assert [row["principal"] for row in rows] == ["bob", "alice"]  # who was heard of last goes first
    bob, alice = rows
    assert (alice["failed"], alice["queued"], alice["running"], alice["seen_ms"]) == (1, 0, 0, 3000)
    assert (bob["cancelled"], bob["queued"] + bob["running"], bob["seen_ms"]) == (1, 3, 0)
    assert bob["running"] == len(agent.names)


def test_jobs_that_were_found_in_the_journal_count_for_their_client() -> None:
    world = World(durable=True)
    world.run("old", detach=True)
    world.sync()
    world.crash()
    (row,) = world.ask("w", ListClients(1), ClientList).clients
    assert (row["principal"], row["queued"], row["running"]) == ("local", 1, 0)


def test_any_request_of_a_client_with_jobs_is_a_sign_of_life(world: World) -> None:
    world.run("mine", "alice", principal="alice", detach=True)
    world.wait(5.0)
    world.give("alice", GetStatus(2, "mine"), "alice")
    world.wait(0.25)
    (row,) = world.ask("w", ListClients(1), ClientList).clients
    assert row["seen_ms"] == 250


def test_the_story_of_a_job_is_told_when_it_is_asked_for(world: World) -> None:
    world.run("j", detach=True)
    world.wait(1.0)
    agent = world.worker("first")
    world.wait(0.5)
    agent.report(agent.ref("j"))
    agent.goodbye()
    other = world.worker("second")
    other.done("j", Result("failed", None, ErrorInfo("trap", "It trapped.")))
    plain, told = (world.ask("c", GetStatus(2, "j", story=each), JobStatus) for each in (False, True))
    assert plain.story == ()
    assert [(row["at_ms"], row["what"]) for row in told.story] == [
        (0.0, "accepted"),
        (1000.0, "given to a worker"),
        (1500.0, "running"),
        (1500.0, "back in the queue"),
        (1500.0, "given to a worker (second)"),
        (1500.0, "failed (trap)"),
    ]


def test_a_row_of_a_job_says_where_its_time_went(world: World) -> None:
    agent = world.worker("a")
    world.run("done", detach=True, group="batch")
    world.wait(0.5)
    agent.done("done", ran("compiled", queued_ms=2.0, compile_ms=30.0, run_ms=4.0))
    agent.goodbye()
    world.run("waits", detach=True)
    world.wait(0.25)
    waits, done = world.ask("c", ListJobs(2), JobList).jobs
    assert {"tier": "compiled", "compile_ms": 30.0, "run_ms": 4.0, "total_ms": 500.0, "group": "batch"}.items() <= (
        done.items()
    )
    assert {"tier": "", "queued_ms": 250.0, "run_ms": 0.0, "total_ms": 250.0, "group": ""}.items() <= waits.items()


# --- the observer ------------------------------------------------------------------------------------


def test_an_observer_sees_everybodys_jobs_and_modules(kept: World) -> None:
    kept.run("j", "alice", principal=WHO["alice"], detach=True)
    (row,) = kept.ask("eye", ListJobs(2), JobList, WHO["eye"]).jobs
    assert (row["job"], row["principal"]) == ("j", WHO["alice"])
    assert kept.ask("eye", GetStatus(3, "j", WHO["alice"], True), JobStatus, WHO["eye"]).story
    assert kept.ask("eye", ListModules(4), ModuleList, WHO["eye"]).modules[0]["module"] == DIGEST
    assert kept.ask("eye", ListClients(5), ClientList, WHO["eye"]).clients[0]["name"] == "alice"
    assert kept.ask("eye", GetOverview(6), Overview, WHO["eye"]).accepted == 1


@pytest.mark.parametrize("ask", [lambda who: GetResult(2, "j", 0, who), lambda who: Cancel(2, "j", who)])
def test_an_observer_gets_no_contents_and_ends_nothing(kept: World, ask: Any) -> None:
    kept.run("j", "alice", principal=WHO["alice"], detach=True)
    assert kept.ask("eye", ask(WHO["alice"]), Refused, WHO["eye"]).code == "forbidden"
    assert kept.ask("eye", Run(3, "k", JobSpec(DIGEST)), Refused, WHO["eye"]).code == "forbidden"
    assert kept.core.jobs[WHO["alice"], "j"].state == "queued"


@pytest.mark.parametrize("ask", [ListClients(1), GetOverview(1)])
def test_a_client_is_told_nothing_of_others(kept: World, ask: Any) -> None:
    assert kept.ask("alice", ask, Refused, WHO["alice"]).code == "forbidden"
    assert kept.ask("alice", ListJobs(2, principal="*"), Refused, WHO["alice"]).code == "forbidden"


# --- the meters --------------------------------------------------------------------------------------


def test_a_code_that_a_worker_has_made_up_is_counted_with_the_others_of_its_kind(world: World) -> None:
    agent = world.worker("a")
    for number in range(300):
        world.run(f"j{number}", detach=True)
        agent.done(f"j{number}", Result("failed", None, ErrorInfo(f"made_up_{number}", "Ha.")))
    assert overview(world).outcomes == {"completed": 0, OTHER: 300}


def test_a_time_is_counted_in_the_bucket_that_it_does_not_exceed() -> None:
    seen = Histogram()
    for value in (0.0, BOUNDS[0], BOUNDS[1], BOUNDS[-1], BOUNDS[-1] + 1):
        seen.add(value)
    assert seen.counts == [2, 1, *[0] * (len(BOUNDS) - 3), 1, 1]
    assert seen.total == sum((0.0, BOUNDS[0], BOUNDS[1], BOUNDS[-1], BOUNDS[-1] + 1))


def test_principals_are_forgotten_but_for_those_with_jobs() -> None:
    meters = Meters()
    meters.client("busy", 0.0).unfinished = 1
    for number in range(10 * MAX_CLIENTS):
        meters.client(f"p{number}", float(number))
    assert len(meters.clients) <= MAX_CLIENTS and "busy" in meters.clients
    assert f"p{10 * MAX_CLIENTS - 1}" in meters.clients and "p0" not in meters.clients


def test_many_principals_with_jobs_are_not_gone_through_for_each_new_one() -> None:
    meters, sweeps = Meters(), 0

    class Counted(Meters):
        def _forget(self) -> None:
            nonlocal sweeps
            sweeps += 1
            super()._forget()

    meters = Counted()
    for number in range(20 * MAX_CLIENTS):
        meters.client(f"p{number}", 0.0).unfinished = 1
    assert len(meters.clients) == 20 * MAX_CLIENTS and sweeps <= 5
