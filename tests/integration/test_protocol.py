"""The protocol of `docs/protocol.md`, spoken by a client that knows nothing of minilambda but that page."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
import zmq

from tests import wat
from tests.cluster import ROOT, Cluster
from tests.integration.guests import CAT, HELLO, LOOP, padded, sleeping
from tests.integration.plain import VERSION, Plain, digest, new_job, run, spec


@pytest.fixture(scope="module")
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def plain(cluster: Cluster, context: zmq.Context[Any]) -> Iterator[Plain]:
    made = Plain(context, cluster.address)
    yield made
    made.socket.close()


# --- the dumps in the page -------------------------------------------------------------------------------


def dumped(name: str) -> list[bytes]:
    """The frames of a dump in the page: the hex digits at the start of each line, a frame after each heading."""
    page = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    block = page.split(f"<!-- dump: {name} -->")[1].split("```")[1]
    frames = []
    for part in re.split(r"^frame \d.*$", block, flags=re.M)[1:]:
        lines = [line[:55] for line in part.splitlines()]
        frames.append(bytes.fromhex(" ".join(lines)))
    return frames


def test_the_page_shows_the_bytes_of_a_run(plain: Plain) -> None:
    # given
    frames = dumped("run")
    # when
    plain.socket.send_multipart([*plain.empty, *frames])
    header, bodies = plain.receive()
    # then
    assert len(frames) == 2
    assert (header["request"], header["job"]) == (2, "my-first-job")
    assert header["result"]["state"] == "completed" and header["result"]["exit_code"] == 0 and not bodies


def test_the_page_shows_the_bytes_of_the_first_exchange(cluster: Cluster, plain: Plain) -> None:
    # given
    hello, welcome = dumped("hello"), dumped("welcome")
    # when
    plain.socket.send_multipart(hello)
    (header,) = plain.socket.recv_multipart()
    # then
    shown = msgpack.unpackb(welcome[0])
    assert hello == [msgpack.packb({"v": VERSION, "type": "hello", "request": 1})]
    version = msgpack.unpackb(header)["broker"]
    assert version.startswith("minilambda-broker/")
    assert header == msgpack.packb({**shown, "broker": version})
    assert welcome == [msgpack.packb(shown)]


# --- running -----------------------------------------------------------------------------------------------


def test_hello_is_welcomed_with_the_limits(plain: Plain) -> None:
    header, _ = plain.ask("hello")

    assert header["type"] == "welcome" and header["principal"] == "local" and header["versions"] == [1]
    assert header["features"] == ["streams", "files", "functions"]
    limits = ("max_module_bytes", "max_stdin_bytes", "max_request_bytes", "resend_ms", "max_wait_ms")
    assert all(header[limit] > 0 for limit in limits)


def test_a_module_runs_that_comes_along(plain: Plain) -> None:
    header, bodies = plain.ask("run", **run(HELLO))

    result = header["result"]
    assert header["type"] == "result" and bodies == {"stdout": b"hello\n"}
    assert (result["state"], result["exit_code"], result["attempt"]) == ("completed", 0, 1)
    assert "error" not in result and result["worker"] and result["tier"] in ("compiled", "disk", "warm")
    assert result["usage"]["total_ms"] >= result["usage"]["run_ms"] > 0


def test_a_module_is_asked_for_by_its_hash_first(plain: Plain) -> None:
    # given a module that the broker does not have
    wasm = wat.wasm(wat.printing(f"by hash {uuid.uuid4()}"))
    request = {"job": new_job(), "spec": spec(wasm)}
    # then
    assert plain.refused("run", **request) == "not_found"
    assert plain.ask("run", {"wasm": wasm}, **request)[0]["result"]["state"] == "completed"
    assert plain.ask("run", job=new_job(), spec=spec(wasm))[0]["result"]["state"] == "completed"
    rows = {row["module"]: row for row in plain.ask("list_modules")[0]["modules"]}
    assert rows[digest(wasm)]["size"] == len(wasm) and rows[digest(wasm)]["jobs"] == 0


def test_a_module_is_put_in_pieces(plain: Plain) -> None:
    # given a module that the broker does not have: its last section has a random name
    wasm = padded(700_000) + b"\x00\x21\x20" + uuid.uuid4().hex.encode()
    named = {"module": digest(wasm), "size": len(wasm)}
    assert plain.ask("put", **named)[0] == {
        "type": "stored",
        "module": named["module"],
        "received": 0,
        "complete": False,
    }
    # when
    for at in range(0, len(wasm), 300_000):
        header, _ = plain.ask("put", {"data": wasm[at : at + 300_000]}, offset=at, **named)
        assert header["received"] == min(at + 300_000, len(wasm))
    # then
    assert header["complete"] is True
    assert plain.ask("run", job=new_job(), spec=spec(wasm))[1] == {"stdout": b"padded\n"}
    assert plain.ask("put", **named)[0]["complete"] is True


def test_a_dealer_has_several_pieces_under_way_and_is_told_where_one_is_missing(
    cluster: Cluster, context: zmq.Context[Any]
) -> None:
    # given
    wasm = padded(500_000) + b"\x00\x21\x20" + uuid.uuid4().hex.encode()
    named = {"module": digest(wasm), "size": len(wasm)}
    ends = [100_000, 200_000, 300_000, 400_000, len(wasm)]
    dealer = Plain(context, cluster.address, zmq.DEALER)

    def put(*ends: int) -> list[tuple[int, bool]]:
        """Send the pieces that end there, and take the answers after all of them."""
        for end in ends:
            at = (end - 1) // 100_000 * 100_000 if end <= 400_000 else 400_000
            dealer.send("put", {"data": wasm[at:end]}, offset=at, **named)
        return [(header["received"], header["complete"]) for header, _ in (dealer.receive() for _ in ends)]

    # when / then
    assert put(*ends[:2], ends[3]) == [(100_000, False), (200_000, False), (200_000, False)]
    assert put(*ends[2:]) == [(300_000, False), (400_000, False), (len(wasm), True)]
    dealer.socket.close()


def test_a_piece_that_came_before_is_answered_with_what_is_there(plain: Plain) -> None:
    wasm = padded(1000) + b"\x00\x21\x20" + uuid.uuid4().hex.encode()
    named = {"module": digest(wasm), "size": len(wasm)}
    for _ in range(2):
        assert plain.ask("put", {"data": wasm[:600]}, **named)[0]["received"] == 600
    assert plain.ask("put", {"data": wasm[900:]}, offset=900, **named)[0]["received"] == 600
    assert plain.ask("put", {"data": wasm[600:]}, offset=600, **named)[0]["complete"] is True


def test_bytes_with_another_hash_are_refused(plain: Plain) -> None:
    named = {"module": digest(b"something else"), "size": len(HELLO)}
    assert plain.refused("put", {"data": HELLO}, **named) == "bad_request"
    assert plain.refused("run", {"wasm": HELLO}, job=new_job(), spec=spec(b"something else")) == "bad_request"


def test_files_go_along_and_come_back(plain: Plain) -> None:
    # given a file that the broker does not have
    wasm, text = (ROOT / "examples" / "lines.wasm").read_bytes(), f"one\n{uuid.uuid4()}".encode()
    files = {"/in.txt": digest(text), "/sub/empty": digest(b"")}
    request = {"job": new_job(), "spec": spec(wasm, files=files, scratch=65536, collect=["/tmp/out.txt", "/tmp/no"])}
    header, _ = plain.ask("run", {"wasm": wasm}, **request)
    assert header["code"] == "not_found" and digest(text) in header["message"]
    # when
    assert plain.ask("put", module=digest(b""), size=0)[0]["complete"] is True
    assert plain.ask("put", {"data": text}, module=digest(text), size=len(text))[0]["complete"] is True
    # then
    header, bodies = plain.ask("run", **request)
    assert header["result"]["state"] == "completed"
    numbered = b"1\t" + text.replace(b"\n", b"\n2\t")
    assert msgpack.unpackb(bodies["collected"]) == {"/tmp/out.txt": numbered, "/tmp/no": None}


@pytest.mark.parametrize(
    "keys",
    [
        {"files": {"/a/../b": digest(b"")}},
        {"files": {"a": digest(b"")}},
        {"files": {"/a": digest(b""), "/a/b": digest(b"")}},
        {"files": {"/tmp/a": digest(b"")}, "scratch": 1},
        {"collect": ["/out"], "scratch": 1},
        {"collect": ["/tmp/out"]},
    ],
)
def test_paths_that_can_not_be_are_refused(plain: Plain, keys: dict[str, Any]) -> None:
    assert plain.refused("run", **run(HELLO, **keys)) == "bad_request"


def test_a_small_body_may_stand_in_the_header(plain: Plain) -> None:
    header = {"v": 1, "type": "run", "request": 5, "job": new_job(), "spec": spec(CAT)}
    bodies = [["wasm", len(CAT)], ["stdin", b"in place"]]
    plain.socket.send_multipart([msgpack.packb({**header, "bodies": bodies}), CAT])

    assert plain.receive()[1] == {"stdout": b"in place"}


def test_a_large_body_travels_in_frames(plain: Plain) -> None:
    stdin = bytes(range(256)) * 4096

    header, bodies = plain.ask("run", **run(CAT, stdin))

    assert header["result"]["state"] == "completed" and bodies["stdout"] == stdin


@pytest.mark.parametrize(("args", "values"), [(["2", "3"], b""), ([], msgpack.packb([2, 3]))], ids=["text", "values"])
def test_a_function_is_called(plain: Plain, args: list[str], values: bytes) -> None:
    wasm = wat.wasm(wat.ADD)

    header, bodies = plain.ask(
        "run", {"wasm": wasm, "values": values}, job=new_job(), spec=spec(wasm, invoke="add", args=args)
    )

    assert header["result"].get("exit_code") is None and msgpack.unpackb(bodies["value"]) == 5


def test_a_function_without_a_result_gives_nil(plain: Plain) -> None:
    wasm = wat.wasm('(module (func (export "idle")))')

    assert plain.ask("run", **run(wasm, invoke="idle"))[1] == {"value": b"\xc0"}


def test_a_failure_has_its_code_and_its_trap(plain: Plain) -> None:
    error = plain.ask("run", **run(wat.wasm(wat.DIVIDE)))[0]["result"]["error"]

    assert (error["code"], error["trap"]) == ("trap", "integer_divide_by_zero")
    assert "quotient" in error["backtrace"] and error["message"]


# --- jobs that go on by themselves --------------------------------------------------------------------------


def test_a_detached_job_is_asked_after_and_fetched(plain: Plain) -> None:
    # given
    request = run(sleeping(300))
    job = request["job"]
    # then
    header, _ = plain.ask("run", detach=True, **request)
    assert header["type"] == "accepted" and header["state"] in ("queued", "assigned", "running")
    header, _ = plain.ask("get_result", job=job)
    assert header["type"] == "state" and header["state"] in ("queued", "assigned", "running")
    header, _ = plain.ask("get_result", job=job, wait_ms=10_000)
    assert header["type"] == "result" and header["result"]["state"] == "completed"
    assert plain.ask("get_result", job=job)[0] == header
    header, _ = plain.ask("status", job=job)
    assert (header["state"], header["attempt"]) == ("completed", 1) and header["age_ms"] >= 300


def test_a_job_is_cancelled(plain: Plain) -> None:
    request = run(LOOP)
    plain.ask("run", detach=True, **request)

    assert plain.ask("cancel", job=request["job"])[0]["type"] == "state"
    result = plain.ask("get_result", job=request["job"], wait_ms=10_000)[0]["result"]
    assert (result["state"], result["error"]["code"]) == ("cancelled", "cancelled")


def test_the_workers_are_listed(cluster: Cluster, plain: Plain) -> None:
    header, _ = plain.ask("list_workers")

    (row,) = header["workers"]
    assert row["name"] == "worker-1" and row["pid"] == cluster.service("worker-1").process.pid
    assert row["state"] in ("idle", "busy", "draining", "lost") and row["slots"] == 2
    assert {"id", "queue", "done", "seen_ms", "host", "version"} < row.keys() and header["queued"] == 0


def test_a_function_is_deployed_called_and_rolled_back(plain: Plain) -> None:
    # given two versions, the second one with other arguments
    name, wasm = "f" + new_job(), wat.wasm(wat.printing(f"called {uuid.uuid4()}\n"))
    assert plain.refused("deploy", function=name, spec=spec(wasm)) == "not_found"
    first, _ = plain.ask("deploy", {"wasm": wasm}, function=name, spec=spec(wasm))
    assert first == {"type": "deployed", "function": name, "version": 1, "alias": "live"}
    assert plain.ask("deploy", function=name, spec=spec(wasm, args=["x"]))[0]["version"] == 2
    # then
    job = new_job()
    result, bodies = plain.ask("call", job=job, function=name)
    assert result["result"]["state"] == "completed" and bodies["stdout"].startswith(b"called")
    back = {"function": name, "alias": "live", "leaving": 2}
    assert [plain.ask("set_alias", **back)[0]["version"] for _ in range(2)] == [1, 1]
    assert plain.ask("call", job=job, function=name, again=True) == (result, bodies)
    (row,) = [each for each in plain.ask("list_functions")[0]["functions"] if each["function"] == name]
    assert (row["version"], row["module"], row["aliases"], row["versions"]) == (1, digest(wasm), ["live"], 2)
    assert plain.refused("undeploy", function=name, version=1) == "conflict"
    assert plain.ask("undeploy", function=name)[0] == {"type": "deployed", "function": name, "version": 0}
    assert plain.refused("call", job=new_job(), function=name) == "not_found"


# --- sending again -------------------------------------------------------------------------------------------


def test_the_same_run_again_is_the_same_job(plain: Plain) -> None:
    request = run(CAT, b"once")
    first = plain.ask("run", **request)

    assert plain.ask("run", **request) == first
    assert plain.refused("run", **{**request, "bodies": {"stdin": b"twice"}}) == "conflict"


def test_a_relaxed_req_sends_again_and_gets_one_answer(cluster: Cluster, context: zmq.Context[Any]) -> None:
    # given
    plain = Plain(context, cluster.address, REQ_RELAXED=1, REQ_CORRELATE=1)
    request = run(sleeping(200))
    # when
    numbers = [plain.send("run", **request) for _ in range(3)]
    header, _ = plain.receive()
    # then
    assert header["request"] == numbers[-1] and header["result"]["attempt"] == 1
    assert plain.ask("status", job=request["job"])[0]["state"] == "completed"
    plain.socket.close()


def test_a_dealer_has_many_requests_under_way(cluster: Cluster, context: zmq.Context[Any]) -> None:
    # given
    dealer = Plain(context, cluster.address, zmq.DEALER)
    # when
    sent = {dealer.send("run", **run(CAT, f"{n}".encode())): f"{n}".encode() for n in range(100)}
    replies = [dealer.receive() for _ in sent]
    # then
    assert {header["request"]: bodies["stdout"] for header, bodies in replies} == sent
    dealer.socket.close()


# --- errors ---------------------------------------------------------------------------------------------------


BAD: dict[str, dict[str, Any]] = {
    "no spec": {"job": "a"},
    "a module that is no digest": {"job": "a", "spec": {"module": "hello"}},
    "an id with a space": {"job": "a b", "spec": spec(HELLO)},
    "args that are no list": {"job": "a", "spec": spec(HELLO, args="one")},
    "a priority out of range": {"job": "a", "spec": spec(HELLO, priority=101)},
    "a reserved key": {"job": "a", "spec": spec(HELLO, files=[])},
    "a request that is no number": {"request": "one", "job": "a", "spec": spec(HELLO)},
}


@pytest.mark.parametrize("keys", BAD.values(), ids=BAD.keys())
def test_a_malformed_request_is_refused_with_a_sentence(plain: Plain, keys: dict[str, Any]) -> None:
    keys = {"request": 7, **keys}
    plain.socket.send_multipart([msgpack.packb({"v": VERSION, "type": "run", **keys})])
    header, _ = plain.receive()

    assert (header["type"], header["code"]) == ("error", "bad_request")
    assert header["request"] == (7 if keys["request"] == 7 else 0)


def test_another_version_is_named_in_the_refusal(plain: Plain) -> None:
    plain.socket.send_multipart([msgpack.packb({"v": 2, "type": "hello", "request": 9})])
    header, _ = plain.receive()

    assert (header["code"], header["request"]) == ("unsupported_version", 9) and "version 1" in header["message"]


def test_what_is_not_there_is_not_found(plain: Plain) -> None:
    for kind in ("status", "cancel", "get_result"):
        assert plain.refused(kind, job=new_job()) == "not_found"


def test_keys_that_the_broker_does_not_know_are_ignored(plain: Plain) -> None:
    header, _ = plain.ask("run", shiny="new", **run(HELLO, sparkling=1))
    assert header["result"]["state"] == "completed"
