"""Functions by a real broker and a real worker: from Python, from the command line, and after a broker was killed."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda import Client, FunctionVersion, errors
from tests import wat
from tests.cluster import BIN, Cluster, Ended, running_cluster

ARGS, CAT, ADD, ENVIRON, LOOP = (wat.wasm(text) for text in (wat.ARGS, wat.CAT, wat.ADD, wat.ENVIRON, wat.LOOP))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of its own: its broker is killed."""
    with running_cluster(tmp_path_factory.mktemp("functions")) as made:
        yield made


@pytest.fixture
def client(here: Cluster) -> Iterator[Client]:
    with Client(here.address) as client:
        yield client


@pytest.fixture
def name() -> str:
    """Of a function that nobody else has."""
    return "f" + uuid.uuid4().hex


def written(text: bytes) -> bytes:
    """A module that prints a text, and that no broker has."""
    return wat.wasm(wat.printing(text.decode())) + b"\x00\x21\x20" + uuid.uuid4().hex.encode()


# --- Python ------------------------------------------------------------------------------------------


def test_a_function_is_deployed_and_called_and_rolled_back(client: Client, name: str) -> None:
    # given
    first = client.deploy(name, written(b"one\n"))
    second = client.deploy(name, written(b"two\n"))
    assert (first, str(second)) == (FunctionVersion(name, 1, "live"), f"{name}@2")
    assert client.run_function(name).stdout == b"two\n"
    # when
    assert client.set_alias(name, "live").version == 1
    # then
    assert client.run_function(name).stdout == b"one\n"
    assert client.run_function(f"{name}@2").stdout == b"two\n"
    with pytest.raises(errors.Conflict, match="no other version"):
        client.set_alias(name, "live")
    assert client.set_alias(name, "next", 2) == FunctionVersion(name, 2, "next")
    assert client.run_function(f"{name}@next").stdout == b"two\n"
    assert client.drop_alias(name, "next").version == 2
    with pytest.raises(errors.NotFound, match="no alias 'next'"):
        client.run_function(f"{name}@next")
    client.undeploy(name, 2)
    assert [(each.version, each.aliases) for each in client.functions(name)] == [(1, ("live",))]
    client.undeploy(name)
    assert client.functions(name) == []


def test_a_call_brings_its_input_and_what_it_leaves_out_is_the_versions(client: Client, name: str) -> None:
    client.deploy(name, ARGS, ["from", "deploy"])
    assert client.run_function(name).stdout.split(b"\0")[1:3] == [b"from", b"deploy"]
    assert b"call" in client.run_function(name, ["call"]).stdout
    assert b"deploy" not in client.run_function(name, []).stdout
    client.deploy(name, ENVIRON, env={"A": "1", "B": "2"})
    assert set(client.run_function(name, env={"B": "3"}).stdout.strip(b"\0\n").split(b"\0")) == {b"A=1", b"B=3"}
    client.deploy(name, CAT)
    assert client.run_function(name, stdin=b"in").stdout == b"in"
    job = client.submit_function(name, stdin="ü")
    assert job.result().stdout == "ü".encode()
    assert next(each.function for each in client.jobs() if each.job == job.id) == f"{name}@3"


def test_an_exported_function_is_called_with_values_or_with_text(client: Client, name: str) -> None:
    client.deploy(name, ADD, ["4", "5"], invoke="add")
    assert client.call_function(name, 2, 3) == 5
    assert client.run_function(name).value == 9
    assert client.run_function(name, ["7", "8"]).value == 15
    with pytest.raises(errors.UnknownExport):
        client.run_function(name, invoke="nothing")


def test_a_large_module_is_sent_in_pieces_and_its_files_go_along(client: Client, name: str, tmp_path: Path) -> None:
    body = b"\x03pad" + uuid.uuid4().bytes * 200_000
    size = len(body)
    leb = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    (tmp_path / "big.wasm").write_bytes(wat.wasm(wat.HELLO) + b"\0" + leb + body)
    made = client.deploy(name, tmp_path / "big.wasm", files={"/data": uuid.uuid4().bytes})
    assert made.version == 1 and client.functions(name)[0].module == client.module(tmp_path / "big.wasm").digest


def test_a_deadline_is_the_versions_and_may_be_the_calls(client: Client, name: str) -> None:
    client.deploy(name, LOOP, timeout=30)
    with pytest.raises(errors.DeadlineExceeded):
        client.run_function(name, timeout=0.1)
    with pytest.raises(TimeoutError):
        client.run_function(name, wait=0.1, job_id=f"{name}-waited")
    assert client.job(f"{name}-waited").result(10, check=False).state == "cancelled"


def test_output_is_heard_as_it_is_written(client: Client, name: str) -> None:
    client.deploy(name, CAT)
    heard = []
    result = client.run_function(name, stdin=b"heard", on_output=lambda chunk: heard.append(chunk.data))
    assert b"".join(heard) == result.stdout == b"heard"


@pytest.mark.parametrize(
    ("options", "error"), [({"memory": "64M"}, TypeError), ({"bogus": 1}, TypeError), ({"timeout": -1}, ValueError)]
)
def test_options_that_a_call_can_not_have_are_refused(
    client: Client, options: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.run_function("f", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"stdin": b"x"}, {"job_id": "x"}, {"interactive": True}])
def test_what_belongs_to_a_job_is_refused_for_a_function(client: Client, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="for a job"):
        client.deploy("f", CAT, **options)  # type: ignore[arg-type]


# --- the command line --------------------------------------------------------------------------------


