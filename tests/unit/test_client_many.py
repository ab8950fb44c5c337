"""Tens of thousands of calls on one connection cost the client no more than their number."""

from __future__ import annotations

import asyncio

import pytest

from minilambda import AsyncClient, errors
from minilambda.messages import GetStatus
from tests.client_talk import greeted

CALLS = 2_000


def test_calls_that_are_due_one_after_another_are_looked_at_together() -> None:
    # given: calls that are begun within a second, each due a moment after the one before
    talk = greeted()
    for number in range(CALLS):
        talk.now += 1 / CALLS
        talk.start(GetStatus(0, f"job-{number}"))
    core, first = talk.core, talk.now + 9.0
    talk.sent.clear()
    # when: none is answered, so each is sent again after 10 s
    looks = 0
    while len(talk.sent) < CALLS:
        talk.now = core.next_deadline()
        talk.take(core.tick(talk.now))
        looks += 1
    # then
    assert first < talk.now < first + 1.1
    assert looks < CALLS / 5


def test_one_call_is_not_looked_at_late() -> None:
    talk = greeted()
    talk.start(GetStatus(0, "job"))
    begun = talk.now
    talk.sent.clear()
    while not talk.sent:
        talk.now = talk.core.next_deadline()
        talk.take(talk.core.tick(talk.now))
    assert talk.now == pytest.approx(begun + 10.0, abs=1e-3)


def test_what_was_to_be_sent_for_calls_that_have_ended_does_not_gather() -> None:
    async def main() -> None:
        async with AsyncClient("127.0.0.1:9", connect_timeout=0.005) as client:
            for _ in range(30):
                with pytest.raises(errors.Unreachable):
                    await client.limits()
            assert len(client.link()._pending) <= 2

    asyncio.run(main())
