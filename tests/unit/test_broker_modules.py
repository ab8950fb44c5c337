"""Modules in the store: how they get there, who may use them, which go first."""

from __future__ import annotations

import pytest

from minilambda.broker.events import DropModule, DropUpload, KeepUpload, ModuleSlice, StoreModule, WritePiece
from minilambda.broker.modules import MAX_UPLOADS, OVERHEAD
from minilambda.messages import (
    JobSpec,
    ListModules,
    Message,
    ModuleList,
    Put,
    Refused,
    Run,
    Stored,
)
from tests.broker_world import DIGEST, WASM, World, digest_of

LARGE = bytes(range(256)) * 4096  # 1 MiB
KIB = 1024


def put(world: World, data: bytes, offset: int, end: int, principal: str = "local") -> Message:
    (answer,) = world.give("c", Put(1, digest_of(data), len(data), offset, data[offset:end]), principal)
    return answer


def code(message: Message) -> str:
    assert type(message) is Refused, message
    return message.code


def part_of(world: World, message: Message) -> ModuleSlice:
    return world.slices[id(message)]


# --- put ---------------------------------------------------------------------------------------------


def test_a_module_arrives_in_pieces_and_can_then_be_run_by_its_hash() -> None:
    world = World()
    assert put(world, LARGE, 0, 0) == Stored(1, digest_of(LARGE), 0, False)
    assert put(world, LARGE, 0, 1000) == Stored(1, digest_of(LARGE), 1000, False)
    assert put(world, LARGE, 1000, len(LARGE)) == Stored(1, digest_of(LARGE), len(LARGE), True)
    assert world.store == [WritePiece(1, LARGE[:1000]), WritePiece(1, LARGE[1000:]), KeepUpload(1, digest_of(LARGE))]
    assert world.give("c", Run(2, "j", JobSpec(digest_of(LARGE)))) == []


def test_a_piece_at_another_offset_changes_nothing_and_the_answer_says_where_to_go_on() -> None:
    world = World()
    put(world, LARGE, 0, 1000)
    for offset in (0, 999, 1001, len(LARGE)):
        assert put(world, LARGE, offset, offset + 10) == Stored(1, digest_of(LARGE), 1000, False)
    assert world.store == [WritePiece(1, LARGE[:1000])]


def test_the_last_piece_sent_twice_is_answered_twice() -> None:
    world = World()
    put(world, WASM, 0, len(WASM))
    assert put(world, WASM, 0, len(WASM)) == Stored(1, DIGEST, len(WASM), True)


def test_pieces_with_another_hash_are_refused_and_forgotten() -> None:
    world = World()
    assert code(world.give("c", Put(1, DIGEST, 4, 0, b"evil"))[0]) == "bad_request"
    assert world.store[-1] == DropUpload(1)
    assert put(world, WASM, 0, 0) == Stored(1, DIGEST, 0, False)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Put(1, DIGEST, 0), "bad_request"),
        (Put(1, DIGEST, 101), "module_too_large"),
        (Put(1, DIGEST, 2, 0, b"abc"), "bad_request"),
    ],
)
def test_a_put_that_can_not_be_is_refused(message: Put, expected: str) -> None:
    world = World(max_module_bytes=100)
    assert code(world.give("c", message)[0]) == expected


def test_another_size_begins_anew() -> None:
    world = World()
    world.give("c", Put(1, DIGEST, 999, 0, WASM[:4]))
    assert put(world, WASM, 0, len(WASM)) == Stored(1, DIGEST, len(WASM), True)
    assert DropUpload(1) in world.store


def test_an_upload_that_stops_is_dropped_after_a_while() -> None:
    world = World()
    put(world, LARGE, 0, 1000)
    world.wait(59.0)
    put(world, LARGE, 1000, 2000)
    world.wait(59.0)
    assert put(world, LARGE, 0, 0) == Stored(1, digest_of(LARGE), 2000, False)
    world.wait(2.0)
    assert world.store[-1] == DropUpload(1)
    assert world.core.modules.bytes == 0


def test_uploads_at_a_time_are_bounded() -> None:
    world = World()
    for number in range(MAX_UPLOADS):
        data = b"%08d" % number
        assert type(put(world, data, 0, 4)) is Stored
    assert code(put(world, LARGE, 0, 4)) == "busy"
    assert type(put(world, LARGE, 0, 4, "ann")) is Stored


# --- who may use what --------------------------------------------------------------------------------


def test_a_module_is_unknown_to_a_principal_that_has_not_sent_its_bytes() -> None:
    world = World()
    world.run("j", principal="ann", detach=True)
    assert code(world.give("b", Run(1, "j", JobSpec(DIGEST)), "bob")[0]) == "not_found"
    assert put(world, WASM, 0, 0, "bob") == Stored(1, DIGEST, 0, False)
    assert put(world, WASM, 0, len(WASM), "bob") == Stored(1, DIGEST, len(WASM), True)
    assert world.give("b", Run(1, "j", JobSpec(DIGEST)), "bob") == []
    assert world.store == [StoreModule(DIGEST, WASM), WritePiece(1, WASM), DropUpload(1)]


def test_the_list_has_the_modules_of_the_principal_only() -> None:
    world = World()
    world.run("j", principal="ann", detach=True)
    world.run("k", principal="bob", detach=True, wasm=b"\0asm bob's")
    world.wait(2.0)
    rows = world.ask("c", ListModules(1), ModuleList, "ann").modules
    assert rows == ({"module": DIGEST, "size": len(WASM), "used_ms": 2000, "jobs": 1, "functions": 0},)


# --- bounds ------------------------------------------------------------------------------------------


def sized(number: int, size: int) -> bytes:
    return b"%08d" % number + bytes(size - 8)


def test_the_least_recently_used_module_goes_first() -> None:
    world = World(store_bytes=3 * (OVERHEAD + 100))
    agent = world.worker("w", 9)
    for number in (1, 2, 3):
        world.run(f"j{number}", wasm=sized(number, 100), detach=True)
        agent.done(f"j{number}")
    world.run("again", wasm=sized(1, 100), detach=True)
    agent.done("again")
    world.run("j4", wasm=sized(4, 100), detach=True)
    assert world.store[-2:] == [
        DropModule(digest_of(sized(2, 100))),
        StoreModule(digest_of(sized(4, 100)), sized(4, 100)),
    ]


def test_a_module_that_an_unfinished_job_needs_stays_and_the_answer_is_busy() -> None:
    world = World(store_bytes=OVERHEAD + 100)
    agent = world.worker("w", 9)
    world.run("j1", wasm=sized(1, 100))
    assert code(world.run("j2", "d", wasm=sized(2, 100))[0]) == "busy"
    assert code(put(world, sized(2, 100), 0, 100)) == "busy"
    agent.done("j1")
    assert world.run("j2", "d", wasm=sized(2, 100)) == []
