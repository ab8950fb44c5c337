"""What the commands of all benchmarks have in common: options, errors, the document on the screen and in a file."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report
from docopt import docopt
from lines import HelperFailed
from local_cluster import ClusterFailed
from rich.console import Console

from minilambda import MinilambdaError

console = Console(stderr=True, highlight=False)
Document = dict[str, Any]


def run(usage: str, measure: Callable[[dict[str, Any]], Document], show: Callable[[Document], None]) -> int:
    """Measure, show, write ``--json``; the exit code. ``measure`` gets the options of the command line."""
    args = docopt(usage)
    name = Path(sys.argv[0]).stem
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if args["--json"]:
            writable(args["--json"])
        document = measure(args)
        if args["--json"]:
            Path(args["--json"]).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        show(document)
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    except (MinilambdaError, ClusterFailed, HelperFailed, ValueError, OSError) as error:
        console.print(f"{name}: {error}", style="bold red", markup=False, soft_wrap=True)
        return 1
    return 0


def main(usage: str, measure: Callable[[dict[str, Any]], Document]) -> None:
    """``run`` with the usual way of showing; ends the process."""
    sys.exit(run(usage, measure, report.show))


def writable(path: str) -> None:
    """Find out before minutes are spent. Raises ``ValueError``."""
    if not Path(path).resolve().parent.is_dir():
        raise ValueError(f"{path}: there is no such directory.")


def read(path: Path) -> Document:
    """A document that ``--json`` wrote. Raises ``ValueError`` for another file."""
    try:
        document = json.loads(path.read_text())
    except ValueError:
        document = None
    if not isinstance(document, dict) or not {"benchmark", "machine", "results"} <= document.keys():
        raise ValueError(f"{path} was not written by a benchmark's --json.")
    return document
