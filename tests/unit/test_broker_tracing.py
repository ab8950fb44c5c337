"""Spans of jobs: which callers' traces are joined, and when each part of a job was."""

from __future__ import annotations

import pytest

from minilambda.broker.accounts import TRACED, Account
from minilambda.broker.telemetry import line_of
from minilambda.broker.tracing import Parent, Step, parse_traceparent, steps_of
from minilambda.messages import ErrorInfo, JobSpec, Result, Run, Usage
from tests.broker_world import DIGEST, WASM, World

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (GOOD, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-x", True),
    ],
)
def test_a_traceparent_is_read(text: str, sampled: bool) -> None:
    assert parse_traceparent(text) == Parent(int(TRACE, 16), int(SPAN, 16), sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",  # version 00 has no more
        f"00-{TRACE}-{SPAN}-1",
        f" {GOOD}",
        f"{GOOD}\n",
    ],
)
def test_what_is_none_is_not_read(text: str) -> None:
    assert parse_traceparent(text) is None


def account(usage: Usage, *story: tuple[float, str], dispatched_at: float = 2.0, ended_at: float = 10.0) -> Account:
    result = Result("completed", 0, None, usage, "compiled", "host", 1)
    return Account("local", "j", result, DIGEST, "", "", 0, 1.0, dispatched_at, ended_at, story, GOOD)


def test_the_parts_of_a_job_are_within_it_and_in_order() -> None:
    about = account(
        Usage(fetch_ms=500, compile_ms=1000, load_ms=250, run_ms=2000), (2.0, "dispatch"), (10.0, "complete")
    )
    assert steps_of(about) == [
        Step("queue", 1.0, 2.0),
        Step("fetch", 2.0, 2.5),
        Step("compile", 2.5, 3.5),
        Step("load", 7.75, 8.0),
        Step("run", 8.0, 10.0),
    ]


def test_each_wait_of_a_job_that_lost_its_worker_is_a_part() -> None:
    story = ((2.0, "dispatch"), (3.0, "start"), (5.0, "requeue"), (6.0, "dispatch"), (10.0, "complete"))
    assert steps_of(account(Usage(), *story, dispatched_at=6.0)) == [Step("queue", 1.0, 2.0), Step("queue", 5.0, 6.0)]


def test_a_job_that_never_left_the_queue_has_waited_to_its_end() -> None:
    assert steps_of(account(Usage(), (4.0, "cancel"), dispatched_at=0.0, ended_at=4.0)) == [Step("queue", 1.0, 4.0)]


def test_a_worker_that_claims_too_much_time_gets_no_more_than_there_was() -> None:
    about = account(Usage(compile_ms=1e9, load_ms=1e9, run_ms=1e9), (2.0, "dispatch"))
    assert all(1.0 <= step.begin <= step.end <= 10.0 for step in steps_of(about))


def test_the_core_gives_an_account_of_jobs_with_a_trace_and_only_where_traces_are_kept() -> None:
    world = World()
    agent = world.worker("a")
    for number, (telling, traceparent) in enumerate([(0, GOOD), (TRACED, ""), (TRACED, GOOD)]):
        world.core.telling = telling
        world.give("c", Run(number, f"j{number}", JobSpec(DIGEST), detach=True, traceparent=traceparent, wasm=WASM))
        agent.done(f"j{number}", Result("failed", None, ErrorInfo("trap", "Oh.")))
    (told,) = [action for action in world.store if isinstance(action, Account)]
    assert (told.job, told.traceparent, told.result.attempt) == ("j2", GOOD, 1)
    text, fields = line_of(told)
    assert text.startswith("job j2 attempt 1 of local: trap after ")
    assert fields["outcome"] == "trap" and fields["event"] == "job_ended"


def test_spans_that_come_too_fast_are_dropped_and_counted() -> None:
    from minilambda.broker.tracing import MAX_WAITING, Tracer

    tracer = Tracer("http://127.0.0.1:9")  # nobody is there
    tracer._waiting.put(None)  # its thread ends: nothing takes anything away any more
    tracer._thread.join()
    try:
        for _ in range(MAX_WAITING + 3):
            tracer.take(account(Usage()))
        assert tracer.dropped == 3
    finally:
        tracer._provider.shutdown()
