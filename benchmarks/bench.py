"""Run all benchmarks and print one page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import command
import page
from docopt import docopt
from harness import ROOT

USAGE = """Run all benchmarks one after another and print one page: each question, the figure, the ratio, the target.

Usage:
  bench.py [--full] [--only=<names>] [--out=<dir>] [--write] [--peers-python=<path>]
  bench.py --from=<dir> [--write]
  bench.py (-h | --help)

Options:
  --full                 The long forms: about forty minutes. Without it the quick ones: about six.
  --only=<names>         Some of peers, cold_start, throughput, clients, hops, live, memory, scale, nodes, with
                         commas between.
  --out=<dir>            Where each leaves its figures and its text. Default: benchmarks/out
  --from=<dir>           Measure nothing: the page of an earlier run.
  --write                Put the figures into docs/performance.md.
  --peers-python=<path>  The Python that has the peers: see peers.py.
  -h --help              Show this.

Leave the machine alone meanwhile.
"""

SCRIPTS = ("peers", "cold_start", "throughput", "clients", "hops", "live", "memory", "scale", "nodes")
PAGE = ROOT / "docs" / "performance.md"


def run(name: str, folder: Path, options: list[str]) -> str:
    """Run one benchmark; why it failed, or "". Its text and figures are in ``folder``."""
    figures = folder / f"{name}.json"
    figures.unlink(missing_ok=True)
    line = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--json", str(figures), *options]
    with (folder / f"{name}.txt").open("w") as text:
        done = subprocess.run(line, stdout=text, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def measure(names: list[str], folder: Path, args: dict[str, Any]) -> dict[str, str]:
    """Run the benchmarks; those that failed, and why."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = {}
    for number, name in enumerate(names, 1):
        options = [] if args["--full"] else ["--quick"]
        if name == "peers" and args["--peers-python"]:
            options += ["--python", args["--peers-python"]]
        with command.console.status(f"{number} of {len(names)}: {name}.py"):
            if reason := run(name, folder, options):
                failed[name] = reason
    return failed


def documents(folder: Path) -> dict[str, Any]:
    """The figures that are in a folder, in the order of the page."""
    return {name: command.read(path) for name in SCRIPTS if (path := folder / f"{name}.json").exists()}


def main() -> int:
    args = docopt(USAGE)
    names = args["--only"].split(",") if args["--only"] else list(SCRIPTS)
    if unknown := set(names) - set(SCRIPTS):
        command.console.print(f"bench: there is no {', '.join(sorted(unknown))}.", style="bold red")
        return 1
    folder = Path(args["--from"] or args["--out"] or ROOT / "benchmarks" / "out")
    try:
        failed = {} if args["--from"] else measure(names, folder, args)
        found = documents(folder)
    except KeyboardInterrupt:
        command.console.print("interrupted")
        return 130
    except (ValueError, OSError) as error:
        command.console.print(f"bench: {error}", style="bold red", markup=False)
        return 1
    if not found:
        command.console.print("bench: nothing was measured.", style="bold red")
        return 1
    page.show(found, failed)
    if args["--write"]:
        page.write(PAGE, found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
