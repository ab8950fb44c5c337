"""Artifacts that a worker opens before a job asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minilambda import messages as m
from minilambda.fields import MAX_AT_HAND
from minilambda.worker import actions as a
from minilambda.worker.cache import ArtifactCache
from minilambda.worker.stores import Artifacts, open_artifacts
from tests.unit.caches import BOUND, LARGE, MAX_WAIT_S, SMALL, content_of, digest, put
from tests.unit.worker_driver import Driver, digest_of, ref, registered

HELLO = digest_of(b"hello")
PRINTS = {"cranelift": "print", "winch": "other"}


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ArtifactCache]:
    """What another worker has left of the best compiler."""
    made = ArtifactCache(tmp_path, PRINTS["cranelift"], BOUND)
    yield made
    made.close(MAX_WAIT_S)


@pytest.fixture
def artifacts(tmp_path: Path) -> Iterator[Artifacts]:
    made = open_artifacts(tmp_path, PRINTS, BOUND)
    yield made
    made.close()


def last_used(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds))


def having(wasm: bytes = b"hello") -> Driver:
    """A worker that has an artifact at hand, and has had no job."""
    driver = registered()
    driver.disk[digest_of(wasm)] = False
    driver.held.add((digest_of(wasm), "cranelift"))
    driver.core.execution.have([a.ArtifactFound(digest_of(wasm), "cranelift", False)])
    driver.core.check()
    return driver


# --- on disk -----------------------------------------------------------------------------------------


def test_the_least_recently_used_do_not_fit_in(cache: ArtifactCache) -> None:
    # given
    for number in range(1, 6):
        last_used(put(cache, number), 1000 - number)
    size = cache._directory.joinpath(f"{1:064x}.artifact").stat().st_size
    # then
    assert cache.recent(3, BOUND) == [digest(3), digest(2), digest(1)]
    assert cache.recent(9, 2 * size) == [digest(2), digest(1)]
    assert cache.recent(9, size - 1) == []


def test_large_artifacts_and_other_files_are_left_alone(cache: ArtifactCache) -> None:
    # given
    put(cache, 1, LARGE)
    put(cache, 2)
    cache._directory.joinpath("notes.artifact").touch()
    cache._directory.joinpath(f"{3:064x}.lock").touch()
    # then
    assert cache.recent(9, BOUND) == [digest(2)]


def test_a_directory_that_is_gone_has_no_recent_ones(cache: ArtifactCache) -> None:
    cache._directory.rmdir()
    assert cache.recent(9, BOUND) == []


def test_sound_artifacts_of_the_best_compiler_are_opened(
    cache: ArtifactCache, artifacts: Artifacts, tmp_path: Path
) -> None:
    # given
    last_used(put(cache, 1, component=True), 1000)
    put(cache, 2).write_bytes(bytes(100))
    quick = ArtifactCache(tmp_path, PRINTS["winch"], BOUND)
    put(quick, 3)
    # when
    ahead = artifacts.look_ahead()
    # then
    assert ahead == [a.ArtifactFound(digest(1), "cranelift", True)]
    assert os.pread(artifacts.descriptor(digest(1), "cranelift"), len(SMALL), 0) == SMALL
    assert content_of(quick, 3) == SMALL
    quick.close(MAX_WAIT_S)


def test_an_artifact_counts_as_used_when_a_runner_gets_it(cache: ArtifactCache, artifacts: Artifacts) -> None:
    # given
    path = put(cache, 1)
    artifacts.look_ahead()
    last_used(path, 1000)
    # when
    artifacts.used(digest(1), "cranelift")
    # then, and once is enough
    assert path.stat().st_mtime > 1000
    last_used(path, 1000)
    artifacts.used(digest(1), "cranelift")
    assert path.stat().st_mtime == 1000


def test_to_open_them_is_no_use_of_them(cache: ArtifactCache, artifacts: Artifacts) -> None:
    # given
    path = put(cache, 1)
    last_used(path, 1000)
    # when
    artifacts.look_ahead()
    # then
    assert path.stat().st_mtime == 1000


# --- in the core -------------------------------------------------------------------------------------


def test_a_job_for_a_module_at_hand_starts_at_once() -> None:
    driver = having()
    driver.dispatch(ref(), inline=False)
    assert driver.one(a.StartRun).order.load
    driver.none(a.FindArtifact)
    driver.none(m.Fetch)
    driver.finish()
    assert driver.one(m.Done).result.tier == "disk"


def test_a_registration_names_the_modules_at_hand_and_no_others() -> None:
    # given
    driver = having()
    driver.dispatch(ref("waits"), b"unknown", inline=False)
    driver.dispatch(ref("runs"))
    # when
    driver.hear(m.RegisterAgain())
    driver.advance(0.05)
    # then
    assert driver.one(m.Register).artifacts == (HELLO,)


def test_of_many_modules_at_hand_those_used_last_are_named() -> None:
    # given
    driver = Driver()
    digests = [digest_of(b"%d" % number) for number in range(MAX_AT_HAND + 8)]
    driver.core.execution.have([a.ArtifactFound(digest, "cranelift", False) for digest in digests])
    # when
    driver.advance(5.0, beats=False)
    # then
    assert driver.take(m.Register)[-1].artifacts == tuple(digests[-MAX_AT_HAND:])


def test_one_that_does_not_load_is_fetched_and_made_again() -> None:
    wasm = b"hello".ljust(1000)
    driver = having(wasm)
    driver.dispatch(ref(), wasm, inline=False)
    driver.finish(bad_artifact=True)
    assert [drop.corrupt for drop in driver.take(a.DropArtifact)] == [True]
    driver.answer_fetches(wasm)
    driver.one(a.Compile)
    driver.compiled(wasm)
    driver.finish()
    assert driver.one(m.Done).result.state == "completed"
