"""A few seconds of each fuzzer, from fixed seeds. Long runs: `make fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import broker, cores, corpus, decoder, words
from tests.fuzz.broker_core import BrokerFuzz
from tests.fuzz.mutation import Mutator
from tests.fuzz.worker_core import WorkerFuzz


def test_every_kept_input_is_a_message_or_is_refused() -> None:
    kept = corpus.load()
    for frames in kept:
        decoder.one_input(frames)
    assert len(kept) > 100


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_frames_are_a_message_or_are_refused(seed: int) -> None:
    decoder.fuzz(Mutator(seed), 5000, guided=seed == 1)


@pytest.mark.parametrize("seed", range(24))
def test_the_cores_stay_sound_whatever_is_decoded(seed: int) -> None:
    cores.fuzz(Mutator(seed), 150)


def test_the_fuzzed_broker_takes_jobs_and_the_fuzzed_worker_runs_them() -> None:
    """Without that there would be little to break."""
    ended, runs = 0, 0
    for seed in range(5):
        fuzzed = BrokerFuzz(Mutator(seed), durable=False)
        for _ in range(200):
            fuzzed.step()
        ended += len(fuzzed.world.ended)
        worker = WorkerFuzz(Mutator(seed))
        for _ in range(200):
            worker.step()
            runs += sum(runner.busy is not None for runner in worker.driver.runners.values())
    assert ended > 10 and runs > 2


def test_what_runners_and_compilers_say_ends_in_an_event_or_in_their_end() -> None:
    words.fuzz(Mutator(1), 2000)


def test_a_whole_broker_serves_others_while_it_is_fed_garbage(tmp_path: Path) -> None:
    assert broker.fuzz(tmp_path, Mutator(1), 3000, 6.0, "--state-dir", str(tmp_path / "state")) > 100


def test_atheris_is_given_inputs_in_the_form_in_which_they_are_kept() -> None:
    frames = [b"header", b"", b"body"]
    assert corpus.unpack(corpus.pack(frames)) == frames
    assert corpus.unpack(b"\xff\xff\xff\xffx") == [b"x"]
