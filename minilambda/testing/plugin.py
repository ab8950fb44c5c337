"""The fixtures that minilambda brings to pytest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from minilambda.testing import Cluster


@pytest.fixture(scope="session")
def minilambda_options() -> dict[str, Any]:
    """The arguments of ``minilambda.testing.cluster`` for ``minilambda_cluster``. Override it to give others."""
    return {}


@pytest.fixture(scope="session")
def minilambda_cluster(request: pytest.FixtureRequest, minilambda_options: dict[str, Any]) -> Iterator[Cluster]:
    """A broker and a worker for the whole run: ``.address``, ``.client``, ``.connect()`` and ``.log()``.

    Modules that it compiled are kept in pytest's cache, so that the next run need not compile them.
    """
    from minilambda.testing import cluster  # noqa: PLC0415 - only where a test asks for it

    options = dict(minilambda_options)
    folder = _cache_folder(request.config)
    if folder is not None:
        options.setdefault("cache_dir", folder)
    with cluster(**options) as running:
        yield running


def _cache_folder(config: pytest.Config) -> Path | None:
    """A folder in pytest's cache that nobody else can write to, or a worker would not trust it; None: there is none."""
    cache = getattr(config, "cache", None)
    if cache is None:
        return None
    try:
        folder: Path = cache.mkdir("minilambda")
        folder.chmod(0o700)  # whatever the umask says
    except OSError:  # read-only, or another user's
        return None
    return folder if folder.stat().st_uid == os.geteuid() else None
