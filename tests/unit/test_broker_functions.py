"""Functions at the broker: what a name, a version and an alias mean, and what a call of one runs."""

from __future__ import annotations

import pytest

from minilambda.messages import (
    Call,
    Deploy,
    Deployed,
    JobResult,
    JobSpec,
    ListModules,
    Message,
    ModuleList,
    Put,
    Refused,
    SetAlias,
    Undeploy,
)
from tests.broker_world import DIGEST, WASM, World, digest_of
from tests.function_talk import call, deploy, given, named, refused, rows

# --- versions ----------------------------------------------------------------------------------------


def test_a_call_runs_the_version_that_the_alias_live_names() -> None:
    # given
    world = World()
    agent = world.worker("w")
    assert [deploy(world, args=("one",)), deploy(world, args=("two",)), deploy(world, alias="", args=("three",))] == [
        1, 2, 3]  # fmt: skip
    # when
    assert call(world, "j", stdin=b"in") == []
    # then
    assert given(agent, "j") == JobSpec(DIGEST, args=("two",))
    assert agent.jobs[agent.ref("j")].stdin == b"in"
    agent.done("j", stdout=b"out")
    assert world.only("c", JobResult).stdout == b"out"


@pytest.mark.parametrize(
    ("reference", "argument"), [("f", "3"), ("f@1", "1"), ("f@0002", "2"), ("f@live", "3"), ("f@stable", "1")]
)
def test_a_reference_names_a_version_by_number_or_by_alias(reference: str, argument: str) -> None:
    world = World()
    agent = world.worker("w")
    deploy(world, args=("1",), alias="stable")
    deploy(world, args=("2",))
    deploy(world, args=("3",))

    call(world, "j", reference)

    assert given(agent, "j").args == (argument,)
    assert world.core.jobs["local", "j"].function == f"f@{argument}"


@pytest.mark.parametrize("reference", ["g", "f@2", "f@0", "f@stable", "f@-", "f@99999999999999999999", "f@live"])
def test_what_there_is_not_is_not_found(reference: str) -> None:
    world = World()
    deploy(world, alias="")
    assert refused(call(world, "j", reference)) == "not_found"
    assert world.core.jobs == {}


def test_what_a_call_says_goes_over_what_its_version_says() -> None:
    # given
    world = World()
    agent = world.worker("w", 3)
    whole = JobSpec(DIGEST, ("a", "b"), {"A": "1", "B": "2"}, "run", "trap", 500, 0, 7, 8, 0, 3, "g")
    answer = world.give("d", Deploy(1, "f", whole, wasm=WASM))
    assert type(answer[0]) is Deployed
    # when
    call(world, "i", args=[], env={"B": "3", "C": "4"}, invoke="other", timeout_ms=9, group="h")
    call(world, "j")
    # then
    env = {"A": "1", "B": "3", "C": "4"}
    assert given(agent, "i") == JobSpec(DIGEST, [], env, "other", "trap", 9, 0, 7, 8, 0, 3, "h")
    assert given(agent, "j") == whole


def test_the_specification_of_the_newest_version_is_that_version() -> None:
    world = World()
    assert [deploy(world, args=("a",)) for _ in range(3)] == [1, 1, 1]
    assert deploy(world, args=("b",)) == 2
    assert deploy(world, args=("a",)) == 3
    assert [row["version"] for row in rows(world, "f")] == [3, 2, 1]


def test_a_deploy_without_the_bytes_asks_for_them() -> None:
    # given
    world = World()
    message = Deploy(1, "f", JobSpec(DIGEST))
    # then
    assert refused(world.give("d", message)) == "not_found"
    assert rows(world) == []
    world.give("d", Put(2, DIGEST, len(WASM), data=WASM))
    assert type(world.give("d", message)[0]) is Deployed


