"""Files that go along with a job and come back, by the command line and from Python, with real processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from minilambda import AsyncClient, Client
from minilambda.client.link import Link
from minilambda.errors import Trap
from tests import wat, wat_files
from tests.cluster import ROOT, Cluster, wait_for
from tests.wat_files import CREATE, TMP, Opened, mkdir, opened, write

LINES = ROOT / "examples" / "lines.wasm"

FOLDER = (
    opened(0, TMP, "a.txt", CREATE, write=True),
    write(Opened(0), "first"),
    mkdir(TMP, "sub"),
    opened(1, TMP, "sub/b.txt", CREATE, write=True),
    write(Opened(1), "second"),
)
"""Steps of a guest that leaves two files."""


@pytest.fixture(scope="module")
def folder_wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guests") / "folder.wasm"
    path.write_bytes(wat.wasm(wat_files.guest(*FOLDER)))
    return path


@pytest.fixture(scope="module")
def failing_wasm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with a trap at the end."""
    path = tmp_path_factory.mktemp("guests") / "failing.wasm"
    path.write_bytes(wat.wasm(wat_files.guest(*FOLDER, after="unreachable")))
    return path


@pytest.fixture
def client(cluster: Cluster) -> Client:
    with cluster.connect() as made:
        yield made


# --- by the command line ---------------------------------------------------------------------------------


def test_a_file_goes_along_and_another_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"one\ntwo\n")
    options = ("--file", f"/in.txt={tmp_path}/in", "--collect", f"/tmp/out.txt={tmp_path}/out")
    ended = cluster.run(LINES, options=options)
    assert (ended.code, ended.stdout, ended.stderr) == (0, b"", b"")
    assert (tmp_path / "out").read_bytes() == b"1\tone\n2\ttwo\n"


def test_a_folder_goes_along(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"one")
    found = cluster.run_json(LINES, options=("--dir", f"/={tmp_path}", "--collect", f"/tmp/out.txt={tmp_path}/out"))
    assert (tmp_path / "out").read_bytes() == b"1\tone"
    told = {"path": "/tmp/out.txt", "host": f"{tmp_path}/out", "files": 1, "bytes": 5, "error": None}
    assert found["collected"] == [told] and found["exit_code"] == 0


def test_a_folder_comes_back_also_from_a_job_that_failed(cluster: Cluster, failing_wasm: Path, tmp_path: Path) -> None:
    ended = cluster.run(failing_wasm, options=("--collect", f"/tmp={tmp_path}/all"))
    assert ended.code == 134
    assert (tmp_path / "all/a.txt").read_bytes() == b"first"
    assert (tmp_path / "all/sub/b.txt").read_bytes() == b"second"


def test_what_was_not_left_is_told_and_fails_the_command(cluster: Cluster, folder_wasm: Path, tmp_path: Path) -> None:
    options = ("--collect", f"/tmp/a.txt={tmp_path}/a", "--collect", f"/tmp/no={tmp_path}/no")
    ended = cluster.run(folder_wasm, options=options)
    assert ended.code == 125 and b"not_collected: /tmp/no" in ended.stderr
    assert (tmp_path / "a").read_bytes() == b"first" and not (tmp_path / "no").exists()


def test_a_guest_without_a_file_says_so_with_its_exit_code(cluster: Cluster) -> None:
    assert cluster.run(LINES, options=("--scratch", "64K")).code == wat_files.NOENT


def test_a_detached_job_has_its_files_and_its_result_is_written_later(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"one")
    collect = ("--collect", f"/tmp/out.txt={tmp_path}/out")
    job = cluster.run(LINES, options=("--detach", "--file", f"/in.txt={tmp_path}/in", *collect)).stdout.decode().strip()
    for _ in range(2):
        (tmp_path / "out").unlink(missing_ok=True)
        assert cluster.client("result", job, *collect).code == 0
        assert (tmp_path / "out").read_bytes() == b"1\tone"


# --- from Python -----------------------------------------------------------------------------------------


def test_a_result_has_the_files_that_came_back(client: Client) -> None:
    result = client.run(LINES, files={"/in.txt": b"one\ntwo"}, collect=["/tmp/out.txt", "/tmp/no"])
    assert result.files == {"/tmp/out.txt": b"1\tone\n2\ttwo"} and result.missing == ["/tmp/no"]


def test_an_error_has_the_files_that_came_back(client: Client, failing_wasm: Path) -> None:
    with pytest.raises(Trap) as failure:
        client.run(failing_wasm, collect=["/tmp/sub"])
    assert failure.value.result is not None and failure.value.result.files == {"/tmp/sub/b.txt": b"second"}


def test_a_large_file_goes_in_pieces_and_comes_back(client: Client) -> None:
    text = b"x" * 3_000_000
    job = client.submit(LINES, files={"/in.txt": text}, scratch="8M", collect=["/tmp/out.txt"])
    assert job.result(30).files == {"/tmp/out.txt": b"1\t" + text}


def test_each_input_of_a_map_has_its_own_files_and_those_of_all(client: Client, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    inputs = [{"files": {"/in.txt": b"input %d" % number}} for number in range(20)]
    results = list(client.map(LINES, inputs, dirs={"/all": tmp_path}, collect=["/tmp/out.txt"]))
    assert [result.files["/tmp/out.txt"] for result in results] == [b"1\tinput %d" % number for number in range(20)]


def test_only_what_the_broker_lacks_is_sent(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    sent: list[int] = []
    transmit = Link._transmit

    def counting(link: Link, send: object) -> None:
        sent.append(send.piece.size if send.piece is not None else 0)  # type: ignore[attr-defined]
        transmit(link, send)  # type: ignore[arg-type]

    monkeypatch.setattr(Link, "_transmit", counting)
    for number in range(40):
        (tmp_path / str(number)).write_bytes(f"{tmp_path} {number}".encode() * 1000)
    options = {"dirs": {"/all": tmp_path}, "files": {"/in.txt": b"one"}, "collect": ["/tmp/out.txt"]}
    # when
    for _ in range(2):
        client.run(LINES, **options)  # type: ignore[arg-type]
    with Client(client.endpoint) as other:
        other.run(LINES, **options)  # type: ignore[arg-type]
    # then: each file went once, and the runs behind the first were one request each, but for the greeting
    whole = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert whole <= sum(sent) <= whole + 3 * LINES.stat().st_size + 3
    assert len(sent) <= 2 + 1 + 41 + 40 + 1 + 2


def test_the_files_of_an_ended_job_are_let_go(client: Client) -> None:
    client.run(LINES, files={"/in.txt": b"let go"}, collect=["/tmp/out.txt"])
    wait_for(lambda: all(not module.jobs for module in client.modules()), "nothing is needed any more")


def test_an_async_client_sends_files_too(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"one")

    async def run() -> list[bytes]:
        async with AsyncClient(cluster.address) as client:
            jobs = (client.run(LINES, dirs={"/": tmp_path}, collect=["/tmp/out.txt"]) for _ in range(3))
            return [result.files["/tmp/out.txt"] for result in await asyncio.gather(*jobs)]

    assert asyncio.run(run()) == [b"1\tone"] * 3
