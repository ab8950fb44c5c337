"""Send a Python package and a table to a CPython in WebAssembly, and get the table back that it writes.

.venv/bin/python examples/report/run.py [BROKER]

It needs a broker with a worker, as of `bin/minilambda up`, and `make guests` for the CPython. By the command line:

bin/minilambda-client --env PYTHONPATH=/lib --dir /lib=examples/report/lib --file /main.py=examples/report/report.py \
    --file /data/sales.csv=examples/report/sales.csv --collect /tmp/report.csv=report.csv .guests/python.wasm /main.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from minilambda import Client

HERE = Path(__file__).resolve().parent
CPYTHON = HERE.parents[1] / ".guests" / "python.wasm"


def main(address: str = "127.0.0.1:8080") -> None:
    with Client(address) as client:
        result = client.run(
            CPYTHON,
            ["/main.py"],
            env={"PYTHONPATH": "/lib"},
            dirs={"/lib": HERE / "lib"},
            files={"/main.py": HERE / "report.py", "/data/sales.csv": HERE / "sales.csv"},
            collect=["/tmp/report.csv"],
        )
    print(result.stdout_text, end="")
    print(result.stderr_text, end="", file=sys.stderr)
    print(result.files["/tmp/report.csv"].decode(), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
