"""What a test says to a broker's core about functions, and looks at."""

from __future__ import annotations

from typing import Any

import msgpack

from minilambda.messages import Call, Deploy, Deployed, FunctionList, JobSpec, ListFunctions, Message, Refused
from tests.broker_world import WASM, Agent, World, digest_of

OTHER = b"\0asm another"
"""A module that is not ``WASM``."""


def deploy(world: World, name: str = "f", *, wasm: bytes = WASM, alias: str = "live", shared: bool = False,
           principal: str = "local", **spec: Any) -> int:  # fmt: skip
    """Deploy a version and return its number."""
    message = Deploy(1, name, JobSpec(digest_of(wasm), **spec), alias, shared, wasm)
    answers = world.give("d", message, principal)
    if not answers:
        world.sync()
        answers = world.take("d")
    (answer,) = answers
    assert type(answer) is Deployed and answer.function == name and answer.alias == alias, answer
    return answer.version


def refused(answers: list[Message]) -> str:
    (answer,) = answers
    assert type(answer) is Refused and answer.message.endswith("."), answer
    return answer.code


def call(world: World, job: str, function: str = "f", *, peer: str = "c", principal: str = "local",
         **rest: Any) -> list[Message]:  # fmt: skip
    return world.give(peer, Call(1, job, function, **rest), principal)


def given(agent: Agent, job: str) -> JobSpec:
    """What the worker was told to run."""
    return agent.jobs[agent.ref(job)].spec


def rows(world: World, name: str = "", principal: str = "local", whose: str = "") -> list[dict[str, Any]]:
    answer = world.ask("l", ListFunctions(1, name, whose), FunctionList, principal)
    assert len(msgpack.packb(answer.functions)) < 250_000
    return list(answer.functions)


def named(world: World, alias: str, name: str = "f") -> int:
    """The version that an alias names; 0: none."""
    return next((row["version"] for row in rows(world, name) if alias in row["aliases"]), 0)
