"""Artifacts on disk: found again as they were stored; the least recently used go; one worker compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda.worker import artifact_file
from minilambda.worker.cache import ArtifactCache
from tests.unit.caches import BOUND, LARGE, MAX_WAIT_S, SMALL, content_of, digest, eventually, memfd, put


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ArtifactCache]:
    made = ArtifactCache(tmp_path / "cache", "print", BOUND)
    yield made
    made.close(MAX_WAIT_S)


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("component", [False, True])
def test_what_was_stored_is_found(cache: ArtifactCache, content: bytes, component: bool) -> None:
    # given
    put(cache, 1, content, component)
    # when
    found = cache.find(digest(1))
    # then
    assert found is not None
    assert (found.component, found.size, os.pread(found.fd, found.size, 0)) == (component, len(content), content)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(found.fd, b"x")
    os.close(found.fd)
    assert cache.problem is None


def test_another_worker_and_the_next_one_find_it_too(cache: ArtifactCache, tmp_path: Path) -> None:
    # given
    put(cache, 1)
    # when
    other = ArtifactCache(tmp_path / "cache", "print", BOUND)
    # then
    assert content_of(other, 1) == SMALL


def test_what_was_never_stored_is_not_found(cache: ArtifactCache) -> None:
    assert cache.find(digest(1)) is None
    assert cache.problem is None


def test_an_artifact_of_another_engine_is_not_found(cache: ArtifactCache, tmp_path: Path) -> None:
    # given
    path = put(cache, 1)
    other = ArtifactCache(tmp_path / "cache", "other", BOUND)
    assert other.find(digest(1)) is None
    # when
    path.rename(other._directory / path.name)
    # then
    assert other.find(digest(1)) is None


def test_an_artifact_under_the_name_of_another_module_is_not_found(cache: ArtifactCache) -> None:
    # given
    path = put(cache, 1)
    # when
    path.rename(path.with_name(f"{2:064x}.artifact"))
    # then
    assert cache.find(digest(2)) is None


@pytest.mark.parametrize(
    "name", ["", "sha256:", "../../etc/passwd", "sha256:" + "A" * 64, digest(1) + "\n", digest(1) + "/x"]
)
def test_a_name_that_is_no_digest_never_becomes_a_path(cache: ArtifactCache, name: str) -> None:
    with pytest.raises(ValueError, match="does not name a module"):
        cache.find(name)


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    # given
    room = 3 * (len(SMALL) + artifact_file.OVERHEAD)
    cache = ArtifactCache(tmp_path, "print", room)
    paths = [put(cache, number) for number in range(3)]
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    # when
    content_of(cache, 0)
    put(cache, 3)
    # then
    assert [content_of(cache, number) is not None for number in range(4)] == [True, False, True, True]


def test_artifacts_of_an_older_engine_count_and_go(tmp_path: Path) -> None:
    # given
    old = put(ArtifactCache(tmp_path, "old", BOUND), 1)
    os.utime(old, (1, 1))
    # when
    new = put(ArtifactCache(tmp_path, "new", len(SMALL) + 500), 1)
    # then
    assert (old.exists(), new.exists()) == (False, True)


def test_an_artifact_larger_than_the_bound_is_not_stored_and_pushes_nothing_out(tmp_path: Path) -> None:
    # given
    cache = ArtifactCache(tmp_path, "print", len(SMALL) + 500)
    put(cache, 1)
    # when
    put(cache, 2, SMALL * 2)
    # then
    assert content_of(cache, 1) == SMALL
    assert content_of(cache, 2) is None
    assert "not stored" in str(cache.problem)


def test_an_open_artifact_outlives_its_eviction(cache: ArtifactCache) -> None:
    # given
    put(cache, 1)
    found = cache.find(digest(1))
    assert found is not None
    # when
    cache.discard(digest(1))
    # then
    assert os.pread(found.fd, found.size, 0) == SMALL
    os.close(found.fd)


def test_what_a_dead_writer_left_is_swept_away(cache: ArtifactCache) -> None:
    # given
    old, fresh = (cache._directory / name for name in ("old.tmp", "fresh.tmp"))
    for path in (old, fresh):
        path.touch()
    os.utime(old, (1, 1))
    # when
    put(cache, 1)
    # then
    assert (old.exists(), fresh.exists()) == (False, True)


def test_storing_later_stores_and_unlocks(cache: ArtifactCache, tmp_path: Path) -> None:
    # given
    other = ArtifactCache(tmp_path / "cache", "print", BOUND)
    assert cache.lock(digest(1))
    # when
    with memfd(SMALL) as fd:
        cache.store_later(digest(1), True, fd)
    # then
    assert eventually(lambda: other.lock(digest(1)))
    assert content_of(other, 1) == SMALL
    other.unlock(digest(1))


def test_one_worker_at_a_time_has_the_lock_of_a_module(cache: ArtifactCache, tmp_path: Path) -> None:
    # given
    other = ArtifactCache(tmp_path / "cache", "print", BOUND)
    # when
    assert cache.lock(digest(1))
    # then
    assert not other.lock(digest(1))
    assert other.lock(digest(2)), "each module has a lock of its own"
    cache.unlock(digest(1))
    assert other.lock(digest(1))
    assert not cache.lock(digest(1))
    other.close(0)
    assert not list(cache._directory.glob("*.lock")), "locks leave nothing behind"


def test_the_lock_of_a_dead_process_is_free(cache: ArtifactCache, tmp_path: Path) -> None:
    # given
    script = (
        "import sys, pathlib; from minilambda.worker.cache import ArtifactCache;"
        f"cache = ArtifactCache(pathlib.Path({str(tmp_path / 'cache')!r}), 'print', 1);"
        f"print(cache.lock({digest(1)!r}), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"True\n"
        assert not cache.lock(digest(1))
        # when
        holder.kill()
        holder.wait()
    # then
    assert cache.lock(digest(1))
