"""What runners and compilers say, to the agent's handles: an event, nothing, or the end of the process; never more."""

from __future__ import annotations

import os
from typing import Any

from minilambda.worker import codec
from minilambda.worker.channel import ChannelError
from minilambda.worker.events import CORRUPT, CompileFinished, RunnerFinished, RunnerReady
from minilambda.worker.handles import CompilerHandle, RunnerHandle
from tests.fuzz.mutation import Mutator
from tests.integration.agents import ORDER, compile_order, memfd

OUTCOME = ("done", None, "", 0, None, None, None, 0.0, 0.0, 0.0, 0, b"", b"")
WORDS: list[tuple[Any, ...]] = [
    ("ready", ["session raised"]),
    OUTCOME,
    ("done", "trap", "It trapped.", None, None, "unreachable", "at f", 1.0, 2.0, 3.0, 4096, b"out", b"err"),
    ("done", None, "", None, b"\x01", None, None, 0.0, 0.0, 0.0, 0, None, None),
    ("bad_artifact", "It does not load."),
    ("fault", "It gives up."),
    ("compiled", False, 4, 1.0),
    ("invalid", "It does not compile."),
    ("limit", "It took too much."),
    ("corrupt",),
]


def fuzz(mutator: Mutator, rounds: int) -> None:
    """So many messages, to a runner and to a compiler in any state. They have no processes: the pid is never there."""
    for number in range(rounds):
        runner, compiler = RunnerHandle(number, 0), compiling() if number % 2 else CompilerHandle(number)
        try:
            runner_hears(mutator, runner)
            compiler_hears(mutator, compiler)
        finally:
            runner.close()
            compiler.close()


def runner_hears(mutator: Mutator, runner: RunnerHandle) -> None:
    if mutator.random.random() < 0.9:
        runner.far_end.send(b"\0" + codec.pack(*WORDS[0]))
        assert runner.hear() == [RunnerReady(0)]
        runner.run(ORDER, None)
    for _ in range(mutator.random.choice((1, 1, 2, 3))):
        said = payload(mutator)
        parse(said)
        if runner.channel is None:
            return
        runner.far_end.send(said)
        for event in runner.hear():
            assert isinstance(event, (RunnerReady, RunnerFinished))
            if isinstance(event, RunnerFinished):
                check(event)


def check(event: RunnerFinished) -> None:
    """What the agent takes over can be told to the broker."""
    outcome = event.outcome
    assert outcome.code is None or outcome.code in codec.RUNNER_CODES
    assert outcome.exit_code is None or -(2**31) <= outcome.exit_code < 2**32
    assert max(len(outcome.stdout), len(outcome.stderr), len(outcome.value or b"")) <= ORDER.output_bytes
    assert len(outcome.message.encode()) <= codec.MAX_TEXT
    assert all(0 <= time <= 1e10 for time in (outcome.load_ms, outcome.run_ms, outcome.cpu_ms))


def compiling() -> CompilerHandle:
    """A compiler that has its order."""
    handle, wasm = CompilerHandle(1), memfd(b"")
    handle.give(compile_order(b""), wasm)
    os.close(wasm)
    return handle


def compiler_hears(mutator: Mutator, compiler: CompilerHandle) -> None:
    if compiler.order is not None:
        os.ftruncate(compiler.artifact_fd, mutator.random.choice((0, 4)))
    said = payload(mutator)
    compiler.far_end.send(said)
    for event in compiler.hear():
        assert isinstance(event, CompileFinished)
        assert event.code in (None, "invalid_module", "compile_limit", "internal", CORRUPT) and event.size >= 0


def payload(mutator: Mutator) -> bytes:
    """A packet: mostly a message that says something close to what may be said."""
    words = list(mutator.random.choice(WORDS))
    for _ in range(mutator.random.choice((0, 1, 1, 2))):
        at = mutator.random.randrange(len(words) + 1)
        if at == len(words) or mutator.random.random() < 0.1:
            words.append(mutator.value(""))
        else:
            words[at] = mutator.value("")
    try:
        packed = codec.pack(*words)
    except (OverflowError, ValueError):  # msgpack has no such value
        packed = codec.pack(*OUTCOME)
    if mutator.random.random() < 0.4:
        packed = mutator.bytes(packed)
    kind = mutator.random.choice((b"\0", b"\0", b"\0", b"\0", b"\1", b"\2", b""))
    return (kind + packed)[:60_000] or b"\0"


def parse(said: bytes) -> None:
    """The codec alone refuses in one way only."""
    try:
        kind, fields = codec.unpack_untrusted(said[1:])
        codec.decode_outcome(fields, 1000, lambda: (b"", b""))
    except ChannelError as error:
        assert error.message
    else:
        assert type(kind) is str
