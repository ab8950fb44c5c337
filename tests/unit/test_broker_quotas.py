"""Quotas: what one principal may have, refused to it alone."""

from __future__ import annotations

from typing import Any

import pytest

from minilambda.broker.jobs import Job
from minilambda.broker.modules import ModuleStore
from minilambda.broker.queue import FairQueue
from minilambda.broker.quotas import SOON, WINDOW, Quotas
from minilambda.errors import QuotaExceeded
from minilambda.messages import (
    Accepted,
    JobResult,
    JobSpec,
    ListModules,
    ModuleList,
    Put,
    Refused,
    Result,
    Stored,
    Usage,
)
from minilambda.settings import QuotaSettings
from tests.broker_world import DIGEST, WASM, World, digest_of


def world(**quotas: Any) -> World:
    return World(quotas=QuotaSettings(**quotas))


def compiled(seconds: float) -> Result:
    return Result("completed", 0, usage=Usage(compile_ms=seconds * 1000))


# --- jobs that wait ----------------------------------------------------------------------------------


def test_a_client_with_as_many_waiting_jobs_as_it_may_have_is_refused_and_no_other() -> None:
    at = world(queued=2)
    assert not at.run("a1", request=1) and not at.run("a2", request=2)
    (refused,) = at.run("a3", request=3)
    assert type(refused) is Refused and refused.code == "quota_exceeded" and refused.retry_after_ms == SOON * 1000
    assert "2 jobs of this client wait" in refused.message
    assert not at.run("b1", peer="d", principal="other")


def test_a_job_that_is_sent_again_is_no_other_job_for_the_quota() -> None:
    at = world(queued=1)
    at.run("a1", request=1, detach=True)
    (again,) = at.run("a1", request=2, detach=True)
    assert type(again) is Accepted


def test_a_job_that_a_worker_has_does_not_wait() -> None:
    at = world(queued=1)
    worker = at.worker("w", slots=2)
    assert not at.run("a1", request=1) and not at.run("a2", request=2)
    assert worker.names == ["a1", "a2"]


# --- jobs that run -----------------------------------------------------------------------------------


def test_jobs_beyond_those_that_may_run_wait_while_others_go_on() -> None:
    at = world(running=2)
    worker = at.worker("w", slots=8)
    for number in range(4):
        at.run(f"a{number}", request=number)
    at.run("b0", peer="d", principal="other")
    assert worker.names == ["a0", "a1", "b0"]
    worker.done("a0")
    assert worker.names == ["a1", "b0", "a2"]
    worker.done("b0")
    worker.done("a1")
    assert worker.names == ["a2", "a3"]


def test_a_job_that_lost_its_worker_takes_the_place_that_it_had() -> None:
    at = world(running=1)
    first = at.worker("w1")
    at.run("a0", request=0)
    at.run("a1", request=1)
    assert first.names == ["a0"]
    first.goodbye()
    second = at.worker("w2", slots=4)
    assert second.names == ["a0"]
    second.done("a0")
    assert second.names == ["a1"]


def test_a_client_that_waits_alone_with_its_quota_used_gets_no_job_past_it() -> None:
    at = world(running=1)
    worker = at.worker("w", slots=8)
    at.run("a0", request=0)
    at.run("a1", request=1)
    at.run("b0", peer="d", principal="other")
    at.run("b1", peer="d", request=2, principal="other")
    assert worker.names == ["a0", "b0"]
    worker.done("b0")
    worker.done("a0")
    assert worker.names == ["b1", "a1"]


def test_a_waiting_job_of_a_client_at_its_quota_can_be_taken_out() -> None:
    queue = FairQueue(1)
    jobs = [Job(("a", f"j{n}"), JobSpec(DIGEST), b"", b"", 0, n, 0.0, 0.0) for n in range(3)]
    for job in jobs:
        queue.push(job)
    assert queue.pop() is jobs[0] and queue.pop() is None
    queue.remove(jobs[1])
    queue.check()
    assert queue.pop() is None and queue.waiting_of("a") == 1
    queue.settle(jobs[0], 1.0)
    assert queue.pop() is jobs[2] and not queue
    queue.check()


# --- modules -----------------------------------------------------------------------------------------


def size_of(at: World, principal: str) -> int:
    found = at.ask("x", ListModules(99), ModuleList, principal)
    return sum(row["size"] for row in found.modules)


def put(at: World, data: bytes, request: int, principal: str = "local") -> Any:
    (answer,) = at.give("p", Put(request, digest_of(data), len(data), 0, data), principal)
    return answer


