"""Artifacts and directories that can't be trusted or used: noticed, told, never fatal."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minilambda.worker.cache import ArtifactCache, CacheError
from tests.unit.caches import BOUND, LARGE, MAX_WAIT_S, SMALL, content_of, damage, digest, eventually, put


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ArtifactCache]:
    made = ArtifactCache(tmp_path / "cache", "print", BOUND)
    yield made
    made.close(MAX_WAIT_S)


@pytest.mark.parametrize("keep", [0, 1, 100, len(SMALL), len(SMALL) + 10])
def test_a_truncated_artifact_is_deleted_and_can_be_stored_again(cache: ArtifactCache, keep: int) -> None:
    # given
    path = put(cache, 1)
    # when
    path.chmod(0o600)
    os.truncate(path, keep)
    # then
    assert cache.find(digest(1)) is None
    assert not path.exists()
    assert "damaged" in str(cache.problem)
    put(cache, 1)
    assert content_of(cache, 1) == SMALL
    assert cache.problem is None


@pytest.mark.parametrize("offset", [0, 4000, len(SMALL) - 1, len(SMALL), len(SMALL) + 8, len(SMALL) + 20])
def test_one_changed_byte_in_a_small_artifact_or_its_trailer_is_noticed(cache: ArtifactCache, offset: int) -> None:
    # given
    path = put(cache, 1)
    # when
    damage(path, offset, b"\xff")
    # then
    assert cache.find(digest(1)) is None
    assert not path.exists()


def test_a_large_artifact_with_a_hole_is_noticed_at_once(cache: ArtifactCache) -> None:
    # given
    path = put(cache, 1, LARGE)
    # when
    damage(path, 2 << 20, bytes(1 << 20))
    # then
    assert cache.find(digest(1)) is None


def test_one_changed_byte_in_a_large_artifact_is_noticed_in_the_background(cache: ArtifactCache) -> None:
    # given
    path = put(cache, 1, LARGE)
    damage(path, 5000, bytes([LARGE[5000] ^ 1]))
    # when
    found = cache.find(digest(1))
    # then
    assert found is not None
    os.close(found.fd)
    assert eventually(lambda: not path.exists())


def test_a_large_artifact_that_is_whole_stays(cache: ArtifactCache) -> None:
    # given
    path = put(cache, 1, LARGE)
    # when
    content_of(cache, 1)
    cache.close(MAX_WAIT_S)
    # then
    assert path.exists()


def test_a_link_is_not_followed(cache: ArtifactCache, tmp_path: Path) -> None:
    # given
    path = put(cache, 1)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    # when
    path.symlink_to(elsewhere)
    # then
    assert cache.find(digest(1)) is None


def test_an_artifact_that_others_may_write_to_is_not_used(cache: ArtifactCache) -> None:
    # given
    path = put(cache, 1)
    # when
    path.chmod(0o666)
    # then
    assert cache.find(digest(1)) is None


def test_the_directory_is_made_for_its_user_only(cache: ArtifactCache, tmp_path: Path) -> None:
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    # given
    tmp_path.chmod(mode)
    # when / then
    with pytest.raises(CacheError, match="can be written to by others"):
        ArtifactCache(tmp_path, "print", BOUND)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    # given
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 12345, 12345)
    # when / then
    with pytest.raises(CacheError, match="another user"):
        ArtifactCache(tmp_path, "print", BOUND)


def test_a_directory_that_cannot_be_made_is_a_problem_and_no_failure(tmp_path: Path) -> None:
    # given
    (tmp_path / "file").touch()
    # when
    cache = ArtifactCache(tmp_path / "file" / "cache", "print", BOUND)
    # then
    assert "of no use" in str(cache.problem)
    put(cache, 1)
    assert cache.find(digest(1)) is None
    assert cache.lock(digest(1)), "everybody compiles for himself"
    cache.unlock(digest(1))


def test_a_full_disk_is_a_problem_and_leaves_nothing_behind(cache: ArtifactCache) -> None:
    # given
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(SMALL) // 2, limits[1]))
    # when
    try:
        put(cache, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # then
    assert "of no use" in str(cache.problem)
    assert list(cache._directory.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user here; another user's directory is refused")
def test_a_read_only_directory_still_serves_what_it_holds(cache: ArtifactCache, tmp_path: Path) -> None:
    # given
    put(cache, 1)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        os.chown(path, 12345, 12345)
    for path in [tmp_path, tmp_path / "cache", cache._directory]:
        path.chmod(0o500)
    # when
    answer = as_user(12345, tmp_path, lambda: report(Path("/cache")))
    # then
    assert answer == "True True True"


def report(directory: Path) -> str:
    """What a worker sees of a directory: it has the artifact, may compile, and reports a problem when it stores."""
    cache = ArtifactCache(directory, "print", BOUND)
    held, may = content_of(cache, 1) == SMALL, cache.lock(digest(2))
    put(cache, 2)
    return f"{held} {may} {cache.problem is not None}"


def as_user(user: int, directory: Path, work: Callable[[], str]) -> str:
    """The answer of ``work``, done by another user in a process of his own to whom ``directory`` is the root."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.chroot(directory)  # he may not pass through the directories above
            os.chdir("/")
            os.setuid(user)
            os.write(writing, work().encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return text
