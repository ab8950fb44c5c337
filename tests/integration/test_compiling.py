"""Compiler processes: artifacts, refusals and limits."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
from collections.abc import Iterator

import pytest

from minilambda.worker import engine, toolchain
from minilambda.worker.events import CORRUPT, CompileFinished
from minilambda.worker.wasm_check import LITTLE
from tests import wat
from tests.integration.agents import (
    BIG_VALUE,
    MIB,
    Agent,
    compile_order,
    lives,
    name_of,
    named,
    running_agent,
    slow_module,
    wait_until_dead,
)
from tests.integration.guests import padded


@pytest.fixture
def agent() -> Iterator[Agent]:
    with running_agent() as made:
        yield made


def test_an_artifact_is_sealed(agent: Agent) -> None:
    # given
    agent.start()
    # when
    finished = agent.compile(wat.HELLO)
    # then
    assert (finished.code, finished.message, finished.component) == (None, "", False)
    artifact = agent.processes.take_artifact(finished.digest, finished.compiler)
    assert os.fstat(artifact).st_size == finished.size > 0
    for change in (lambda: os.write(artifact, b"x"), lambda: os.ftruncate(artifact, 0)):
        with pytest.raises(PermissionError):
            change()
    os.close(artifact)
    with pytest.raises(KeyError):
        agent.processes.take_artifact(finished.digest, finished.compiler)


@pytest.mark.parametrize("compiler", toolchain.COMPILERS)
@pytest.mark.parametrize("text", [wat.HELLO, BIG_VALUE], ids=["module", "component"])
def test_an_artifact_is_what_wasmtime_itself_serializes(compiler: str, text: str) -> None:
    # given
    wasm = wat.wasm(text)
    # when
    component, artifact = toolchain.compile_wasm(wasm, compiler)
    # then
    code = engine.compiled(toolchain.make_engine(compiler, parallel=True), wasm, component)
    assert artifact == code.serialize()


def test_a_component_is_told_from_a_module(agent: Agent) -> None:
    # given
    agent.start()
    # when / then
    assert agent.compile(BIG_VALUE).component


@pytest.mark.parametrize("wasm", [b"", b"\0asm\1\0\0", b"hello", b"\0asm\1\0\0\0\xff\xff"], ids=str)
def test_invalid_bytes_are_an_invalid_module(agent: Agent, wasm: bytes) -> None:
    # given
    agent.start()
    # when
    finished = agent.compile(wasm)
    # then
    assert (finished.code, finished.size) == ("invalid_module", 0)
    assert finished.message


@pytest.mark.parametrize(
    "module", [wat.wasm(wat.HELLO), padded(3 * LITTLE), b"hello", bytes(3 * LITTLE)], ids=["small", "large", "no", "0"]
)
def test_bytes_that_do_not_have_the_hash_give_no_artifact_and_no_other_verdict(agent: Agent, module: bytes) -> None:
    # given
    agent.start()
    # when
    agent.order_compile(compile_order(wat.EMPTY), module)
    finished = agent.next(CompileFinished)
    # then
    assert (finished.code, finished.size) == (CORRUPT, 0)
    with pytest.raises(KeyError):
        agent.processes.take_artifact(finished.digest, finished.compiler)


def test_a_large_module_is_compiled_where_it_has_the_hash(agent: Agent) -> None:
    # given
    agent.start()
    # when / then
    assert agent.compile(padded(3 * LITTLE)).code is None


def test_a_compiler_that_needs_too_much_memory_is_stopped_by_its_limit(agent: Agent) -> None:
    # given
    agent.start()
    # when
    finished = agent.compile(slow_module(), memory_bytes=2 * MIB)
    # then
    assert finished.code == "compile_limit"
    assert "2 MiB of memory" in finished.message
    assert agent.compile(wat.HELLO).code is None


def test_a_module_larger_than_the_memory_for_compiling_it_meets_that_limit(agent: Agent) -> None:
    # given
    agent.start()
    # when
    finished = agent.compile(wat.wasm("(module)") + b"\0\x84\x80\x80\x10\x03pad" + bytes(32 * MIB), memory_bytes=MIB)
    # then
    assert (finished.code, finished.size) == ("compile_limit", 0)
    assert agent.compile(wat.HELLO).code is None


@pytest.mark.parametrize(("timeout_ms", "said"), [(1, "more than the 1 ms"), (600_000, "stopped by the worker")])
def test_a_compiler_is_stopped_when_the_agent_says_so(agent: Agent, timeout_ms: int, said: str) -> None:
    # given
    agent.start()
    agent.order_compile(compile_order(slow_module(), timeout_ms=timeout_ms), slow_module())
    while len(agent.pids()) < 2:
        agent.poll(1)
    compiler = agent.pids()[1]
    # when
    agent.processes.kill_compiler(name_of(slow_module()))
    finished = agent.next(CompileFinished)
    # then
    assert finished.code == "compile_limit"
    assert said in finished.message
    assert not lives(compiler)


def test_compilations_beyond_the_bound_wait_in_order() -> None:
    # given
    slow, first, second, third = (slow_module(), *(named(each, wat.wasm(wat.HELLO)) for each in ("1", "2", "3")))
    with running_agent(compilers=1) as agent:
        agent.start()
        # when
        for module in (slow, first, second, third):
            agent.order_compile(compile_order(module), module)
        agent.processes.kill_compiler(name_of(second))
        agent.processes.kill_compiler(name_of(slow))
        # then
        done = [agent.next(CompileFinished) for _ in range(4)]
    assert {event.digest for event in done} == {name_of(module) for module in (slow, first, second, third)}
    assert [event.digest for event in done if event.code is None] == [name_of(first), name_of(third)]


def test_what_nobody_waits_for_is_compiled_beside_the_rest_and_stands_back() -> None:
    with running_agent(compilers=1) as agent:
        # given
        agent.start(0)
        agent.settle(2)
        before = agent.pids()
        # when
        slow, slow_too = slow_module(), named("too", slow_module())
        for module in (slow, slow_too):
            agent.order_compile(dataclasses.replace(compile_order(module), background=True), module)
        agent.settle(3)
        (compiler,) = set(agent.pids()) - set(before)
        # then it has a process of its own, which gives way to others, and the next one waits
        while os.getpriority(os.PRIO_PROCESS, compiler) == os.getpriority(os.PRIO_PROCESS, 0):
            agent.poll(0.01)
        assert agent.compile(wat.HELLO).code is None
        assert compiler in agent.pids()
        agent.processes.kill_compiler(name_of(slow_too))
        assert agent.next(CompileFinished).digest == name_of(slow_too)
        agent.processes.kill_compiler(name_of(slow))
        assert agent.next(CompileFinished).digest == name_of(slow)


def test_a_compiler_waits_for_its_order_and_is_replaced_after_it(agent: Agent) -> None:
    # given
    agent.start(0)
    agent.settle(2)
    _template, _runner, resting = agent.pids()
    # when
    agent.order_compile(compile_order(wat.HELLO), wat.HELLO)
    # then
    assert resting in agent.pids() and len(agent.pids()) == 3, "nothing was forked for it"
    assert agent.next(CompileFinished).code is None
    while resting in agent.pids():  # it compiles for one only
        agent.poll(1)
    agent.settle(2)


def halted_after_its_result(agent: Agent) -> int:
    """A compiler that has told its result and does not end; or has ended already, where the machine is slow."""
    agent.start(0)
    agent.settle(2)
    compiler = agent.pids()[2]
    assert agent.compile(wat.HELLO).code is None
    with contextlib.suppress(ProcessLookupError):
        os.kill(compiler, signal.SIGSTOP)
    return compiler


def test_a_compiler_that_does_not_end_after_its_result_is_ended(agent: Agent) -> None:
    # given
    compiler = halted_after_its_result(agent)
    # when nothing happens but a look at a runner, as they are taken while a guest runs
    while compiler in agent.pids():
        agent.processes.look(0)
        agent.poll(0.01)
    # then another one rests in its place
    agent.settle(2)


def test_a_compiler_that_does_not_end_holds_up_nobody() -> None:
    with running_agent(compilers=1) as agent:
        # given
        compiler = halted_after_its_result(agent)
        # when / then
        assert agent.compile(wat.EMPTY).code is None
        assert not lives(compiler)


def test_a_compiler_that_died_at_rest_is_not_missed(agent: Agent) -> None:
    # given
    agent.start(0)
    agent.settle(2)
    resting = agent.pids()[2]
    # when
    os.kill(resting, signal.SIGKILL)
    wait_until_dead([resting])
    # then
    assert agent.compile(wat.HELLO).code is None
    assert agent.events == []


def test_forty_compilations_leave_no_descriptor_behind(agent: Agent) -> None:
    # given
    agent.start()
    os.close(agent.processes.take_artifact(agent.compile(wat.HELLO).digest, "cranelift"))
    agent.spawn(0)
    agent.settle(2)  # a runner, and the compiler that rests
    gc.collect()  # what earlier tests left is not this one's
    before = len(os.listdir("/proc/self/fd"))
    # when
    for _ in range(20):
        os.close(agent.processes.take_artifact(agent.compile(wat.HELLO).digest, "cranelift"))
        agent.compile(b"invalid")
    agent.settle(2)
    gc.collect()
    # then
    assert len(os.listdir("/proc/self/fd")) == before