def umbrella(here: Cluster, *args: str | Path) -> Ended:
    """A call of `bin/minilambda`."""
    env = {**here.env, "MINILAMBDA_SERVER": here.address}
    command = [sys.executable, str(BIN / "minilambda"), *map(str, args)]
    done = subprocess.run(command, capture_output=True, env=env, timeout=50, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def said(done: Ended) -> str:
    assert (done.code, done.stderr) == (0, b""), done
    return done.stdout.decode()


def test_a_function_is_managed_and_called_by_commands(here: Cluster, tmp_path: Path, name: str) -> None:
    # given
    (tmp_path / "args.wasm").write_bytes(ARGS)
    (tmp_path / "cat.wasm").write_bytes(CAT)
    # then
    assert said(umbrella(here, "deploy", name, tmp_path / "args.wasm", "--", "one", "--two")) == f"{name}@1\n"
    assert said(umbrella(here, "deploy", "--no-alias", name, tmp_path / "cat.wasm")) == f"{name}@2\n"
    assert "--two" in said(here.client(name))
    assert "three" in said(here.client(name, "three"))
    assert said(here.client("--stdin", "-", f"{name}@2", stdin=b"in")) == "in"
    assert said(umbrella(here, "alias", name, "live", "2")) == f"{name}@2\n"
    assert said(umbrella(here, "rollback", name)) == f"{name}@1\n"
    assert said(umbrella(here, "alias", name, "next", "2")) == f"{name}@2\n"
    rows = json.loads(said(here.client("functions", name, "--json")))
    assert [(row["version"], row["aliases"]) for row in rows] == [(2, ["next"]), (1, ["live"])]
    head, *lines = said(here.client("functions")).splitlines()
    assert head.split()[:3] == ["function", "version", "aliases"]
    assert [line.split()[:3] for line in lines if name in line] == [[name, "1", "live"]]
    assert umbrella(here, "undeploy", name, "1").code == 125
    assert said(umbrella(here, "alias", "--drop", name, "next")) == f"{name}@next is gone\n"
    assert said(umbrella(here, "undeploy", name, "2")) == f"{name}@2 is gone\n"
    assert said(umbrella(here, "undeploy", name)) == f"{name} is gone\n"


def test_commands_answer_with_an_object_where_that_is_asked_for(here: Cluster, tmp_path: Path, name: str) -> None:
    (tmp_path / "add.wasm").write_bytes(ADD)
    done = umbrella(here, "deploy", "--json", "--invoke", "add", name, tmp_path / "add.wasm")
    assert done.json == {"function": name, "version": 1, "alias": "live"}
    assert here.client("--json", name, "2", "3").json["value"] == 5
    done = umbrella(here, "rollback", "--json", name)
    assert (done.code, done.json["error"]["code"]) == (125, "conflict")
    assert umbrella(here, "undeploy", "--json", name).json == {"function": name, "version": None, "alias": None}


def test_a_word_that_is_neither_a_file_nor_a_function_is_told_as_both(here: Cluster) -> None:
    done = here.client("nothing")
    assert done.code == 127 and done.stdout == b""
    assert b"nothing: No such file here; at the broker: There is no function 'nothing'." in done.stderr
    assert here.client("--json", "nothing@2").json["error"]["code"] == "no_such_file"
    assert b"at the broker" not in here.client("nothing.wasm").stderr


def test_a_file_goes_before_a_function_of_its_name(here: Cluster, client: Client, tmp_path: Path, name: str) -> None:
    client.deploy(name, written(b"function\n"))
    (tmp_path / name).write_bytes(written(b"file\n"))
    assert said(here.client(tmp_path / name)) == "file\n"
    done = subprocess.run(
        here.command("client", "--server", here.address, name), capture_output=True, env=here.env, cwd=tmp_path,
        timeout=50, check=False,
    )  # fmt: skip
    assert done.stdout == b"file\n"
    assert said(here.client(name)) == "function\n"


@pytest.mark.parametrize(
    "args",
    [
        ("--memory", "64M", "f"),
        ("--interactive", "f"),
        ("functions", "a", "b"),
    ],
)
def test_what_a_call_can_not_have_is_wrong_usage(here: Cluster, args: tuple[str, ...]) -> None:
    assert here.client(*args).code == 2


@pytest.mark.parametrize(
    "args",
    [
        ("deploy", "f"),
        ("deploy", "1f", "x.wasm"),
        ("alias", "f", "live", "x"),
        ("alias", "f", "live"),
        ("alias", "f", "live", "0"),
        ("rollback",),
        ("undeploy", "f", "live"),
    ],
)
def test_what_the_commands_do_not_understand_is_wrong_usage(here: Cluster, args: tuple[str, ...]) -> None:
    done = umbrella(here, *args)
    assert done.code == 2 and done.stderr.startswith(b"minilambda " + args[0].encode() + b": ")


# --- a broker that is killed -------------------------------------------------------------------------


def test_what_was_deployed_is_there_when_another_broker_comes_after_a_kill(here: Cluster, name: str) -> None:
    # given
    with here.connect() as client:
        client.deploy(name, written(b"one\n"))
        client.deploy(name, written(b"two\n"), env={"A": "b"})
        client.set_alias(name, "stable", 1)
        before = [(each.version, each.aliases, each.module) for each in client.functions(name)]
        # when
        here.lose(here.service("broker"))
        here.services.insert(0, here.restart_broker())
        here.services.pop()  # workers stop before their broker
        # then
        assert [(each.version, each.aliases, each.module) for each in client.functions(name)] == before
        assert client.run_function(name).stdout == b"two\n"
        assert client.run_function(f"{name}@stable").stdout == b"one\n"
        assert client.set_alias(name, "live").version == 1
