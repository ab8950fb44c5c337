"""The HTTP gateway as a process of its own, with a real cluster behind it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from minilambda import Client
from minilambda.web.settings import WebSettings
from tests import wat
from tests.cluster import BIN, ROOT, Cluster, Service, wait_for
from tests.integration.guests import CAT, HELLO, LOOP, SLEEP
from tests.web_server import serving

URL = re.compile(r"listening on (http://127\.0\.0\.1:[1-9]\d*)")
WASM = {"Content-Type": "application/wasm"}
DIVIDE = wat.wasm(wat.DIVIDE)
ENVIRON = wat.wasm(wat.ENVIRON)
ADD = wat.wasm(wat.ADD)
LINES = (ROOT / "examples" / "lines.wasm").read_bytes()


def command(*args: str) -> list[str]:
    return [sys.executable, str(BIN / "minilambda"), "web", *args]


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[httpx.Client]:
    args = command("--bind", "127.0.0.1:0", "--server", cluster.address)
    service = Service("web", args, cluster.env, cluster.folder / "logs")
    try:
        url = service.wait_printed(URL)[1]
        with httpx.Client(base_url=url, timeout=50) as client:
            yield client
        service.stop()
        assert service.printed().splitlines() == [f"minilambda web listening on {url}"]
    finally:
        service.kill()


def problem(response: httpx.Response) -> tuple[int, str]:
    """The status and the wire code of a problem document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    return response.status_code, response.json()["code"]


def events(response: httpx.Response) -> Iterator[tuple[str, Any, str]]:
    """Name, value and id of each event."""
    name = identity = ""
    for line in response.iter_lines():
        key, _, value = line.partition(": ")
        if key == "id":
            identity = value
        elif key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value), identity


# --- runs -----------------------------------------------------------------------------------------


def test_a_module_runs_in_each_form_of_a_request(web: httpx.Client) -> None:
    encoded = base64.b64encode(CAT).decode()
    forms = [
        web.post("/run", json={"wasm": encoded, "stdin": "hi", "timeout": 20}),
        web.post("/run", json={"wasm": encoded, "stdin_base64": "aGk=", "memory": "64M"}),
        web.post("/run", files={"wasm": CAT, "stdin": b"hi", "options": (None, '{"priority": 1}')}),
        web.post("/run", files={"wasm": (None, f"sha256:{hashlib.sha256(CAT).hexdigest()}"), "stdin": b"hi"}),
    ]
    for response in forms:
        assert response.status_code == 200, response.text
        found = response.json()
        assert (found["state"], found["exit_code"], found["stdout"]) == ("completed", 0, "hi")
    response = web.post("/run?output=stdout&arg=x&env=A=B&timeout=20", content=HELLO, headers=WASM)
    assert (response.status_code, response.content) == (200, b"hello\n")
    assert response.headers["minilambda-exit-code"] == "0"
    response = web.post("/run", json={"wasm": base64.b64encode(ADD).decode(), "invoke": "add", "args": ["2", "3"]})
    assert response.json()["value"] == 5


def test_files_go_along_and_come_back(web: httpx.Client) -> None:
    options = json.dumps({"collect": ["/tmp/out.txt", "/tmp/nothing"]})
    response = web.post("/run", files={"wasm": LINES, "file:/in.txt": b"one\ntwo\n", "options": (None, options)})
    found = response.json()
    assert found["state"] == "completed", found
    assert base64.b64decode(found["files"]["/tmp/out.txt"]) == b"1\tone\n2\ttwo\n"
    assert found["missing"] == ["/tmp/nothing"]


