"""The quick functions say the same as the tables that they are made of."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest

from minilambda.codegen import MAX_SHARED, reader_of, writer_of
from minilambda.errors import BadRequest
from minilambda.messages import ErrorInfo, JobRef, JobSpec, Message, Result, Run, Usage
from minilambda.shapes import Field, shape_of, values_of
from minilambda.wire import decode, encode
from tests.unit.wire_frames import BY_NAME, DIGEST, LIMIT

PARTS = (JobSpec, Result, Usage, ErrorInfo)
CLASSES = (*BY_NAME.values(), *PARTS)
VALUES: tuple[Any, ...] = (
    *(
        1,
        0,
        -1,
        2**63,
        1.5,
        True,
        None,
        "",
        "x",
        "a\0",
        DIGEST,
        DIGEST[:-1] + "g",
        "failed",
        "trap",
        "wait",
        "warm",
        "stdout",
        b"x",
    ),
    *([], [1], ["x"], [{"a": 1}], ["p", "j", 1], ["p", "j", 0], ["p", 1, 1], ["p", "j"], [["p", "j", 1]], [[1]]),
    *(
        {},
        {"a": 1},
        {"a": "b"},
        {"/a": DIGEST},
        {"/a/../b": DIGEST},
        ["/a"],
        {"module": DIGEST},
        {"module": DIGEST, "retries": 1},
        {"module": ["x"]},
    ),
    *(
        {"code": "trap", "message": "m"},
        {"state": "failed", "usage": {"run_ms": 1}},
        {"state": "failed", "error": {}},
        {"run_ms": 1},
    ),
)


def takes(field: Field, value: Any) -> bool:
    try:
        field.decode(value)
    except BadRequest:
        return False
    return value is not None


def right_values(cls: type[Any]) -> dict[str, Any]:
    """A header with every field, each with a value that it takes."""
    return {
        name: next(value for value in reversed(VALUES) if takes(field, value))
        for name, field in shape_of(cls).fields.items()
    }


RIGHT = {cls: right_values(cls) for cls in CLASSES}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_header_that_is_right_goes_the_quick_way(cls: type[Message]) -> None:
    shape, full = shape_of(cls), RIGHT[cls]
    for header in (full, {name: full[name] for name in shape.required}):
        assert reader_of(cls)(header, None, 0) == cls(**values_of(header, shape, ""))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_what_the_quick_way_makes_of_a_header_the_tables_make_too(cls: type[Message]) -> None:
    chance = random.Random(cls.__name__)
    names, taken = [*RIGHT[cls], "stream", "later"], 0
    for _ in range(500):
        header = dict(RIGHT[cls])
        for name in chance.sample(names, chance.randrange(3)):
            header[name] = chance.choice(VALUES)
        for name in chance.sample(names, chance.randrange(3)):
            header.pop(name, None)
        try:
            quick = reader_of(cls)(header, None, 0)
        except (KeyError, TypeError):
            continue
        if quick is not None:
            assert quick == cls(**values_of(header, shape_of(cls), ""))
            taken += 1
    assert taken


@pytest.mark.parametrize("cls", BY_NAME.values(), ids=lambda cls: cls.__name__)
def test_a_message_with_everything_comes_back(cls: type[Message]) -> None:
    message = cls(**values_of(RIGHT[cls], shape_of(cls), ""))
    header = msgpack.unpackb(encode(message)[0])
    assert {name for name in header if name not in ("v", "type")} <= RIGHT[cls].keys()
    assert decode(encode(message), BY_NAME, LIMIT) == message


def test_a_spec_of_a_module_alone_is_made_once_and_only_so_many_are_kept() -> None:
    def decoded(digest: str) -> JobSpec:
        message = decode(encode(Run(1, "j", JobSpec(digest))), BY_NAME, LIMIT)
        assert isinstance(message, Run)
        return message.spec

    assert decoded(DIGEST) is decoded(DIGEST)
    first = decoded(DIGEST)
    for number in range(MAX_SHARED + 1):
        decoded(f"sha256:{number:064x}")
    assert decoded(DIGEST) is not first


def test_a_spec_that_was_sent_is_shared_only_if_it_has_nothing_but_its_module() -> None:
    # given
    plain, other = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    sent = [JobSpec(plain), JobSpec(other, args=("x",))]
    frames = [encode(Run(1, "j", spec)) for spec in sent]
    # when
    found = [decode(encode(Run(2, "k", JobSpec(digest))), BY_NAME, LIMIT) for digest in (plain, other)]
    # then
    assert [message.spec for message in found if isinstance(message, Run)] == [JobSpec(plain), JobSpec(other)]
    assert [encode(Run(1, "j", spec)) for spec in sent] == frames


def test_a_reference_is_a_tuple_that_travels_as_a_list() -> None:
    assert reader_of(JobRef)(["p", "j", 1]) == JobRef("p", "j", 1)
    assert writer_of(Usage)(Usage()) == {}
