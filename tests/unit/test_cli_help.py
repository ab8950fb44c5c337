"""The help of all commands, as a terminal shows it."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import minilambda.cli

WIDEST = 96
"""Columns that a line of help may take: two terminals beside each other, or a page of documentation, have so many."""

NAMES = [module.name for module in pkgutil.iter_modules(minilambda.cli.__path__)]
MODULES = {name: importlib.import_module(f"minilambda.cli.{name}") for name in NAMES}
HELP = {name: module.USAGE for name, module in MODULES.items() if hasattr(module, "USAGE")}


def test_the_help_of_each_command_is_looked_at() -> None:
    servers, functions = {"broker", "worker", "up", "web"}, {"deploy", "alias", "rollback", "undeploy"}
    assert set(HELP) == servers | functions | {"main", "client", "top", "keygen", "authorize", "revoke"}


@pytest.mark.parametrize("name", HELP)
def test_no_line_of_help_is_wider_than_a_narrow_terminal(name: str) -> None:
    assert [line for line in HELP[name].splitlines() if len(line) > WIDEST] == []
