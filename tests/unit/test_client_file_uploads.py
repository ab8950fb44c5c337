"""Files of a job on their way to the broker: only what it lacks, several at a time, each once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minilambda.client.calls import MAX_IN_PLACE, PIECE, Send
from minilambda.client.uploads import AT_ONCE, MAX_FLYING, WINDOW, Placed
from minilambda.errors import InputTooLarge, ModuleTooLarge, NotFound, QuotaExceeded, RequestError
from minilambda.messages import GetStatus, JobResult, JobSpec, JobStatus, Put, Refused, Run, Stored
from tests.client_talk import DIGEST, LARGE, SMALL, UNKNOWN, Bytes, Talk, result, welcome


@pytest.fixture
def talk() -> Talk:
    """A core that knows its broker, which offers files."""
    made = Talk()
    number = made.start(GetStatus(0, "warm-up"))
    made.answer(replace(welcome(made.last().request), features=("files",)))
    made.answer(JobStatus(number, "warm-up", "queued"))
    made.sent.clear()
    made.ended.clear()
    return made


def file(number: int, size: int | None = 10_000) -> Bytes:
    return Bytes(size, f"sha256:{number:064x}")


def run(*files: Bytes, job: str = "job", **spec: object) -> Run:
    placed = Placed()
    for source in files:
        placed.put(f"/{source.digest[-8:]}", source)
    return Run(0, job, JobSpec(DIGEST, files=placed, **spec))  # type: ignore[arg-type]


def lacks(talk: Talk, number: int, digest: str) -> None:
    talk.answer(Refused(number, "not_found", f"The broker does not have the file {digest} for '/x'; put it first."))


def puts(talk: Talk) -> list[Send]:
    """What was sent to upload something since this was asked last; all else is dropped."""
    found = [send for send in talk.sent if isinstance(send.message, Put)]
    talk.sent.clear()
    return found


def store(talk: Talk, send: Send) -> None:
    put = send.message
    assert isinstance(put, Put)
    talk.answer(Stored(put.request, put.module, put.size, True))


def test_files_that_the_broker_has_cost_no_round_trip(talk: Talk) -> None:
    number = talk.start(run(file(1), file(2)), SMALL)
    assert [type(send.message) for send in talk.sent] == [Run]
    talk.answer(result(number))
    assert isinstance(talk.ended[number], JobResult)


def test_all_files_are_asked_for_at_once_and_the_job_goes_when_they_are_there(talk: Talk) -> None:
    # given
    files = [file(each) for each in range(5)]
    number = talk.start(run(*files), SMALL)
    talk.sent.clear()
    # when
    lacks(talk, number, files[2].digest)
    # then: each is asked for, without bytes
    asked = puts(talk)
    assert {send.message.module for send in asked if isinstance(send.message, Put)} == {f.digest for f in files}
    assert all(send.piece is None for send in asked)
    # when
    for send in asked[1:]:
        store(talk, send)
    assert not talk.sent
    talk.answer(Stored(asked[0].message.request, files[2].digest, 0, False))  # type: ignore[union-attr]
    # then: only what the broker lacks is sent
    (piece,) = puts(talk)
    assert piece.piece == (files[2], 0, files[2].size)
    store(talk, piece)
    assert (talk.last().request, talk.sent[-1].piece) == (number, None)


def test_a_tiny_file_is_sent_without_asking(talk: Talk) -> None:
    tiny = file(1, MAX_IN_PLACE)
    number = talk.start(run(tiny), SMALL)
    lacks(talk, number, tiny.digest)
    assert talk.sent[-1].piece == (tiny, 0, MAX_IN_PLACE)
    store(talk, talk.sent[-1])
    assert talk.last().request == number


def test_a_large_module_and_the_files_are_sent_together(talk: Talk) -> None:
    number = talk.start(run(file(1)), LARGE)
    talk.sent.clear()
    talk.answer(Refused(number, "not_found", f"The broker does not have the module {DIGEST}; send its bytes along."))
    asked = puts(talk)
    assert {send.message.module for send in asked if isinstance(send.message, Put)} == {DIGEST, file(1).digest}
    for send in asked:
        store(talk, send)
    assert talk.last().request == number


def test_uploads_at_a_time_are_bounded_in_number_and_bytes(talk: Talk) -> None:
    # given
    small, large = [file(each) for each in range(100)], [file(each, 3 * PIECE) for each in range(100, 120)]
    first, second = talk.start(run(*small, job="a"), SMALL), talk.start(run(*large, job="b"), SMALL)
    talk.sent.clear()
    # then
    lacks(talk, first, small[0].digest)
    under_way = puts(talk)
    assert len(under_way) == AT_ONCE
    sent = 0
    while under_way:
        store(talk, under_way.pop(0))
        sent += 1
        under_way += puts(talk)
    assert sent == 100
    lacks(talk, second, large[0].digest)
    assert len(puts(talk)) == MAX_FLYING // WINDOW


def test_jobs_that_lack_the_same_file_share_its_upload(talk: Talk) -> None:
    numbers = [talk.start(run(file(1), file(each), job=f"j{each}"), SMALL) for each in (2, 3)]
    talk.sent.clear()
    for number in numbers:
        lacks(talk, number, file(1).digest)
    asked = puts(talk)
    assert len(asked) == 3
    for send in asked:
        store(talk, send)
    assert [send.message.request for send in talk.sent] == numbers


def test_a_file_that_the_broker_has_dropped_again_is_sent_again(talk: Talk) -> None:
    number = talk.start(run(file(1)), SMALL)
    for _ in range(2):
        lacks(talk, number, file(1).digest)
        store(talk, talk.sent[-1])
    talk.answer(result(number))
    assert isinstance(talk.ended[number], JobResult)


def test_a_broker_that_never_keeps_a_file_does_not_get_it_for_ever(talk: Talk) -> None:
    number = talk.start(run(file(1)), SMALL)
    for _ in range(10):
        lacks(talk, number, file(1).digest)
        if number in talk.ended:
            break
        store(talk, talk.sent[-1])
    assert isinstance(talk.ended[number], NotFound)


def test_a_file_of_which_only_the_hash_is_known_can_not_be_sent(talk: Talk) -> None:
    number = talk.start(run(file(1, None)), SMALL)
    lacks(talk, number, file(1).digest)
    assert isinstance(talk.ended[number], NotFound) and file(1).digest in str(talk.ended[number])


def test_a_file_larger_than_the_broker_takes_ends_the_job_by_its_path(talk: Talk) -> None:
    huge = file(1, 257 * 1024 * 1024)
    number = talk.start(run(huge, file(2)), SMALL)
    talk.sent.clear()
    lacks(talk, number, file(2).digest)
    ended = talk.ended[number]
    assert isinstance(ended, ModuleTooLarge) and "/00000001" in ended.message
    assert not talk.sent


def test_a_refused_upload_ends_the_job_and_begins_no_other(talk: Talk) -> None:
    files = [file(each) for each in range(AT_ONCE + 5)]
    number = talk.start(run(*files), SMALL)
    talk.sent.clear()
    lacks(talk, number, files[0].digest)
    asked = puts(talk)
    talk.answer(Refused(asked[0].message.request, "quota_exceeded", "That is too much."))  # type: ignore[union-attr]
    assert isinstance(talk.ended[number], QuotaExceeded)
    for send in asked[1:]:
        store(talk, send)
    assert not talk.sent and len(talk.core) == 0


def test_a_dropped_job_ends_its_uploads(talk: Talk) -> None:
    files = [file(each) for each in range(AT_ONCE + 5)]
    number = talk.start(run(*files), SMALL)
    lacks(talk, number, files[0].digest)
    talk.core.drop(number)
    assert len(talk.core) == 0


def test_a_dropped_job_leaves_the_uploads_of_others_alone(talk: Talk) -> None:
    # given
    files = [file(each) for each in range(AT_ONCE)]
    first, second = talk.start(run(*files, job="a"), SMALL), talk.start(run(file(999), job="b"), SMALL)
    lacks(talk, first, files[0].digest)
    asked = puts(talk)
    lacks(talk, second, file(999).digest)
    # when
    talk.core.drop(first)
    store(talk, asked[0])
    # then
    (last,) = puts(talk)
    store(talk, last)
    assert talk.last().request == second


def test_a_broker_without_files_is_not_sent_a_job_with_files() -> None:
    for message in (run(file(1)), run(scratch=1)):
        talk = Talk()
        number = talk.start(message, SMALL)
        talk.greet()
        ended = talk.ended[number]
        assert isinstance(ended, RequestError) and "too old for files" in ended.message
        assert not any(isinstance(send.message, Run) for send in talk.sent)


def test_paths_that_are_too_large_for_a_header_are_not_sent(talk: Talk) -> None:
    placed = Placed()
    for number in range(2000):
        placed.put(f"/{number}{'x' * 60}", UNKNOWN)
    number = talk.start(Run(0, "job", JobSpec(DIGEST, files=placed)), SMALL)
    assert isinstance(talk.ended[number], InputTooLarge)