@pytest.mark.parametrize(
    ("query", "wasm", "expected"),
    [
        ("", DIVIDE, (422, "trap")),
        ("", b"not wasm", (422, "invalid_module")),
        ("", wat.wasm(wat.MISSING), (422, "unknown_import")),
        ("invoke=nothing", HELLO, (422, "unknown_export")),
        ("timeout=0.2", LOOP, (504, "deadline_exceeded")),
        ("timeout=0.2", SLEEP, (504, "deadline_exceeded")),
        ("wait=0.2", SLEEP, (504, "not_finished")),
        ("output_limit=10", wat.wasm(wat.FLOOD), (422, "output_limit")),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "" if isinstance(value, bytes) else value,
)
def test_a_failed_run_has_the_status_by_convention(
    web: httpx.Client, query: str, wasm: bytes, expected: tuple[int, str]
) -> None:
    assert problem(web.post(f"/run?{query}", content=wasm, headers=WASM)) == expected


def test_a_failed_run_tells_all_that_is_known(web: httpx.Client) -> None:
    found = web.post("/run", content=DIVIDE, headers=WASM).json()
    assert found["detail"] == "The guest trapped: integer divide by zero."
    assert found["result"]["state"] == "failed"
    assert "backtrace" in found["result"]["error"]
    assert found["job_id"] == found["result"]["job_id"]


def test_a_module_that_nobody_sent_is_not_found_and_one_that_was_put_is(web: httpx.Client) -> None:
    wasm = wat.wasm(wat.printing("put\n"))
    digest = f"sha256:{hashlib.sha256(wasm).hexdigest()}"
    assert problem(web.post("/run", json={"wasm": digest})) == (404, "not_found")
    response = web.put(f"/modules/{digest}", content=wasm, headers=WASM)
    assert (response.status_code, response.json()) == (201, {"module": digest, "size": len(wasm)})
    assert web.post("/modules", content=wasm, headers=WASM).json()["module"] == digest
    assert web.post("/run", json={"wasm": digest}).json()["stdout"] == "put\n"
    assert digest in [row["module"] for row in web.get("/modules").json()["modules"]]


@pytest.mark.parametrize("path", ["/run", "/functions/sleeper@live/a"])
def test_who_hangs_up_cancels_the_job(cluster: Cluster, web: httpx.Client, path: str) -> None:
    # given
    assert web.put("/functions/sleeper", content=SLEEP, headers=WASM).status_code == 200
    with cluster.connect() as client:
        before = {job.job for job in client.jobs()}

        def new() -> list[str]:
            return [job.job for job in client.jobs() if job.job not in before]

        # when
        with socket.create_connection((web.base_url.host, web.base_url.port)) as visitor:
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(SLEEP)}\r\n"
            visitor.sendall(head.encode() + b"Content-Type: application/wasm\r\n\r\n" + SLEEP)
            (job,) = wait_for(new, "the job is there")
        # then
        wait_for(lambda: client.job(job).status().state == "cancelled", "the job is cancelled")


def test_a_gateway_that_stops_cancels_what_somebody_waits_for(cluster: Cluster) -> None:
    settings = WebSettings(grace=0.1)
    with cluster.connect() as client, ThreadPoolExecutor(1) as pool:
        with serving(settings, f"tcp://{cluster.address}") as web:
            url = web.base_url.join("/run?job_id=stopped")
            waiting = pool.submit(httpx.post, url, content=SLEEP, headers=WASM, timeout=30)  # it outlives the client
            wait_for(lambda: "stopped" in [job.job for job in client.jobs()], "the job is there")
        assert problem(waiting.result(20)) == (503, "stopping")
        wait_for(lambda: client.job("stopped").status().state == "cancelled", "the job is cancelled")


# --- jobs -----------------------------------------------------------------------------------------


def test_a_job_goes_on_by_itself_and_is_asked_for_later(web: httpx.Client) -> None:
    # when
    response = web.post("/jobs?arg=x", content=HELLO, headers=WASM)
    # then
    assert response.status_code == 202
    place = response.headers["location"]
    assert place == response.json()["url"] == f"/jobs/{response.json()['job_id']}"
    result = web.get(f"{place}/result?wait=20")
    assert (result.status_code, result.json()["stdout"]) == (200, "hello\n")
    assert web.get(f"{place}/result?output=stdout").content == b"hello\n"
    status = web.get(f"{place}?story=true").json()
    assert (status["state"], status["story"][0]["what"]) == ("completed", "accepted")
    assert response.json()["job_id"] in [row["job"] for row in web.get("/jobs?limit=50").json()["jobs"]]
    again = web.post(f"{place}/again")
    assert (again.status_code, again.headers["location"] != place) == (202, True)
    assert problem(web.get("/jobs/nobody")) == (404, "not_found")
    assert problem(web.get("/jobs/nobody/output")) == (404, "not_found")


def test_a_job_whose_input_is_gone_can_not_run_again(web: httpx.Client) -> None:
    done = web.post("/run", files={"wasm": CAT, "stdin": b"hi"}).json()
    assert problem(web.post(f"/jobs/{done['job_id']}/again")) == (409, "bad_request")


def test_the_same_id_with_other_content_is_a_conflict(web: httpx.Client) -> None:
    assert web.post("/jobs?job_id=twice", content=HELLO, headers=WASM).status_code == 202
    assert web.post("/jobs?job_id=twice", content=HELLO, headers=WASM).status_code == 202
    assert problem(web.post("/jobs?job_id=twice", content=CAT, headers=WASM)) == (409, "conflict")


