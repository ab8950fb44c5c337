"""Files against their guests: guests that want out of their folders, and what they leave to be collected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda import Client
from minilambda.errors import DeadlineExceeded, OutputLimit, UnsupportedFeature
from tests import wat
from tests import wat_files as w
from tests.cluster import Cluster
from tests.integration.agents import MIB, Agent, running_agent
from tests.integration.files_agent import Ended, plant, run

OUT = {w.PERM, w.ACCES, w.NOTCAPABLE}
"""How WASI refuses what leads out of a folder."""

# --- guests in wasm ---


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with running_agent(slots=1) as made:
        made.start(0)
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"secret")
    return plant(tmp_path / "tree", {"/own": b"own", "/folder/file": b"file"})


def every_refused(ended: Ended) -> bool:
    return all(error in OUT for error in ended.errors)


@pytest.mark.parametrize("at", [w.ROOT, w.TMP])
@pytest.mark.parametrize(
    "path", ["..", "../secret", "folder/../../secret", "/etc/passwd", "/", "./../secret", "/proc/self/environ", "//etc"]
)
def test_no_path_leads_out(agent: Agent, tree: Path, at: int, path: str) -> None:
    steps = [
        w.opened(0, at, path),
        w.stat(at, path),
        w.mkdir(at, path),
        w.unlink(at, path),
        w.rename(at, path, at, "x"),
    ]
    errors = run(agent, w.guest(*steps), tree, scratch=MIB).errors
    assert errors[0] in OUT | {w.NOENT} and w.SUCCESS not in errors, errors


def test_the_folder_with_the_files_takes_nothing(agent: Agent, tree: Path) -> None:
    steps = [
        w.opened(0, w.ROOT, "new", w.CREATE, write=True),
        w.opened(1, w.ROOT, "own", write=True),
        w.opened(2, w.ROOT, "own", w.TRUNCATE, write=True),
        w.mkdir(w.ROOT, "new"),
        w.rmdir(w.ROOT, "folder"),
        w.unlink(w.ROOT, "own"),
        w.symlink("own", w.ROOT, "link"),
        w.link(w.ROOT, "own", w.ROOT, "again"),
        w.link(w.ROOT, "own", w.TMP, "again"),
        w.rename(w.ROOT, "own", w.ROOT, "other"),
        w.rename(w.ROOT, "own", w.TMP, "other"),
        w.touch(w.ROOT, "own"),
    ]
    ended = run(agent, w.guest(*steps), tree, scratch=MIB, collect=["/tmp"])
    assert every_refused(ended), ended.errors
    assert ended.files == {}
    assert (tree / "own").read_bytes() == b"own" and (tree / "own").stat().st_nlink == 1


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "/proc/self/mem", "..", "/tmp/../../secret"])
def test_a_link_out_is_neither_followed_nor_collected(agent: Agent, tree: Path, target: str) -> None:
    steps = [
        w.symlink(target, w.TMP, "link"),
        w.opened(0, w.TMP, "link", follow=True),
        w.opened(1, w.TMP, "link/own", follow=True),
        w.opened(2, w.TMP, "link", w.TRUNCATE, write=True, follow=True),
    ]
    ended = run(agent, w.guest(*steps), tree, scratch=MIB, collect=["/tmp", "/tmp/link", "/tmp/link/own"])
    assert w.SUCCESS not in ended.errors[1:], ended.errors
    assert ended.files == {"/tmp/link": None, "/tmp/link/own": None}


def test_what_a_guest_leaves_too_deep_is_not_collected_and_harms_nobody(agent: Agent, tree: Path) -> None:
    ended = run(agent, w.deep(500), tree, scratch=16 * MIB, collect=["/tmp"])
    assert (ended.exit_code, "folders in each other" in ended.problem) == (0, True)


def test_a_million_files_are_not_made_and_not_collected(agent: Agent, tree: Path) -> None:
    ended = run(agent, w.MANY, tree, scratch=64 * MIB, collect=["/tmp"])
    assert (ended.exit_code, "files" in ended.problem) == (w.NOSPC, True)


def test_a_huge_file_with_nothing_in_it_is_not_made(agent: Agent, tree: Path) -> None:
    sizes = (1 << 62, 1 << 40, 16 * MIB + 2, MIB)  # a file may be as large as the output, or the scratch
    steps = [w.opened(0, w.TMP, "sparse", w.CREATE, write=True), *(w.set_size(w.Opened(0), size) for size in sizes)]
    ended = run(agent, w.guest(*steps), tree, scratch=MIB, collect=["/tmp/sparse"])
    assert ended.errors == [w.SUCCESS, w.FBIG, w.FBIG, w.FBIG, w.SUCCESS]
    assert ended.files == {"/tmp/sparse": bytes(MIB)}


def test_more_than_a_job_may_bring_back_is_not_brought(agent: Agent, tree: Path) -> None:
    steps = [w.opened(0, w.TMP, "sparse", w.CREATE, write=True), w.set_size(w.Opened(0), 100 * MIB)]
    ended = run(agent, w.guest(*steps), tree, scratch=200 * MIB, collect=["/tmp/sparse"])
    assert (ended.errors, ended.files, str(64 * MIB) in ended.problem) == ([0, 0], {}, True)


# --- through a whole cluster ---


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    with cluster.connect() as made:
        yield made


LEAVE = w.guest(w.opened(0, w.TMP, "left", w.CREATE, write=True), w.write(w.Opened(0), "so far"), after="{}")


def test_files_come_back_after_a_deadline_in_a_host_call(client: Client) -> None:
    spin = wat.wasm(LEAVE.replace("{}", "(loop $again (br $again))"))
    with pytest.raises(DeadlineExceeded) as raised:
        client.run(spin, scratch="1M", collect=["/tmp/left"], timeout=0.3)
    assert raised.value.result is not None
    assert raised.value.result.files == {"/tmp/left": b"so far"}


def test_a_job_reads_its_own_files_and_not_those_of_the_job_before(client: Client) -> None:
    look = wat.wasm(
        w.guest(w.opened(0, w.ROOT, "in"), w.read(w.Opened(0)), w.stat(w.ROOT, "other"), w.stat(w.TMP, "x"))
    )
    for number in range(3):
        result = client.run(look, files={"/in": b"%d" % number} | ({"/other": b"x"} if number == 1 else {}))
        assert (result.stderr, result.stdout[2]) == (b"%d" % number, 0 if number == 1 else w.NOENT)


def test_too_much_to_collect_is_an_output_limit(client: Client) -> None:
    steps = [w.opened(0, w.TMP, "sparse", w.CREATE, write=True), w.set_size(w.Opened(0), 100 * MIB)]
    with pytest.raises(OutputLimit, match="bring back"):
        client.run(wat.wasm(w.guest(*steps)), scratch="200M", collect=["/tmp/sparse"])


def test_a_scratch_beyond_the_workers_limit_is_refused_with_a_word(client: Client) -> None:
    with pytest.raises(UnsupportedFeature, match="at most 268435456"):
        client.run(wat.wasm(wat.HELLO), scratch="1G")