def test_a_deploy_names_the_file_that_is_missing() -> None:
    # given
    world = World()
    spec = JobSpec(DIGEST, files={"/lib/a": digest_of(b"a"), "/lib/b": digest_of(b"b")})
    message = Deploy(1, "f", spec, wasm=WASM)
    world.give("d", Put(2, digest_of(b"a"), 1, data=b"a"))
    # when
    (answer,) = world.give("d", message)
    # then
    assert type(answer) is Refused and answer.code == "not_found" and digest_of(b"b") in answer.message
    assert world.core.modules.pinned == 0
    world.give("d", Put(3, digest_of(b"b"), 1, data=b"b"))
    assert type(world.give("d", message)[0]) is Deployed
    assert world.core.modules.pinned == len(WASM) + 2


def test_a_version_keeps_its_module_in_the_store() -> None:
    # given: room for two modules
    world = World(store_bytes=10_000)
    deploy(world, wasm=WASM)
    # when
    for number in range(5):
        world.run("j", wasm=b"\0asm %d" % number, detach=True)
    # then
    (mine,) = [row for row in world.ask("c", ListModules(1), ModuleList).modules if row["module"] == DIGEST]
    assert (mine["jobs"], mine["functions"]) == (0, 1)
    world.give("d", Undeploy(2, "f"))
    assert world.core.modules.pinned == 0


def test_all_functions_together_need_half_of_the_store_at_most() -> None:
    world = World(store_bytes=100_000)
    deploy(world, "f", wasm=bytes(30_000))
    deploy(world, "g", wasm=bytes(30_000))  # the same module
    large = bytes(20_001)
    assert refused(world.give("d", Deploy(1, "h", JobSpec(digest_of(large)), wasm=large))) == "quota_exceeded"
    assert [row["function"] for row in rows(world)] == ["f", "g"]


def test_a_specification_that_is_too_large_makes_no_function() -> None:
    world = World()
    message = Deploy(1, "f", JobSpec(DIGEST, args=("x" * 250_000,)), wasm=WASM)
    assert refused(world.give("d", message)) == "input_too_large"
    half = JobSpec(DIGEST, env={"A": "x" * 150_000})
    assert type(world.give("d", Deploy(1, "f", half, wasm=WASM))[0]) is Deployed
    assert refused(call(world, "j", env={"B": "x" * 150_000})) == "input_too_large"


# --- aliases -----------------------------------------------------------------------------------------


def test_an_alias_is_rolled_back_step_by_step() -> None:
    # given
    world = World()
    for number in range(4):
        deploy(world, args=(str(number),))
    # when
    back = [world.ask("d", SetAlias(1, "f", "live"), Deployed).version for _ in range(3)]
    # then
    assert back == [3, 2, 1] and named(world, "live") == 1
    assert refused(world.give("d", SetAlias(1, "f", "live"))) == "conflict"
    assert world.ask("d", SetAlias(1, "f", "live", 4), Deployed).version == 4
    assert world.ask("d", SetAlias(1, "f", "live"), Deployed).version == 1


def test_a_roll_back_that_is_sent_twice_goes_back_once() -> None:
    world = World()
    for number in range(4):
        deploy(world, args=(str(number),))
    back = SetAlias(1, "f", "live", leaving=4)
    assert [world.ask("d", back, Deployed) for _ in range(2)] == [Deployed(1, "f", 3, "live")] * 2


def test_an_alias_is_set_and_dropped() -> None:
    world = World()
    deploy(world)
    deploy(world, args=("2",))
    assert world.ask("d", SetAlias(1, "f", "stable", 1), Deployed) == Deployed(1, "f", 1, "stable")
    assert named(world, "stable") == 1
    assert world.ask("d", SetAlias(1, "f", "stable", drop=True), Deployed) == Deployed(1, "f", 1, "")
    assert refused(call(world, "j", "f@stable")) == "not_found"


@pytest.mark.parametrize(
    "message",
    [
        SetAlias(1, "f", "stable", 7),
        SetAlias(1, "f", "stable"),
        SetAlias(1, "f", "stable", drop=True),
        SetAlias(1, "g", "live", 1),
        Undeploy(1, "f", 7),
        Undeploy(1, "g"),
    ],
)
def test_a_change_of_what_is_not_there_changes_nothing(message: Message) -> None:
    world = World()
    deploy(world)
    before = rows(world, "f")
    assert refused(world.give("d", message)) in ("not_found", "conflict")
    assert rows(world, "f") == before