def test_a_job_that_runs_is_told_live_and_cancelled(cluster: Cluster, web: httpx.Client) -> None:
    with cluster.connect() as client:
        # given a job that has written something and waits
        job = client.submit(wat.wasm(wat.CONVERSE), interactive=True)
        with web.stream("GET", f"/jobs/{job.id}/output") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            heard = events(stream)
            assert next(heard) == ("stdout", {"attempt": 1, "offset": 0, "size": 6, "text": "ready\n"}, "1:6:0")
            assert web.get(f"/jobs/{job.id}/result").status_code == 202
            # when
            job.write(b"\xff\xfe")
            # then
            assert next(heard) == ("stdout", {"attempt": 1, "offset": 6, "size": 2, "base64": "//4="}, "1:8:0")
            assert web.delete(f"/jobs/{job.id}").status_code == 200
            name, value, last = next(heard)
            assert (name, value["state"], last) == ("end", "cancelled", "1:8:0:end")
            assert list(heard) == []
    # and: one who comes back hears what is new only
    with web.stream("GET", f"/jobs/{job.id}/output", headers={"Last-Event-ID": "1:4:0"}) as stream:
        assert next(events(stream)) == ("stdout", {"attempt": 1, "offset": 4, "size": 4, "base64": "eQr//g=="}, "1:8:0")
    assert web.get(f"/jobs/{job.id}/output", headers={"Last-Event-ID": last}).status_code == 204


# --- functions ------------------------------------------------------------------------------------


def deploy(web: httpx.Client, name: str, wasm: bytes, query: str = "") -> dict[str, Any]:
    response = web.put(f"/functions/{name}?{query}", content=wasm, headers=WASM)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_function_is_deployed_called_moved_and_forgotten(web: httpx.Client) -> None:
    # given
    assert deploy(web, "greet", CAT) == {"function": "greet", "version": 1, "alias": "live"}
    assert deploy(web, "greet", HELLO, "alias=next") == {"function": "greet", "version": 2, "alias": "next"}
    # when, then
    assert web.post("/functions/greet", content=b"body").content == b"body"
    assert web.put("/functions/greet@2", content=b"body").content == b"hello\n"
    assert web.get("/functions/greet@next").content == b"hello\n"
    assert web.post("/functions/greet/aliases/live", json={"version": 2}).json()["version"] == 2
    assert web.post("/functions/greet", content=b"body").content == b"hello\n"
    assert web.post("/functions/greet/aliases/live").json()["version"] == 1  # rolled back
    assert web.post("/functions/greet", content=b"body").content == b"body"
    told = web.get("/functions/greet").json()["versions"]
    assert [(row["version"], row["aliases"]) for row in told] == [(2, ["next"]), (1, ["live"])]
    assert problem(web.delete("/functions/greet?version=2")) == (409, "conflict")
    assert web.delete("/functions/greet/aliases/next").status_code == 204
    assert web.delete("/functions/greet?version=2").status_code == 204
    assert problem(web.post("/functions/greet@2")) == (404, "not_found")
    assert web.delete("/functions/greet").status_code == 204
    assert problem(web.get("/functions/greet")) == (404, "not_found")
    assert problem(web.post("/functions/greet")) == (404, "not_found")


def test_a_function_is_called_from_a_program_too(web: httpx.Client) -> None:
    deploy(web, "add", ADD, "invoke=add")
    response = web.post("/run", json={"function": "add", "args": ["2", "3"]})
    assert (response.json()["state"], response.json()["value"]) == ("completed", 5)
    place = web.post("/jobs", json={"function": "add@1", "args": ["4", "5"]}).headers["location"]
    assert web.get(f"{place}/result?wait=20").json()["value"] == 9


def test_a_function_sees_the_request_as_cgi_has_it(web: httpx.Client) -> None:
    # given
    deploy(web, "env", ENVIRON, "env=OWN=x")
    # when
    headers = {"Authorization": "Bearer secret", "Cookie": "secret", "Proxy": "secret", "X-Odd": "é".encode()}
    response = web.patch("/functions/env/a%20b/c?x=%31", content=b"abc", headers={**headers, "Content-Type": "a/b"})
    # then
    env = dict(each.split("=", 1) for each in response.content.decode("utf-8").split("\0") if each)
    assert (
        env.items()
        >= {
            "OWN": "x",
            "REQUEST_METHOD": "PATCH",
            "SCRIPT_NAME": "/functions/env",
            "PATH_INFO": "/a b/c",
            "QUERY_STRING": "x=%31",
            "CONTENT_TYPE": "a/b",
            "CONTENT_LENGTH": "3",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_X_ODD": "Ã©",  # a header is bytes, which are told as Latin-1
        }.items()
    )
    assert "secret" not in "".join(env.values())


