"""A real broker on a real socket: the exchanges of the protocol, and workers that come and go."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import pytest
import zmq

from tests.broker_peers import (
    FRAME,
    LARGE,
    WASM,
    run_fields,
    until,
)

# --- the exchange ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"REQ_RELAXED": 1, "REQ_CORRELATE": 1}], ids=["REQ", "REQ relaxed"])
def test_a_req_socket_runs_a_job(peer: Any, worker: Any, options: dict) -> None:
    agent, client = worker(), peer(**options)
    client.send("run", {"wasm": WASM, "stdin": b"in"}, request=7, **run_fields("j", args=["a"]))
    dispatch = agent.job()
    assert (dispatch["wasm"], dispatch["stdin"], dispatch["spec"]["args"]) == (WASM, b"in", ["a"])
    agent.done(dispatch, {"stdout": b"out", "stderr": b"err"})
    answer = client.hear()
    assert (answer["type"], answer["request"], answer["job"]) == ("result", 7, "j")
    assert (answer["stdout"], answer["stderr"], answer["result"]["state"]) == (b"out", b"err", "completed")
    agent.report()
    assert agent.hear("beat")["settled"] == [dispatch["ref"]]


def test_a_relaxed_req_that_asks_again_gets_the_answer_to_its_last_request(peer: Any, worker: Any) -> None:
    agent, client = worker(), peer(REQ_RELAXED=1, REQ_CORRELATE=1)
    client.send("run", {"wasm": WASM}, request=1, **run_fields("j"))
    dispatch = agent.job()
    client.send("run", {"wasm": WASM}, request=2, **run_fields("j"))
    assert client_status(peer, "j") == "assigned"
    agent.done(dispatch)
    assert client.hear()["request"] == 2


def client_status(peer: Any, job: str) -> str:
    return peer().ask("status", job=job)["state"]


def test_a_dealer_pipelines_many_jobs(peer: Any, worker: Any) -> None:
    agent, client = worker(), peer(zmq.DEALER)
    client.send("run", {"wasm": WASM}, request=0, **run_fields("j0"))
    for number in range(1, 50):
        client.send("run", {"stdin": b"%d" % number}, request=number, **run_fields(f"j{number}"))
    held = []
    for number in range(50):
        held.append(agent.job())
        agent.done(held.pop(0), {"stdout": b"out of %d" % number})
    answers = {(answer := client.hear())["request"]: answer["stdout"] for _ in range(50)}
    assert answers == {number: b"out of %d" % number for number in range(50)}


def test_large_bodies_cross_in_pieces_both_ways(peer: Any, worker: Any) -> None:
    agent, client = worker(), peer()
    digest = "sha256:" + hashlib.sha256(LARGE).hexdigest()
    for offset in range(0, len(LARGE), FRAME):
        piece = {"data": LARGE[offset : offset + FRAME]}
        stored = client.ask("put", piece, module=digest, size=len(LARGE), offset=offset)
        assert stored["received"] == offset + FRAME
    assert stored["complete"] is True
    client.send("run", {"stdin": LARGE[::-1]}, request=1, job="j", spec={"module": digest})
    dispatch = agent.job()
    assert dispatch["withheld"] == {"stdin": len(LARGE)}
    for handle, data in ((digest, LARGE), ("j/1/stdin/local", LARGE[::-1])):
        got = b""
        while len(got) < len(data):
            agent.send("fetch", session=agent.session, handle=handle, offset=len(got), size=FRAME)
            got += agent.hear("chunk")["data"]
        assert got == data
    agent.done(dispatch, withheld={"stdout": len(LARGE)})
    sent = 0
    while sent < len(LARGE):
        fetch = agent.hear("fetch")
        piece = LARGE[fetch["offset"] : fetch["offset"] + fetch["size"]]
        fields = {"session": agent.session, "handle": fetch["handle"], "offset": fetch["offset"], "total": len(LARGE)}
        agent.send("chunk", {"data": piece}, **fields)
        sent += len(piece)
    assert client.hear()["stdout"] == LARGE


def test_hello_and_the_lists_are_answered(peer: Any, worker: Any) -> None:
    agent, client = worker("anna", 3), peer()
    assert client.ask("hello")["versions"] == [1]
    (row,) = client.ask("list_workers")["workers"]
    assert (row["name"], row["slots"], row["state"]) == ("anna", 3, "idle")
    assert client.ask("list_modules")["modules"] == []
    assert agent.session > 0


# --- workers come and go -----------------------------------------------------------------------------


def test_the_jobs_of_a_worker_that_falls_silent_run_elsewhere(peer: Any, worker: Any) -> None:
    dead, client = worker("dead"), peer()
    client.send("run", {"wasm": WASM}, request=1, **run_fields("j"))
    assert dead.job()["ref"] == ["local", "j", 1]
    alive = worker("alive")
    stop = threading.Event()

    def report() -> None:
        while not stop.wait(0.2):
            alive.send("report", session=alive.session, queue=0, seen=0)

    thread = threading.Thread(target=report)
    thread.start()
    until(lambda: client_status(peer, "j") != "assigned" or row_names(peer) == ["alive"], "the silent worker is lost")
    stop.set()
    thread.join()
    dispatch = alive.job()
    assert dispatch["ref"] == ["local", "j", 2]
    alive.done(dispatch)
    assert client.hear()["result"]["worker"] == "alive"


def row_names(peer: Any) -> list[str]:
    return [row["name"] for row in peer().ask("list_workers")["workers"]]


def test_a_worker_whose_connection_broke_comes_back_with_its_job(peer: Any, worker: Any) -> None:
    first, client = worker("w"), peer()
    client.send("run", {"wasm": WASM}, request=1, **run_fields("j", retries=0))
    dispatch = first.job()
    first.socket.close()
    second = worker("w", held=[dispatch["ref"]])
    second.done(dispatch)
    assert client.hear()["result"]["state"] == "completed"


def test_a_worker_that_the_broker_does_not_know_is_told_to_register_again(peer: Any) -> None:
    stranger = peer(zmq.DEALER)
    stranger.send("report", session=5, queue=0, seen=0)
    assert stranger.hear()["type"] == "register_again"
