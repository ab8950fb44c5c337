"""Functions at the broker: who sees which, who may share them, and how many one may have."""

from __future__ import annotations

import pytest

from minilambda.broker import function_table
from minilambda.broker.authority import Authority, make_entry
from minilambda.broker.functions import MAX_ALIASES, MAX_HISTORY, MAX_VERSIONS
from minilambda.curve import make_pair
from minilambda.keys import principal_of
from minilambda.messages import (
    Accepted,
    Call,
    Deploy,
    Deployed,
    JobList,
    JobSpec,
    ListFunctions,
    ListJobs,
    ListModules,
    ModuleList,
    Refused,
    Run,
    RunAgain,
    SetAlias,
    Undeploy,
)
from tests.broker_world import DIGEST, WASM, Agent, World
from tests.function_talk import OTHER, call, deploy, given, refused, rows

# --- lists, and other people's -------------------------------------------------------------------------


def test_functions_are_listed_by_the_version_that_is_called_and_one_by_all_its_versions() -> None:
    # given
    world = World()
    deploy(world, args=("1",), alias="stable")
    world.wait(2.0)
    deploy(world, args=("2",), invoke="run")
    deploy(world, args=("3",), alias="")
    deploy(world, "g", alias="", wasm=OTHER)
    # then
    row = {
        "function": "f", "version": 2, "module": DIGEST, "aliases": ["live"], "age_ms": 0, "shared": False,
        "principal": "local", "invoke": "run", "versions": 3,
    }  # fmt: skip
    first, second = rows(world)
    assert first == row and (second["function"], second["version"], second["aliases"]) == ("g", 1, [])
    found = [(each["version"], each["aliases"], each["age_ms"]) for each in rows(world, "f")]
    assert found == [(3, [], 0), (2, ["live"], 0), (1, ["stable"], 2000)]
    assert rows(world, "nothing") == []


def test_jobs_are_listed_with_the_function_that_they_call() -> None:
    world = World()
    deploy(world)
    call(world, "j")
    world.run("k", "d")
    found = {row["job"]: row["function"] for row in world.ask("l", ListJobs(1), JobList).jobs}
    assert found == {"j": "f@1", "k": ""}


def test_the_functions_of_strangers_are_unseen() -> None:
    world = World()
    deploy(world, principal="ann")
    assert rows(world, principal="bob") == rows(world, "f", principal="bob") == []
    mine = world.give("c", Call(1, "j", "f"), "bob")
    nothing = world.give("c", Call(1, "j", "g"), "bob")
    assert mine[0].message.replace("'f'", "'g'") == nothing[0].message  # type: ignore[attr-defined]
    for message in (SetAlias(1, "f", "live", 1), Undeploy(1, "f")):
        assert refused(world.give("d", message, "bob")) == "not_found"
    assert deploy(world, principal="bob", args=("his",)) == 1
    assert len(rows(world, principal="ann")) == 1


def test_a_shared_function_runs_for_everybody_with_a_module_that_only_its_owner_may_use() -> None:
    # given
    world = World(durable=True)
    deploy(world, shared=True, args=("shared",), principal="root")
    agent = Agent(world, "w", 2)
    agent.register()
    # when
    call(world, "j", principal="ann", detach=True)
    world.sync()
    # then
    assert world.only("c", Accepted).job == "j"
    assert given(agent, "j").args == ("shared",)
    assert refused(world.give("c", Run(2, "k", JobSpec(DIGEST)), "ann")) == "not_found"
    assert world.ask("c", ListModules(3), ModuleList, "ann").modules == ()
    (row,) = rows(world, principal="ann")
    assert (row["function"], row["shared"], row["principal"]) == ("f", True, "root")
    # and after a restart
    world.crash()
    world.wait(6.0)
    other = Agent(world, "x", 2)
    other.register()
    world.sync()
    other.done("j")
    world.sync()
    assert world.core.jobs["ann", "j"].state == "completed"
    assert refused(world.give("c", Run(4, "k", JobSpec(DIGEST)), "ann")) == "not_found"
    world.give("c", RunAgain(5, "again", "j"), "ann")
    world.sync()
    assert world.only("c", Accepted).job == "again" and other.names == ["again"]


def test_ones_own_function_hides_a_shared_one() -> None:
    world = World()
    agent = world.worker("w")
    deploy(world, shared=True, args=("shared",), principal="root")
    deploy(world, args=("own",), principal="ann", wasm=OTHER)
    call(world, "j", principal="ann")
    assert given(agent, "j").args == ("own",)
    assert [row["principal"] for row in rows(world, principal="ann")] == ["ann"]
    assert refused(world.give("d", Deploy(1, "f", JobSpec(DIGEST), "live", True, WASM), "bob")) == "conflict"


# --- roles ---------------------------------------------------------------------------------------------

PUBLIC = {role: make_pair().public for role in ("admin", "client", "observer")}
WHO = {role: principal_of(public) for role, public in PUBLIC.items()}
LIST = Authority([make_entry(role, public, role) for role, public in PUBLIC.items()])


@pytest.fixture
def keyed() -> World:
    """A broker with keys. The principals are those of ``WHO``."""
    world = World()
    world.core.access.authority = LIST
    return world


