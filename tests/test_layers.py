"""Imports point one way, and each dependency has its place (see `docs/architecture.md`)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minilambda"

SHARED = {"errors", "_version", "fields", "messages", "shapes", "codegen", "wire", "notation", "settings", "transfers"}
SHARED |= {"sockets", "keys", "keyfiles", "curve", "paths", "histogram", "extras", "exporter", "awake"}
"""What every part may use; nothing in it knows a part."""

PARTS = {"broker", "worker", "client"}
"""They know what is shared and themselves, never each other."""

ZMQ = {"sockets", "curve", "broker.transport", "worker.dealer", "worker.server", "client.link", "client.sync"}
ZMQ |= {
    "client.connection",
    "client.aio",
    "client.io_thread",
    "client.async_link",
    "broker.access",
    "broker.callers",
    "broker.gate",
    "broker.watched",
    "worker.entry",
}

SHELLS = {
    "broker": {"server", "transport", "watched", "spool", "outbox", "storage", "journal", "tables", "module_files"},
    "client": {
        "attended",
        "connection",
        "files",
        "requests",
        "aio",
        "executor",
        "io_thread",
        "promise",
        "async_link",
        "async_live",
        "async_lists",
        "async_functions",
        "async_job",
        "async_mapping",
        "async_modules",
        "link",
        "sync",
        "job",
        "mapping",
        "modules",
        "results",
        "listings",
        "spec",
    },
}
SHELLS["broker"] |= {"run", "exposure", "access", "authorized", "callers", "gate", "telemetry", "tracing", "metrics"}
SHELLS["top"] = {"app", "grid", "job_screen", "questions", "run"}
"""The modules around a core; all others of a part are as pure as its core."""

PURE_WORKER = {
    "core",
    "execution",
    "modules",
    "slots",
    "link",
    "jobs",
    "results",
    "actions",
    "events",
    "words",
    "invariants",
    "inlet",
    "live",
    "meters",
    "needs",
    "trees",
    "file_pulls",
}

IMPURE = {
    "asyncio",
    "concurrent",
    "ctypes",
    "datetime",
    "fcntl",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "resource",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
    "uuid",
    "zmq",
    "wasmtime",
}
"""Clocks, chance, threads, files and sockets: a core gets what it needs of them as values."""


def names(path: Path) -> set[str]:
    """The dotted names that a file imports at run time, wherever in it."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        waiting.extend(ast.iter_child_nodes(node))
    return found


def dotted(path: Path) -> str:
    """``broker.core`` for minilambda/broker/core.py, ``messages`` for a package, "" for minilambda itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


IMPORTS = {dotted(path): names(path) for path in sorted(PACKAGE.rglob("*.py"))}


def ours(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    wanted = {name.removeprefix("minilambda.") for name in IMPORTS[module] if name.startswith("minilambda.")}
    return {name for name in wanted if name in IMPORTS}


def tops(module: str) -> set[str]:
    return {name.partition(".")[0] for name in IMPORTS[module]}


def users(top: str) -> set[str]:
    return {module for module in IMPORTS if top in tops(module)}


def pure() -> Iterator[str]:
    for module in IMPORTS:
        part, _, rest = module.partition(".")
        shells = SHELLS.get(part)
        if (shells is not None and rest and rest not in shells) or (part == "worker" and rest in PURE_WORKER):
            yield module
    yield from SHARED & IMPORTS.keys() - {"sockets", "curve", "keyfiles", "exporter", "awake"}
    yield from (module for module in IMPORTS if module.startswith("messages."))


def test_the_tables_of_this_test_name_modules_that_exist() -> None:
    named = ZMQ | {f"{part}.{name}" for part, shells in SHELLS.items() for name in shells}
    named |= {f"worker.{name}" for name in PURE_WORKER} | SHARED
    assert named <= IMPORTS.keys()


def test_errors_import_nothing_of_ours() -> None:
    assert ours("errors") == set()


def test_what_is_shared_knows_no_part() -> None:
    for module in IMPORTS:
        if module.partition(".")[0] in SHARED:
            assert {name.partition(".")[0] for name in ours(module)} <= SHARED, module


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_part_knows_only_itself_and_what_is_shared(part: str) -> None:
    for module in IMPORTS:
        if module.partition(".")[0] == part:
            assert {name.partition(".")[0] for name in ours(module)} <= {part, *SHARED}, module


def test_only_commands_and_the_public_names_use_the_servers() -> None:
    for module in IMPORTS:
        if not module.startswith("cli") and module not in ("", "broker.run"):
            assert not {"broker.run", "broker.server", "worker.server"} & ours(module), module


def test_nothing_imports_the_commands_but_commands() -> None:
    for module in IMPORTS:
        if module.partition(".")[0] != "cli":
            allowed = {"cli", "cli.render"} if module.startswith("web.") else set()  # the same JSON as `--json` prints
            assert not [name for name in ours(module) - allowed if name.partition(".")[0] == "cli"], module


def test_the_gateway_is_a_client_and_only_its_command_knows_it() -> None:
    for module in IMPORTS:
        parts = {name.partition(".")[0] for name in ours(module)}
        if module.startswith("web"):
            assert parts <= {"web", "client", "cli", *SHARED}, module
        elif module != "cli.web":
            assert "web" not in parts, module
    assert {module.partition(".")[0] for top in ("starlette", "uvicorn", "h11") for module in users(top)} == {"web"}


def test_zmq_is_in_the_shells_only() -> None:
    assert users("zmq") == ZMQ


def test_wasmtime_is_in_the_worker_only() -> None:
    assert {module.partition(".")[0] for module in users("wasmtime")} == {"worker"}


def test_the_private_names_of_wasmtime_are_in_one_file() -> None:
    private = {m for m, found in IMPORTS.items() for name in found if name.startswith("wasmtime.") and "._" in name}
    touching = {
        dotted(path)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("wasmtime._")
    }
    assert private | touching <= {"worker.engine"}


@pytest.mark.parametrize("module", sorted(set(pure())))
def test_a_core_has_no_clock_no_chance_no_thread_and_no_socket(module: str) -> None:
    assert not tops(module) & IMPURE


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({module: ours(module) - {module} for module in IMPORTS}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_the_protocols_test_does_without_minilambda() -> None:
    for name in ("test_protocol.py", "plain.py"):
        found = names(ROOT / "tests" / "integration" / name)
        assert not [each for each in found if each.partition(".")[0] == "minilambda"], name
