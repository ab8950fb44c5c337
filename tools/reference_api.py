"""The page of the Python interface: signatures and docstrings of the public names, fields with their comments."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import textwrap
import tokenize
from typing import Any

HEAD = """# The Python interface

<!-- Made by `make reference` from the code; changes here are lost. -->

All names that a program may use. [clients.md](clients.md) shows them at work. What is not here may change at any time.

"""

GROUPS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "Clients": ("minilambda", "", ("Client", "AsyncClient", "Executor")),
    "What is run, and how": ("minilambda", "", ("RunOptions", "CallOptions", "Module", "ModuleLike")),
    "Jobs and results": ("minilambda", "", ("Job", "AsyncJob", "RunResult", "Usage", "ErrorInfo", "Chunk")),
    "Functions": ("minilambda", "", ("FunctionInfo", "FunctionVersion")),
    "Looking": (
        "minilambda",
        "",
        ("Status", "Moment", "JobInfo", "ModuleInfo", "WorkerInfo", "Cluster", "ClientInfo", "Overview", "Latency"),
    ),
    "Errors": (
        "minilambda.errors",
        "One class for each code, all in `minilambda.errors`: [errors.md](errors.md) lists them. Their roots:",
        ("MinilambdaError", "JobError", "RequestError"),
    ),
    "Testing": (
        "minilambda.testing",
        "In `minilambda.testing`; the fixtures come with the package, as a plugin of pytest.",
        ("cluster", "Cluster"),
    ),
    "Fixtures": ("minilambda.testing.plugin", "", ("minilambda_cluster", "minilambda_options")),
}
"""Title to a module, words about it, and the names that are told of it."""

WIDTH = 100  # of a signature


def page() -> str:
    """The whole page. Raises ``ValueError`` where a public name has no place in it."""
    import minilambda  # noqa: PLC0415 - the tool has put it onto the path

    told = {name for module, _, names in GROUPS.values() for name in names if module != "minilambda.testing"}
    missing = set(minilambda.__all__) - told - {"__version__"}
    if missing:
        raise ValueError(f"reference_api.py tells nothing of {', '.join(sorted(missing))}")
    found = [HEAD]
    for title, (module, words, names) in GROUPS.items():
        home = importlib.import_module(module)
        found.append(f"## {title}\n" + (f"{words}\n" if words else ""))
        prefix = "" if module in ("minilambda", "minilambda.testing.plugin") else f"{module}."
        found.extend(_entry(prefix + name, name, getattr(home, name)) for name in names)
    return "\n".join(found)


def _entry(full: str, name: str, value: Any) -> str:
    if name == "ModuleLike":
        return f"### ModuleLike\n{_alias('minilambda.client.modules', name)}"
    if not inspect.isclass(value):
        function = getattr(value, "__wrapped__", getattr(value, "_fixture_function", value))
        node = _node(function)
        return f"### {full}\n```py\n{_signature(node, name)}\n```\n{_doc(node)}\n"
    return f"### {full}\n" + "\n".join(part for part in (_class(value), *_methods(value)) if part)


def _class(cls: type) -> str:
    """Its docstring, how it is made, its fields."""
    node = _node(cls)
    parts = [_doc(node)]
    init = next((each for each in _functions(node) if each.name == "__init__"), None)
    if init is not None and not cls.__name__.endswith(("Job", "Cluster", "Module")):
        parts.append(f"```py\n{_signature(init, cls.__name__, method=True)}\n```")
    fields = _fields(cls)
    if fields:
        parts.append("| field | type | |\n|---|---|---|\n" + "\n".join(fields))
    return "\n\n".join(parts) + "\n"


def _methods(cls: type) -> list[str]:
    """Its public methods and properties, and those of its bases that are ours."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        if not base.__module__.startswith("minilambda"):
            continue
        for node in _functions(_node(base)):
            if node.name.startswith("_") or node.name in found or not ast.get_docstring(node):
                continue
            if any(ast.unparse(mark) == "abstractmethod" for mark in node.decorator_list):
                continue
            is_property = any(ast.unparse(mark) == "property" for mark in node.decorator_list)
            shown = f"{node.name}: {_type(node.returns)}" if is_property else _signature(node, node.name, method=True)
            found[node.name] = f"#### {cls.__name__}.{node.name}\n```py\n{shown}\n```\n{_doc(node)}\n"
    return [text for name, text in found.items() if name not in _INSIDE]


_INSIDE = frozenset({"ask", "link", "new_job_id"})
"""Methods for what has no method of its own: they take messages of the protocol, which are no public names."""


def _fields(cls: type) -> list[str]:
    """A row for each field, with the comment behind it."""
    source = textwrap.dedent(inspect.getsource(cls))
    comments = {
        token.start[0]: token.string.lstrip("# ").partition("type: ignore")[0].strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    rows = []
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        named = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        if named and not node.target.id.startswith("_") and "ClassVar" not in ast.unparse(node.annotation):
            default = (
                f" = {ast.unparse(node.value)}" if node.value is not None and len(ast.unparse(node.value)) < 12 else ""
            )
            kind = _type(node.annotation).replace("|", "\\|")
            comment = comments.get(node.end_lineno or 0, "").replace("|", "\\|").replace("``", "`")
            rows.append(f"| `{node.target.id}` | `{kind}{default}` | {comment} |")
    return rows


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef, name: str, method: bool = False) -> str:
    """The signature as it is written, cut into lines where it is long."""
    arguments = node.args
    if method:
        (arguments.posonlyargs or arguments.args).pop(0)
    words = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    returns = f" -> {_type(node.returns)}" if node.returns is not None and node.name != "__init__" else ""
    line = f"{words}{name}({ast.unparse(arguments)}){returns}"
    if len(line) <= WIDTH:
        return line
    parts = _split(ast.unparse(arguments))
    return f"{words}{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){returns}"


def _split(text: str) -> list[str]:
    """The arguments, which commas part that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for at, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def _functions(node: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    body: list[ast.AST] = node.body  # type: ignore[attr-defined]
    return [each for each in body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]


def _node(value: Any) -> Any:
    """The syntax of a class or a function, named constants in it replaced by what they are."""
    names = vars(importlib.import_module(value.__module__))
    return _Values(names).visit(ast.parse(textwrap.dedent(inspect.getsource(value)))).body[0]


class _Values(ast.NodeTransformer):
    """Puts values in the place of constants, which are defaults."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        value = self._names.get(node.id)
        return ast.Constant(value) if node.id.isupper() and isinstance(value, (int, float, str)) else node


def _doc(node: Any) -> str:
    return (ast.get_docstring(node) or "").replace("``", "`")


def _type(node: ast.AST | None) -> str:
    return "" if node is None else ast.unparse(node).replace("'", "").replace('"', "")


def _alias(module: str, name: str) -> str:
    """A name for a type, with the text below it."""
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    at = next(i for i, node in enumerate(body) if _assigns(node, name))
    about = body[at + 1]
    words = about.value.value if isinstance(about, ast.Expr) and isinstance(about.value, ast.Constant) else ""
    code = ast.unparse(body[at]).replace("'", '"')
    return f"```py\n{code}\n```\n{str(words).replace('``', '`')}\n"


def _assigns(node: ast.stmt, name: str) -> bool:
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)
