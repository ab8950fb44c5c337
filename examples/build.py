"""Rebuild every example: each .wat becomes the .wasm beside it. No toolchain is needed.

.venv/bin/python examples/build.py
"""

from __future__ import annotations

from pathlib import Path

import wasmtime

HERE = Path(__file__).resolve().parent


def sources() -> list[Path]:
    """The text of every example, the hostile ones too."""
    return sorted(HERE.rglob("*.wat"))


def main() -> None:
    for source in sources():
        wasm = wasmtime.wat2wasm(source.read_text(encoding="utf-8"))
        target = source.with_suffix(".wasm")
        target.write_bytes(wasm)
        print(f"{target.relative_to(HERE)}: {len(wasm)} bytes")


if __name__ == "__main__":
    main()