def test_a_function_sets_the_reply_and_gets_no_part_in_the_gateways_pages(web: httpx.Client) -> None:
    head = "Status: 201 Made\nContent-Type: text/html\nSet-Cookie: a=b\nX-A: b\n\n"
    deploy(web, "page", wat.wasm(wat.printing(f"{head}<script>")))
    response = web.get("/functions/page/x")
    assert (response.status_code, response.text) == (201, "<script>")
    assert (response.headers["content-type"], response.headers["x-a"]) == ("text/html", "b")
    assert "set-cookie" not in response.headers
    assert response.headers["content-security-policy"].startswith("sandbox ")
    assert web.head("/functions/page/x").status_code == 201


def test_a_function_that_fails_is_an_error_of_the_server(web: httpx.Client) -> None:
    deploy(web, "exits", wat.wasm(wat.printing("why\n", 2, 3)))
    response = web.post("/functions/exits")
    assert problem(response) == (500, "guest_failed")
    assert (response.json()["exit_code"], response.json()["stderr"]) == (3, "why\n")
    deploy(web, "divides", DIVIDE)
    assert problem(web.post("/functions/divides")) == (500, "trap")
    deploy(web, "loops", LOOP, "timeout=0.2")
    assert problem(web.post("/functions/loops")) == (504, "deadline_exceeded")


# --- the gateway ----------------------------------------------------------------------------------


def test_the_state_of_the_cluster_is_told(cluster: Cluster, web: httpx.Client) -> None:
    state = web.get("/api/state").json()
    assert (state["up"], state["problem"]) == (True, None)
    assert [worker["name"] for worker in state["workers"]] == [
        worker["name"] for worker in web.get("/workers").json()["workers"]
    ]
    assert state["overview"]["slots"] == 2
    assert len(state["jobs"]) > 0
    assert web.get("/readyz").json() == {"status": "ok"}
    with web.stream("GET", "/api/events") as stream:
        name, value, _ = next(events(stream))
        assert (name, value["broker"]["principal"]) == ("state", "local")


def test_a_busy_broker_is_told_with_when_to_come_again(tmp_path: Path) -> None:
    lone = Cluster(tmp_path)
    try:
        lone.start_broker("--ephemeral", "--max-queued", "1")  # and no worker
        with serving(WebSettings(), f"tcp://{lone.address}") as web:
            assert web.post("/jobs", content=HELLO, headers=WASM).status_code == 202
            response = web.post("/jobs", content=HELLO, headers=WASM)
            assert problem(response) == (429, "busy")
            assert int(response.headers["retry-after"]) >= 1
            response = web.post("/run?if_no_workers=fail", content=HELLO, headers=WASM)
            assert problem(response) in {(503, "no_workers"), (429, "busy")}
            # and: when it goes away, the page has a word for it
            assert web.get("/api/state").json()["queued"] == 1
            lone.lose(lone.service("broker"))
            found = wait_for(lambda: (s := web.get("/api/state").json()) and not s["up"] and s, "the broker is away")
            assert (found["problem"]["code"], len(found["jobs"])) == ("unreachable", 1)
            assert problem(web.get("/readyz")) == (503, "unreachable")
        lone.stop()
    finally:
        lone.kill()


def test_tokens_are_made_and_needed_and_an_open_address_is_refused_without(cluster: Cluster, tmp_path: Path) -> None:
    # given
    file = tmp_path / "tokens"

    def call(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*args), capture_output=True, text=True, env=cluster.env, timeout=50, check=False)

    made = call("token", "alice", "--tokens", str(file), "--may", "read,run")
    assert made.returncode == 0, made.stderr
    headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
    args = command("--bind", "127.0.0.1:0", "--server", cluster.address, "--tokens", str(file))
    service = Service("web-tokens", args, cluster.env, cluster.folder / "logs")
    try:
        with httpx.Client(base_url=service.wait_printed(URL)[1], timeout=50) as web, Client(cluster.address) as client:
            # when, then
            assert problem(web.post("/run", content=HELLO)) == (401, "unauthorized")
            found = web.post("/run?group=other", content=HELLO, headers=headers).json()
            assert next(job.group for job in client.jobs() if job.job == found["job_id"]) == "alice"
            assert problem(web.put("/functions/f", content=HELLO, headers=headers)) == (403, "forbidden")
            assert call("revoke", "alice", "--tokens", str(file)).returncode == 0
            wait_for(lambda: web.get("/jobs", headers=headers).status_code == 401, "the token is good no more")
        service.stop()
    finally:
        service.kill()
    # and
    refused = call("--bind", "0.0.0.0:0", "--server", cluster.address)
    assert refused.returncode == 1
    assert "without tokens anyone who reaches it can run code" in refused.stderr
