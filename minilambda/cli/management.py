"""A call of a command that manages functions: a connection, what is asked of it, and one line or one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minilambda.cli.options import Options
from minilambda.cli.requests import Requests
from minilambda.client.modules import Module
from minilambda.client.sync import Client

if TYPE_CHECKING:
    from minilambda.cli.manage import Act


class Management(Requests):
    """One call. ``act`` does it."""

    def __init__(self, options: Options, program: str, act: Act) -> None:
        super().__init__(options, program)
        self.options = options
        self._do = act

    def send_ahead(self, client: Client, modules: Sequence[Module]) -> None:
        """What is large goes first, so that one sees how far it is."""
        self._send_ahead(client, modules)

    def _act(self, client: Client, args: Mapping[str, Any]) -> int:
        version, words = self._do(self, client, args)
        found = {"function": version.function, "version": version.version or None, "alias": version.alias or None}
        self._say(found, words)
        return 0
