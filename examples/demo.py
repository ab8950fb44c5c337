"""What `make demo` runs: a broker and two workers on this machine, the examples through them, and a look at each.

It starts the commands of `bin/` on a free port with a temporary cache, and leaves nothing behind.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from minilambda import Client
from minilambda.errors import JobError, MinilambdaError

HERE = Path(__file__).resolve().parent
BIN = HERE.parent / "bin"
CPYTHON = HERE.parent / ".guests" / "python.wasm"
ADDRESS = re.compile(r"\b127\.0\.0\.1:[1-9]\d*\b")
WORKERS = 2
MAPPED = 200  # inputs of the last part
UP_S = 20.0  # the broker must have said its address after so long, seconds
DOWN_S = 15.0  # a process must have ended so long after SIGTERM, seconds
# A terminal decides its own width; anything else gets one that holds the tables.
console = Console(width=None if sys.stdout.isatty() else 114, highlight=False)


@dataclass(frozen=True)
class Example:
    """One guest and how to run it."""

    title: str
    wasm: Path
    options: dict[str, Any] = field(default_factory=dict)


EXAMPLES = [
    Example("a WASI command", HERE / "hello.wasm"),
    Example("stdin to stdout", HERE / "upper.wasm", {"stdin": b"shout it out loud\n"}),
    Example("fib(90)", HERE / "primes.wasm", {"invoke": "fib", "args": ["90"]}),
    Example("primes < 100000", HERE / "primes.wasm", {"invoke": "count_primes", "args": ["100000"]}),
    Example("a component", HERE / "adder.wasm", {"invoke": "greet", "args": ["component"]}),
]
PYTHON = Example("CPython 3.12", CPYTHON, {"args": ["-c", "import sys; print(sum(range(1000)), sys.platform)"]})

HOSTILE = [
    Example("loops for ever", HERE / "hostile" / "loop.wasm", {"timeout": 0.5}),
    Example("sleeps in a host call", HERE / "hostile" / "sleep.wasm", {"timeout": 0.5}),
    Example("wants 4 GiB at once", HERE / "hostile" / "huge.wasm"),
    Example("grows until refused", HERE / "hostile" / "balloon.wasm"),
    Example("floods its output", HERE / "hostile" / "flood.wasm"),
    Example("divides by zero", HERE / "hostile" / "divide.wasm"),
    Example("recurses for ever", HERE / "hostile" / "recurse.wasm"),
    Example("imports a socket", HERE / "hostile" / "network.wasm"),
]


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun = time.monotonic()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="minilambda-demo-") as folder,
            cluster(Path(folder)) as address,
            Client(f"tcp://{address}") as client,
        ):
            show_examples(client)
            show_hostile(client)
            show_map(client)
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    except (MinilambdaError, DemoFailed) as error:
        console.print(f"The demo failed: {error}", style="bold red", markup=False)
        return 1
    console.print(
        f"Broker and workers have ended and their directory is gone. {time.monotonic() - begun:.1f} s in all.\n"
        "Next: [bold]bin/minilambda up[/] here, and in another terminal\n"
        "      [bold]bin/minilambda-client examples/hello.wasm[/]"
    )
    return 0


# --- the parts ---------------------------------------------------------------------------------------


def show_examples(client: Client) -> None:
    """Each example twice: as nobody has seen it, and again."""
    table = Table(title="Examples: the first run and a later one (milliseconds)", title_justify="left")
    for name in ("example", "gives", "tier"):
        table.add_column(name, no_wrap=True)
    for name in ("fetch", "compile", "load", "run", "at broker", "round trip"):
        table.add_column(name, justify="right", no_wrap=True)
    for example in [*EXAMPLES, *([PYTHON] if CPYTHON.exists() else [])]:
        first, first_ms = timed(client, example)
        again, again_ms = min((timed(client, example) for _ in range(5)), key=lambda pair: pair[1])
        table.add_row(example.title, given(first), *phases(first, first_ms))
        table.add_row("", "", *phases(again, again_ms), end_section=True)
    console.print(table, "")


def show_hostile(client: Client) -> None:
    """Guests that do what they should not; each ends with a code and a sentence, and the workers go on."""
    table = Table(title="Hostile guests: one code and one sentence each", title_justify="left")
    table.add_column("guest that", no_wrap=True)
    table.add_column("code", style="red", no_wrap=True)
    table.add_column("after ms", justify="right", no_wrap=True)
    table.add_column("sentence")
    for example in HOSTILE:
        begun = time.perf_counter()
        try:
            client.run(example.wasm, **example.options)
        except JobError as error:
            table.add_row(example.title, error.code, f"{(time.perf_counter() - begun) * 1e3:.0f}", first_line(error))
        else:
            raise DemoFailed(f"{example.wasm.name} was to fail and did not")
    console.print(table)
    if client.run(HERE / "hello.wasm").stdout != b"Hello, WebAssembly\n":
        raise DemoFailed("a guest after the hostile ones did not work")
    console.print("The same workers ran the next guest as if nothing had happened.\n")


def show_map(client: Client) -> None:
    """Many inputs over one module, both workers at once."""
    texts = [f"line {number}\n".encode() for number in range(MAPPED)]
    begun = time.perf_counter()
    results = list(client.map(HERE / "upper.wasm", texts))
    took = time.perf_counter() - begun
    if [result.stdout for result in results] != [text.upper() for text in texts]:
        raise DemoFailed("map gave something else than its inputs in upper case")
    shares = Counter(result.worker for result in results)
    who = ", ".join(f"{worker} {count}" for worker, count in sorted(shares.items()))
    console.print(
        f"Map: {MAPPED} inputs over one module in {took * 1e3:.0f} ms, "
        f"[bold]{MAPPED / took:,.0f} jobs/s[/], in order ({who}).\n"
    )


def timed(client: Client, example: Example) -> tuple[Any, float]:
    """One run and its round trip as the client sees it, milliseconds."""
    begun = time.perf_counter()
    result = client.run(example.wasm, **example.options)
    return result, (time.perf_counter() - begun) * 1e3


def given(result: Any) -> str:
    """What a run gave, on one line."""
    return repr(result.value) if result.value is not None else result.stdout.decode(errors="replace").strip()


def phases(result: Any, round_trip_ms: float) -> list[str]:
    usage = result.usage
    spent = [usage.fetch_ms, usage.compile_ms, usage.load_ms, usage.run_ms, usage.total_ms, round_trip_ms]
    style = "green" if result.tier == "warm" else "yellow"
    return [f"[{style}]{result.tier}[/]", *(f"{ms:.2f}" if ms else "-" for ms in spent)]


def first_line(error: JobError) -> str:
    return error.message.partition("\n")[0]


# --- the processes -----------------------------------------------------------------------------------


class DemoFailed(Exception):
    """Something that the demo started did not do what it should."""


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A broker and its workers for as long as the block runs; gives the broker's address."""
    with ExitStack() as running:
        log = folder / "broker.log"
        broker = running.enter_context(service(folder, "broker", "broker", "--bind", "127.0.0.1:0", "--ephemeral"))
        address = printed_address(log, broker)
        for number in range(1, WORKERS + 1):
            name = f"worker-{number}"
            options = ["--orchestrator", address, "--slots", "1", "--cache-dir", str(folder / "cache"), "--name", name]
            running.enter_context(service(folder, name, "worker", *options))
        console.print(f"A broker on [bold]{address}[/] and {WORKERS} workers, one slot each.\n")
        yield address


@contextmanager
def service(folder: Path, name: str, which: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """One command of `bin/`; SIGTERM at the end; it must end well."""
    env = {**os.environ, "TMPDIR": str(folder)}
    with (folder / f"{name}.log").open("wb") as log:
        command = [sys.executable, str(BIN / f"minilambda-{which}"), *options]
        # A session of its own: Ctrl-C is for the demo, which then ends its services in order.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )
    try:
        yield process
    finally:
        code = ended(process)
    if code != 0:
        raise DemoFailed(f"{name} exited with {code}: {(folder / f'{name}.log').read_text(errors='replace')}")


def ended(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, and SIGKILL where that is not enough; gives the exit status."""
    try:
        process.terminate()
        return process.wait(DOWN_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def printed_address(log: Path, broker: subprocess.Popen[bytes]) -> str:
    """The address that the broker says it is bound to."""
    end = time.monotonic() + UP_S
    while not (found := ADDRESS.search(log.read_text(errors="replace"))):
        if broker.poll() is not None or time.monotonic() > end:
            raise DemoFailed(f"the broker did not come up: {log.read_text(errors='replace')}")
        threading.Event().wait(0.01)
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
