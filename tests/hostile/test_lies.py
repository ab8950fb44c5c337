"""Messages of hostile shapes, and peers that lie: of hashes, of jobs that others have, of themselves."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
import zmq

from tests.broker_peers import DIGEST, FRAME, WASM, Net, Peer, Worker, frames, run_fields
from tests.cluster import Cluster
from tests.fuzz.broker import resident
from tests.hostile.test_sockets import served

# --- messages ----------------------------------------------------------------------------------------


def header(**fields: Any) -> bytes:
    return bytes(msgpack.packb({"v": 1, "request": 7, **fields}))


DEEP: Any = 0
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "parts",
    [
        [header(type="hello", x=DEEP)],
        [header(type="hello", **{f"k{number}": number for number in range(20_000)})],
        [header(type="list_jobs", state="x" * 200_000)],
        [header(type="hello", x=[0] * 100_000)],
        [header(type="run", job="j", spec={"module": DIGEST, "args": ["x"] * 5000})],
        [header(type="run", job="j", spec={"module": DIGEST, "env": {str(at): "" for at in range(5000)}})],
        [header(type="run", bodies=[["wasm", 2**62]], **run_fields("j")), b"x"],
        [header(type="run", bodies=[["wasm", -1]], **run_fields("j")), b"x"],
        [header(type="run", bodies=[["wasm", 8]] * 3, **run_fields("j")), *[b"x" * 8] * 3],
        [header(type="run", bodies=[["wasm", 100_000]], **run_fields("j")), *[b"x"] * 100_000],
        [header(type="hello"), *[b""] * 50_000],
        [header(type="hello"), *[bytes(FRAME)] * 40],
    ],
    ids=lambda parts: f"{len(parts)}x{len(parts[0])}",
)
def test_a_message_of_a_hostile_shape_costs_its_sender_an_answer(
    broker_alone: Cluster, net: Net, address: str, parts: list[bytes]
) -> None:
    before = resident(broker_alone.service("broker"))
    client = Peer(net, address)
    client.socket.send_multipart(parts)
    answer = client.hear()
    assert answer["type"] in ("error", "welcome", "jobs") and answer["request"] == 7
    assert served(net, address)
    assert resident(broker_alone.service("broker")) - before < 64 * 2**20


def test_a_client_that_lies_about_a_hash_is_refused_and_gets_nothing(net: Net, address: str) -> None:
    other = "sha256:" + "0" * 64
    client = Peer(net, address)
    lie = client.ask("run", {"wasm": WASM}, job="j", spec={"module": other})
    assert (lie["type"], lie["code"]) == ("error", "bad_request")
    put = client.ask("put", {"data": WASM}, module=other, size=len(WASM))
    assert (put["type"], put["code"]) == ("error", "bad_request")
    assert client.ask("run", job="j", spec={"module": other})["code"] == "not_found"
    assert client.ask("put", module=other, size=len(WASM))["received"] == 0
    again = client.ask("put", {"data": WASM}, module=DIGEST, size=len(WASM))
    assert (again["type"], again["complete"]) == ("stored", True)
    assert client.ask("run", {"wasm": b"\0asm other"}, **run_fields("j"))["code"] == "bad_request"


def test_what_an_honest_pair_said_may_come_again_in_any_order(net: Net, address: str) -> None:
    # given a job that ran, and all that was said of it
    worker, client = Worker(net, address), Peer(net, address)
    client.send("run", {"wasm": WASM}, request=1, **run_fields("j"))
    dispatch = worker.job()
    worker.done(dispatch, {"stdout": b"true"})
    assert client.hear("result")["stdout"] == b"true"
    session, ref = worker.session, dispatch["ref"]
    said = [
        frames("report", session=session, queue=1, seen=1),
        frames("done", {"stdout": b"lie"}, session=session, ref=ref, queue=0, seen=1, result={"state": "completed"}),
        frames("returned", session=session, ref=ref, queue=0, seen=1, begun=False),
        frames("goodbye", session=session),
        frames("register", worker="w", name="w", slots=2),
        frames("run", {"wasm": WASM}, request=1, **run_fields("j")),
    ]
    # when a stranger, and the worker itself, say it again, forwards and backwards
    stranger = Peer(net, address, zmq.DEALER)
    for parts in [*said, *reversed(said)] * 3:
        stranger.socket.send_multipart([b"", *parts])
        if parts is not said[3]:
            worker.socket.send_multipart([b"", *parts])
    # then
    assert Peer(net, address).ask("get_result", job="j")["stdout"] == b"true"
    with contextlib.suppress(zmq.Again):
        while stranger.socket.poll(200):
            stranger.socket.recv_multipart(zmq.NOBLOCK)


# --- workers that lie --------------------------------------------------------------------------------


def lies(worker: Worker, dispatch: dict[str, Any]) -> list[list[bytes]]:
    """What a worker may claim of a job that another one has, and of itself."""
    session, ref = worker.session, dispatch["ref"]
    name = f"{ref[1]}/{ref[2]}"
    good = {"session": session, "ref": ref, "queue": 0, "seen": 1, "result": {"state": "completed", "exit_code": 0}}
    return [
        frames("done", {"stdout": b"lie"}, **good),
        frames("done", {"stdout": b"lie"}, **good | {"session": dispatch["session"]}),  # the other one's session
        frames("done", {"stdout": b"lie"}, **good | {"ref": [ref[0], ref[1], ref[2] + 1]}),
        frames("done", **good | {"result": {"state": "running"}}),
        frames("done", **good | {"result": {"state": "completed", "exit_code": -(2**40)}}),
        frames("done", **good | {"withheld": {"stdout": 2**62}}),
        frames("done", **good | {"queue": -1}),
        frames("returned", **{key: good[key] for key in ("session", "ref", "queue", "seen")}, begun=False),
        frames("report", session=session, queue=-5, seen=0),
        frames("report", session=session, queue=2**63 - 1, seen=0),
        frames("report", session=session, queue=0, seen=2**62),
        frames("report", session=session, queue=0, seen=0, running=[ref]),
        frames("report", session=dispatch["session"], queue=0, seen=0, draining=True),
        frames(
            "chunk", {"data": b"x"}, session=session, handle=f"{ref[1]}/{ref[2]}/stdout/{ref[0]}", offset=0, total=1
        ),
        frames("fetch", session=session, handle=DIGEST, offset=0, size=FRAME),
        frames("fetch", session=session, handle=f"{name}/stdin/{ref[0]}", offset=0, size=FRAME),
        frames("goodbye", session=dispatch["session"]),
        frames("register", worker="liar", name="liar", slots=4097),
        frames("register", worker="liar", name="liar", slots=-1),
        frames("register", worker="liar", name="liar", slots=1, held=[ref], finished=[ref]),
        frames("register", worker="liar", name="liar", slots=1, held=[[ref[0], ref[1], 1_000_000]]),
    ]


@pytest.mark.parametrize("number", range(21))
def test_a_worker_that_lies_changes_nothing_for_the_job_of_another(net: Net, address: str, number: int) -> None:
    # given a job at an honest worker, and a liar beside it
    honest, client = Worker(net, address, slots=1), Peer(net, address)
    client.send("run", {"wasm": WASM, "stdin": b"secret"}, request=1, **run_fields("j"))
    dispatch = honest.job()
    liar = Worker(net, address, name="liar")
    # when
    liar.socket.send_multipart([b"", *lies(liar, dispatch)[number]])
    # then the job ends as the honest one says, and the liar has seen nothing of it
    assert served(net, address)
    honest.done(dispatch, {"stdout": b"true"})
    result = client.hear("result")
    assert (result["stdout"], result["result"]["attempt"], result["result"]["worker"]) == (b"true", 1, "w")
    while liar.socket.poll(50):
        assert b"secret" not in b"".join(liar.socket.recv_multipart())


def test_there_are_as_many_lies_as_tests_of_them(net: Net, address: str) -> None:
    worker = Worker(net, address)
    assert len(lies(worker, {"ref": ["local", "j", 1], "session": 1})) == 21
