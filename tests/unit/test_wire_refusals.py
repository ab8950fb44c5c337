"""Every way that frames can be no message."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilambda.fields import MAX_FRAME
from minilambda.messages import (
    CLIENT_MESSAGES,
    Cancel,
    GetStatus,
)
from minilambda.shapes import MAX_REFS
from minilambda.wire import VERSION, Malformed, by_name, decode, split_envelope
from tests.unit.wire_frames import BY_NAME, DIGEST, LIMIT, header, hello, refuse, there_and_back

# --- what is wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [[], [bytes(MAX_FRAME + 1)]])
def test_frames_that_are_too_few_or_too_large_are_no_message(frames: list[bytes]) -> None:
    assert refuse(*frames).error.code == "bad_request"


@pytest.mark.parametrize(
    ("version", "code"),
    [
        (2, "unsupported_version"),
        (0, "unsupported_version"),
        (None, "bad_request"),
        ("1", "bad_request"),
        (True, "bad_request"),
    ],
)
def test_another_version_is_refused_with_the_request_that_asked(version: object, code: str) -> None:
    error = refuse(header(v=version, type="hello", request=5, job="j"))
    assert (error.error.code, error.request, error.job) == (code, 5, "j")


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\xc1",
        b"\x91" * 3000,
        b"\x91" * 1000 + b"\xc0",
        b"\x81\xa4type" + b"\x91" * 900 + b"\xc0",
        b"\x81" * 500,
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x80\x80",
        b"\xa1\xff",
        b"\x81\xa1\xff\x01",
        b"\x81\x01\x02",
        b"\x93\x01\x02\x03",
        b"\xd6\xff\x00\x00\x00\x00",
        b"\xc7\xff\xff",
        b"\x81\xa4type\xd8\xff" + bytes([255] * 16),
        b"\x81\x81\x01\x02\x03",
        b"\x00" * 1000,
    ],
    ids=lambda junk: junk[:8].hex(),
)
def test_a_header_that_is_no_map_of_msgpack_is_refused(junk: bytes) -> None:
    assert refuse(junk).error.code == "bad_request"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"type": 7},
        {"type": "registered", "request": 1},
        {"type": ["run"], "request": 1},
        {"type": {"a": 1}},
        {"type": "x" * 10_000},
        {"type": b"hello", "request": 1},
    ],
)
def test_a_type_that_is_not_accepted_is_refused(fields: dict) -> None:
    with pytest.raises(Malformed):
        decode([header(**fields)], by_name(CLIENT_MESSAGES), LIMIT)


@pytest.mark.parametrize("request_", [None, -1, 2**63, 1.0, "1", True, [1]])
def test_a_request_number_that_is_none_is_refused_and_answered_with_0(request_: Any) -> None:
    error = refuse(header(type="hello", request=request_))
    assert (error.error.code, error.request) == ("bad_request", 0)
    assert "request" in error.error.message


@pytest.mark.parametrize("job", ["", "a/b", "-a", "x" * 65, "a\n", "\N{SNOWMAN}", 5, None, b"j"])
def test_a_job_id_has_few_characters(job: Any) -> None:
    assert "job" in refuse(header(type="cancel", request=4, job=job)).error.message
    assert there_and_back(Cancel(1, "A-z_0.9")) == Cancel(1, "A-z_0.9")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("module", "sha256:" + "AB" * 32),
        ("module", "ab" * 32),
        ("args", "text"),
        ("args", [1]),
        ("args", ["nul\0"]),
        ("args", ["x"] * 4097),
        ("env", {"": "x"}),
        ("env", {"k": 1}),
        ("env", ["k"]),
        ("env", {"k\0": "v"}),
        ("timeout_ms", -1),
        ("timeout_ms", 1.5),
        ("memory_bytes", 2**48 + 1),
        ("retries", 101),
        ("retries", True),
        ("priority", -101),
        ("group", "x" * 129),
        ("unknown_imports", "ignore"),
        ("if_no_workers", None),
        ("invoke", 5),
    ],
)
def test_a_value_out_of_its_limits_is_refused_by_its_name(field: str, value: Any) -> None:
    spec = {"module": DIGEST, field: value}
    error = refuse(header(type="run", request=1, job="j", spec=spec))
    assert f"spec: {field}: must be" in error.error.message
    assert (error.request, error.job) == (1, "j")


@pytest.mark.parametrize(
    "artifacts", [DIGEST, 5, {DIGEST: 1}, [5], ["sha256:x"], [DIGEST, None], [DIGEST + "0"], [DIGEST] * 33, [[DIGEST]]]
)
def test_a_worker_names_few_modules_and_by_their_digests(artifacts: Any) -> None:
    error = refuse(header(type="register", worker="w", name="w", slots=1, artifacts=artifacts))
    assert "artifacts: must be a list of at most 32 digests" in error.error.message


@pytest.mark.parametrize("spec", [None, 5, [], {}, {"args": []}])
def test_a_part_that_is_missing_is_refused(spec: Any) -> None:
    assert "spec" in refuse(header(type="run", request=1, job="j", spec=spec)).error.message


@pytest.mark.parametrize(
    "refs",
    [
        5,
        [5],
        [["p", "j"]],
        [["p", "j", 0]],
        [["p", "j", 1, 2]],
        [["p", "", 1]],
        [[None, "j", 1]],
        [["p", "j", 1]] * 4097,
    ],
)
def test_references_to_jobs_are_checked(refs: Any) -> None:
    assert MAX_REFS == 4096
    frames = header(type="report", session=1, queue=0, seen=0, running=refs)
    assert "running" in refuse(frames).error.message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "1", True])
def test_a_duration_is_a_sensible_number(value: Any) -> None:
    result = {"state": "completed", "usage": {"run_ms": value}}
    frames = header(type="done", session=1, ref=["p", "j", 1], queue=0, seen=0, result=result)
    assert "run_ms" in refuse(frames).error.message


# --- bodies ------------------------------------------------------------------------------------------


def run_header(bodies: Any) -> bytes:
    return header(type="run", request=1, job="j", spec={"module": DIGEST}, bodies=bodies)


@pytest.mark.parametrize(
    ("bodies", "frames"),
    [
        (5, []),
        ([5], []),
        ([["stdin"]], [b"x"]),
        ([["stdin", 1, 2]], [b"x"]),
        ([["stdout", 1]], [b"x"]),
        ([[["stdin"], 1]], [b"x"]),
        ([["stdin", 1], ["stdin", 1]], [b"x", b"y"]),
        ([["stdin", 0]], []),
        ([["stdin", -1]], [b"x"]),
        ([["stdin", True]], [b"x"]),
        ([["stdin", 2]], [b"x"]),
        ([["stdin", 1]], [b"xy"]),
        ([["stdin", 1]], []),
        ([["stdin", 1]], [b"x", b"more"]),
        ([["stdin", 1]], [b"", b"x"]),
        ([["stdin", MAX_FRAME + 1]], [bytes(MAX_FRAME + 1)]),
        ([["stdin", 600], ["values", 600]], [bytes(600), bytes(600)]),
        ([["stdin", 2**60]], [b"x"]),
        ([["wasm", 1], ["stdin", 1], ["values", 1], ["wasm", 1]], [b"x"] * 4),
        ({}, []),
        ("", []),
        ([["nope", b"x"]], []),
        ([["stdin", b"x"], ["stdin", b"y"]], []),
    ],
)
def test_bodies_that_do_not_fit_their_list_are_refused(bodies: Any, frames: list[bytes]) -> None:
    error = refuse(run_header(bodies), *frames, max_body=1000)
    assert error.error.message.startswith("bodies:")
    assert (error.request, error.job) == (1, "j")


def test_frames_that_no_list_names_are_refused() -> None:
    assert "bodies" in refuse(*hello(), b"extra").error.message


# --- envelopes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([b"id", b"", b"x"], ((b"id", b""), [b"x"])),
        ([b"id", b"corr", b"", b"", b"x"], ((b"id", b"corr", b""), [b"", b"x"])),
        ([b"id", b""], ((b"id", b""), [])),
        ([b"id", b"x"], None),
        ([b"id", b"e" * 255, b"", b"x"], ((b"id", b"e" * 255, b""), [b"x"])),
        ([b"id", b"e" * 256, b"", b"x"], None),
        ([b"id"] * 8 + [b"", b"x"], None),
        ([], None),
    ],
)
def test_the_envelope_ends_with_the_first_empty_frame(frames: list[bytes], expected: Any) -> None:
    assert split_envelope(frames) == expected


# --- anything at all ---------------------------------------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(sorted({name for cls in BY_NAME.values() for name in cls.__dataclass_fields__} | {"bodies"}))


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(BY_NAME)),
    st.dictionaries(names, plain, max_size=8),
    st.lists(st.binary(max_size=9), max_size=3),
)
def test_any_header_is_a_message_or_is_refused(name: str, fields: dict, frames: list[bytes]) -> None:
    try:
        message = decode([msgpack.packb({"v": VERSION, **fields, "type": name}), *frames], BY_NAME, 1000)
    except Malformed as error:
        assert error.error.message
    else:
        assert name == message.TYPE


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_frames_are_a_message_or_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(Malformed):
        decode(frames, BY_NAME, 1000)


def test_status_and_state_have_different_names() -> None:
    assert GetStatus.TYPE != "state"
