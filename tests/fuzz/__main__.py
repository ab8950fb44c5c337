"""Long runs of the fuzzers; the short ones are in `test_fuzz.py`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from docopt import docopt

from tests.fuzz import broker, cores, corpus, decoder, words
from tests.fuzz.mutation import Mutator

USAGE = """Feed hostile input to the parts of minilambda, or to a whole broker, and see whether anything gives way.

Usage:
  fuzz [options]

Options:
  --seconds=<s>    Time for each target. [default: 60]
  --seed=<n>       The first seed. Default: another one each time.
  --target=<name>  decoder, cores, words (what runners and compilers say), broker, or all. [default: all]
  --keep           Add inputs that lead to new places in the decoder to tests/fuzz/corpus.
  --atheris        The decoder by atheris, which must be installed: `pip install -e .[fuzz]`.

Exit code: 0 when nothing gave way, 1 otherwise, with the seed that does it again.
"""


def main() -> int:
    args = docopt(USAGE)
    seconds, seed = float(args["--seconds"]), int(args["--seed"] or int.from_bytes(os.urandom(4), "big"))
    if args["--atheris"]:
        return by_atheris(seconds)
    kind = "found" if args["--keep"] else ""
    targets: dict[str, Callable[[Mutator], object]] = {
        "decoder": lambda mutator: decoder.fuzz(mutator, 2000, kind=kind),
        "cores": lambda mutator: cores.fuzz(mutator, 200),
        "words": lambda mutator: words.fuzz(mutator, 200),
        "broker": lambda mutator: whole(mutator, seconds),
    }
    chosen = list(targets) if args["--target"] == "all" else args["--target"].split(",")
    if set(chosen) - set(targets):
        print(f"There are the targets {', '.join(targets)}, and all.")
        return 2
    return max([run(name, targets[name], seed, seconds) for name in chosen])


def run(name: str, target: Callable[[Mutator], object], seed: int, seconds: float) -> int:
    """One target, seed after seed, until the time is over or something gives way."""
    began, number = time.monotonic(), seed
    while time.monotonic() < began + seconds:
        try:
            target(Mutator(number))
        except Exception:
            traceback.print_exc()
            print(f"{name}: gave way; make fuzz TARGET={name} SEED={number} does it again")
            return 1
        number += 1
    print(f"{name}: {number - seed} runs from seed {seed} in {time.monotonic() - began:.0f} s, nothing gave way")
    return 0


def whole(mutator: Mutator, seconds: float) -> None:
    """The rest of the time with brokers that live for two minutes each, half of them with a state directory."""
    with tempfile.TemporaryDirectory(prefix="minilambda-fuzz-") as name:
        folder = Path(name)
        options = ("--ephemeral",) if mutator.random.random() < 0.5 else ("--state-dir", str(folder / "state"))
        broker.fuzz(folder, mutator, 10**9, min(seconds, 120.0), *options)


def by_atheris(seconds: float) -> int:
    """libFuzzer, guided by the branches of the decoder. It ends the process itself."""
    import atheris

    for module in (decoder.wire, sys.modules["minilambda.shapes"], sys.modules["minilambda.fields"]):
        for name, value in list(vars(module).items()):
            if getattr(value, "__module__", "") == module.__name__ and hasattr(value, "__code__"):
                setattr(module, name, atheris.instrument_func(value))
    folder = tempfile.mkdtemp(prefix="minilambda-atheris-")
    options = [
        sys.argv[0],
        f"-max_total_time={int(seconds)}",
        f"-artifact_prefix={folder}/",
        folder,
        str(corpus.FOLDER),
    ]
    atheris.Setup(options, lambda data: decoder.one_input(corpus.unpack(data)))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