def test_the_least_recently_used_idle_modules_of_a_client_make_room_for_its_next() -> None:
    at = world(stored_bytes=100)
    for number in range(4):
        assert type(put(at, bytes([number]) * 40, number)) is Stored
        at.wait(1.0)
    assert size_of(at, "local") == 80
    assert put(at, bytes([3]) * 40, 10).complete
    at.core.check()


def test_a_module_larger_than_the_quota_is_refused_for_good() -> None:
    at = world(stored_bytes=100)
    answer = put(at, b"x" * 101, 1)
    assert (answer.code, answer.retry_after_ms) == ("quota_exceeded", None)
    (answer,) = at.run("j", wasm=b"x" * 101)
    assert (answer.code, answer.retry_after_ms) == ("quota_exceeded", None)


def test_modules_that_unfinished_jobs_need_are_not_let_go() -> None:
    at = world(stored_bytes=len(WASM) + 5)
    at.run("j", request=1)
    answer = put(at, b"x" * 10, 2)
    assert answer.code == "quota_exceeded" and answer.retry_after_ms == SOON * 1000
    assert type(put(at, b"x" * 10, 3, "other")) is Stored


def test_an_upload_under_way_counts_with_all_of_its_size() -> None:
    at = world(stored_bytes=100)
    whole = b"x" * 90
    assert at.ask("p", Put(1, digest_of(whole), 90, 0, whole[:10]), Stored).received == 10
    assert put(at, b"y" * 20, 2).code == "quota_exceeded"
    assert at.ask("p", Put(3, digest_of(whole), 90, 10, whole[10:]), Stored).complete


def test_a_module_that_others_have_sent_too_stays_theirs() -> None:
    store = ModuleStore(1 << 20)
    store.add("a", DIGEST, WASM, 1.0)
    store.add("b", DIGEST, WASM, 1.0)
    assert store.make_room_of("a", 0, 2.0)
    assert store.find("a", DIGEST) is None and store.find("b", DIGEST) is not None
    store.check()
    assert store.make_room_of("b", 0, 3.0) and store.bytes == 0
    store.check()


# --- compile time ------------------------------------------------------------------------------------


def test_a_client_that_has_used_up_its_compiling_may_still_run_what_a_worker_has() -> None:
    at = world(compile_seconds=60.0)
    worker = at.worker("w", slots=2)
    at.run("a1", request=1)
    worker.done("a1", compiled(90.0))
    at.take("c")
    (refused,) = at.run("a2", request=3, wasm=b"another")
    assert refused.code == "quota_exceeded" and "60 s of compiling" in refused.message
    assert refused.retry_after_ms == pytest.approx(1000 * 30 * WINDOW / 60)
    assert at.run("a3", request=4) == []
    assert at.run("b1", peer="d", wasm=b"another", principal="other") == []


def test_compile_time_comes_back_within_the_hour() -> None:
    quotas = Quotas(QuotaSettings(compile_seconds=60.0))
    quotas.compiled("a", "m", "w", 0.0, 90.0)
    with pytest.raises(QuotaExceeded) as caught:
        quotas.check_job("a", 0, False, 90.0)
    assert caught.value.retry_after is not None
    after = 90.0 + caught.value.retry_after
    with pytest.raises(QuotaExceeded):
        quotas.check_job("a", 0, False, after - 1.0)
    quotas.check_job("a", 0, False, after + 0.001)


def test_jobs_that_wait_for_one_compilation_are_charged_for_it_once() -> None:
    quotas = Quotas(QuotaSettings(compile_seconds=60.0))
    for number in range(10):
        quotas.compiled("a", "m", "w", number * 0.01, 40.0)
    quotas.check_job("a", 0, False, 41.0)
    quotas.compiled("a", "m", "w2", 0.0, 40.0)
    with pytest.raises(QuotaExceeded):
        quotas.check_job("a", 0, False, 41.0)


def test_a_compiler_bomb_that_is_sent_again_is_charged_again() -> None:
    quotas = Quotas(QuotaSettings(compile_seconds=60.0))
    for start in (0.0, 40.0):
        quotas.check_job("a", 0, False, start)
        quotas.compiled("a", "bomb", "w", start, 39.0)
    with pytest.raises(QuotaExceeded):
        quotas.check_job("a", 0, False, 80.0)


def test_without_quotas_nothing_is_counted() -> None:
    at = World()
    assert at.core.quotas is None
    worker = at.worker("w")
    at.run("a1", request=1)
    worker.done("a1", compiled(1e6))
    assert type(at.take("c")[0]) is JobResult