def test_only_an_admin_may_share_a_function(keyed: World) -> None:
    message = Deploy(1, "f", JobSpec(DIGEST), "live", True, WASM)
    assert refused(keyed.give("d", message, WHO["client"])) == "forbidden"
    assert rows(keyed, principal=WHO["client"]) == []
    deploy(keyed, principal=WHO["admin"], shared=True)
    assert call(keyed, "j", principal=WHO["client"]) == []


def test_what_an_admin_has_shared_goes_with_its_role(keyed: World) -> None:
    # given
    deploy(keyed, principal=WHO["admin"], shared=True)
    # when
    keyed.core.access.authority = LIST.with_key("client", PUBLIC["admin"], "admin")
    # then
    assert refused(call(keyed, "j", principal=WHO["client"])) == "not_found"
    assert rows(keyed, principal=WHO["client"]) == []
    assert call(keyed, "k", principal=WHO["admin"]) == []


def test_an_admin_and_an_observer_see_the_functions_of_others_and_a_client_does_not(keyed: World) -> None:
    deploy(keyed, principal=WHO["client"])
    deploy(keyed, "g", principal=WHO["admin"])
    assert [row["function"] for row in rows(keyed, principal=WHO["admin"], whose="*")] == ["f", "g"]
    assert [row["function"] for row in rows(keyed, principal=WHO["admin"], whose=WHO["client"])] == ["f"]
    assert [row["function"] for row in rows(keyed, principal=WHO["admin"])] == ["g"]
    assert [row["function"] for row in rows(keyed, principal=WHO["observer"])] == ["f", "g"]
    assert refused(keyed.give("l", ListFunctions(1, "", "*"), WHO["client"])) == "forbidden"
    for message in (Call(1, "j", "f"), Undeploy(2, "f"), Deploy(3, "f", JobSpec(DIGEST), wasm=WASM)):
        assert refused(keyed.give("o", message, WHO["observer"])) == "forbidden"


# --- bounds ------------------------------------------------------------------------------------------


def test_the_oldest_versions_go_but_those_that_aliases_need() -> None:
    # given
    world = World(audited=False)
    deploy(world, args=("1",), alias="stable")
    deploy(world, args=("2",), alias="stable")
    # when
    for number in range(3, 3 * MAX_VERSIONS):
        deploy(world, args=(str(number),))
    # then
    world.audit()
    kept = sorted(row["version"] for row in rows(world, "f"))
    assert kept == [1, 2, *range(2 * MAX_VERSIONS + 2, 3 * MAX_VERSIONS)] and len(kept) == MAX_VERSIONS
    assert world.ask("d", SetAlias(1, "f", "stable"), Deployed).version == 1
    back = [world.ask("d", SetAlias(1, "f", "live"), Deployed).version for _ in range(MAX_HISTORY - 1)]
    assert back == [3 * MAX_VERSIONS - 2 - step for step in range(MAX_HISTORY - 1)]
    assert refused(world.give("d", SetAlias(1, "f", "live"))) == "conflict"


def test_one_function_has_so_many_aliases_and_one_client_so_many_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_table, "MAX_FUNCTIONS", 3)
    world = World()
    for number in range(MAX_ALIASES):
        deploy(world, alias=f"a{number}", args=(str(number),))
    assert refused(world.give("d", SetAlias(1, "f", "more", 1))) == "quota_exceeded"
    assert refused(world.give("d", Deploy(1, "f", JobSpec(DIGEST), "more", wasm=WASM))) == "quota_exceeded"
    deploy(world, "g")
    deploy(world, "h")
    assert refused(world.give("d", Deploy(1, "i", JobSpec(DIGEST), wasm=WASM))) == "quota_exceeded"
    deploy(world, "i", principal="somebody else")


def test_any_number_of_deploys_of_one_client_stays_bounded() -> None:
    # given
    world = World(audited=False, durable=True)
    # when
    for number in range(5_000):
        message = Deploy(1, f"f{number % 7}", JobSpec(DIGEST, args=(f"{number}", "x" * 2000)), wasm=WASM)
        world.give("d", message)
        if number % 1000 == 999:
            world.sync()
    # then
    table = world.core.functions.table
    assert len(list(table.specs())) == 7 * MAX_VERSIONS and table.bytes < 7 * MAX_VERSIONS * 3000
    assert world.disk.execute("SELECT count(*) FROM versions").fetchone() == (7 * MAX_VERSIONS,)
    assert not world.core.functions.pending
    world.audit()


def test_versions_with_much_to_say_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(function_table, "MAX_BYTES", 1_000_000)
    monkeypatch.setattr(function_table, "MAX_ALL_BYTES", 1_500_000)
    world = World()

    def fill(principal: str) -> str:
        for number in range(20):
            spec = JobSpec(DIGEST, args=("x" * 200_000, str(number)))
            answers = world.give("d", Deploy(1, "f", spec, wasm=WASM), principal)
            if type(answers[0]) is Refused:
                return refused(answers)
        return ""

    assert fill("ann") == "quota_exceeded" and fill("bob") == "busy"
    world.ask("d", Undeploy(1, "f"), Deployed, "ann")
    assert fill("bob") == "quota_exceeded"
