"""Chaos on real processes, and a ledger that must balance afterwards."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from docopt import docopt

from tests.chaos import network
from tests.chaos.monkey import TROUBLES
from tests.chaos.report import Report, page
from tests.chaos.run import chaos

USAGE = """Kill, freeze and part a broker, its workers and its clients under load, and see whether the ledger balances.

Usage:
  chaos [options]

Options:
  --seconds=<s>    Trouble lasts so long; warm-up, calm and verdict come on top. [default: 60]
  --seed=<n>       The monkey's choices. Default: another one each time.
  --workers=<n>    [default: 4]
  --clients=<n>    [default: 6]
  --every=<s>      Mean time between two troubles, seconds. [default: 0.7]
  --only=<names>   Troubles to choose from, separated by commas; see tests/chaos/monkey.py.
  --no-network     Part nobody: no network namespaces.
  --keep           Leave logs and ledger where they are, also after a success.

Exit code: 0 when the ledger balances, 1 when it does not, with the story of each job; 2 for wrong options.
"""


def main() -> int:
    args = docopt(USAGE)
    only = {name.strip() for name in (args["--only"] or "").split(",") if name.strip()}
    if only - set(TROUBLES):
        print(f"No such troubles: {', '.join(sorted(only - set(TROUBLES)))}. There are: {', '.join(TROUBLES)}.")
        return 2
    why = "not asked for" if args["--no-network"] else "" if network.inside() else network.why_not()
    if not why and not network.inside():
        sys.stdout.flush()
        network.enter()
    cable = network.Network() if network.inside() else None
    seed = int(args["--seed"] or int.from_bytes(os.urandom(2), "big"))
    folder = Path(tempfile.mkdtemp(prefix="minilambda-chaos-"))
    report = Report(seed, float(args["--seconds"]), why, str(folder), time.monotonic())
    sizes = int(args["--workers"]), int(args["--clients"])
    chaos(report, folder, cable, *sizes, every=float(args["--every"]), only=only)
    print(page(report))
    if not report.problems and not args["--keep"]:
        shutil.rmtree(folder)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