@pytest.mark.parametrize("alias", ["7", "-x", "a b", "x" * 65, "é", "a\n"])
def test_what_could_be_no_alias_is_none(alias: str) -> None:
    world = World()
    assert refused(world.give("d", Deploy(1, "f", JobSpec(DIGEST), alias, wasm=WASM))) == "bad_request"
    assert rows(world) == []


def test_a_version_that_an_alias_names_stays_and_others_go() -> None:
    # given
    world = World()
    agent = world.worker("w")
    for number in range(3):
        deploy(world, args=(str(number),))
    # then
    assert refused(world.give("d", Undeploy(1, "f", 3))) == "conflict"
    call(world, "j", "f@2")
    assert world.ask("d", Undeploy(1, "f", 2), Deployed) == Deployed(1, "f", 2, "")
    assert refused(call(world, "k", "f@2")) == "not_found"
    assert given(agent, "j").args == ("1",)
    assert world.ask("d", SetAlias(1, "f", "live"), Deployed).version == 1  # the one between is forgotten
    assert deploy(world, args=("3",)) == 4


def test_an_undeployed_function_is_gone_and_its_jobs_go_on() -> None:
    world = World()
    agent = world.worker("w")
    deploy(world)
    call(world, "j")
    assert world.ask("d", Undeploy(1, "f"), Deployed) == Deployed(1, "f", 0, "")
    assert rows(world) == [] and refused(call(world, "k")) == "not_found"
    agent.done("j")
    assert world.only("c", JobResult).result.state == "completed"


def test_the_last_version_takes_the_function_along() -> None:
    world = World()
    deploy(world, alias="")
    world.ask("d", Undeploy(1, "f", 1), Deployed)
    assert rows(world) == [] and deploy(world) == 1


# --- calls that are sent again -------------------------------------------------------------------------


def test_a_call_that_is_sent_again_is_the_same_job_whatever_the_alias_names_meanwhile() -> None:
    # given
    world = World()
    agent = world.worker("w")
    deploy(world, args=("old",))
    call(world, "j", stdin=b"in", env={"A": "1"})
    # when
    deploy(world, args=("new",))
    call(world, "j", stdin=b"in", env={"A": "1"}, again=True)
    # then
    assert given(agent, "j").args == ("old",)
    agent.done("j", stdout=b"out")
    assert world.only("c", JobResult).stdout == b"out"
    world.open.clear()  # the first one of the connection is answered no more
    assert call(world, "j", stdin=b"in", env={"A": "1"}, again=True)[0].stdout == b"out"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "other",
    [
        Call(1, "j", "f@1", args=("a",), stdin=b"in"),
        Call(1, "j", "f", args=("b",), stdin=b"in"),
        Call(1, "j", "f", stdin=b"in"),
        Call(1, "j", "f", args=("a",), env={"A": "b"}, stdin=b"in"),
        Call(1, "j", "f", args=("a",), invoke="x", stdin=b"in"),
        Call(1, "j", "f", args=("a",), timeout_ms=5, stdin=b"in"),
        Call(1, "j", "f", args=("a",), stdin=b"other"),
        Call(1, "j", "f", args=("a",)),
        Call(1, "plain", "f"),
    ],
)
def test_another_call_with_the_id_of_a_job_is_a_conflict(other: Call) -> None:
    world = World()
    deploy(world)
    world.run("plain", "p")
    call(world, "j", args=("a",), stdin=b"in")
    assert refused(world.give("e", other)) == "conflict"


def test_a_call_of_a_job_whose_result_is_gone_has_expired_although_its_function_is_gone_too() -> None:
    world = World(result_ttl=10.0)
    agent = world.worker("w")
    deploy(world)
    call(world, "j")
    agent.done("j")
    world.give("d", Undeploy(1, "f"))
    world.wait(11.0)
    assert refused(call(world, "j")) == "expired"
