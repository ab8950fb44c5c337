"""The options for files: what goes along with a job, and where what it leaves is to be written."""

from __future__ import annotations

import os
from collections.abc import Sequence

from minilambda.cli.collecting import Collected
from minilambda.cli.options import BadOption, Options
from minilambda.client.files import Files
from minilambda.client.modules import Module
from minilambda.client.spec import RunOptions
from minilambda.client.uploads import Placed


def run_options(options: Options) -> RunOptions:
    """What the options say of files, which are read. Raises ``BadOption``, and as ``Files.ready``."""
    found: RunOptions = {}
    if files := options.places("--file"):
        found["files"] = files
    if dirs := options.places("--dir", folders=True):
        found["dirs"] = dirs
    if options.given("--scratch"):
        found["scratch"] = options.size("--scratch", 0)
    if collect := options.places("--collect", folders=True):
        found["collect"] = list(collect)
    return Files().ready(found)


def sources_of(options: RunOptions) -> list[Module]:
    """The handles of the files in options that are ready."""
    parts = [part for part in (options.get("files"), options.get("dirs")) if isinstance(part, Placed)]
    return [each for part in parts for each in part.sources.values() if isinstance(each, Module)]


def targets(options: Options) -> dict[str, str]:
    """Path in the guest to the place on the host where it is to be written. Raises ``BadOption`` for no such place."""
    found = options.places("--collect", folders=True)
    for host in found.values():
        folder = os.path.dirname(os.path.realpath(host))
        if not os.path.isdir(folder):
            raise BadOption(f"--collect: there is no folder {folder} to write {host} to.")
    return found


def collected_object(collected: Sequence[Collected]) -> list[dict[str, object]]:
    """What ``--json`` tells of the files that came back."""
    return [
        {"path": each.path, "host": each.host, "files": each.files, "bytes": each.bytes, "error": each.error or None}
        for each in collected
    ]
