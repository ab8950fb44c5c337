"""The fixtures that minilambda brings to pytest."""

from __future__ import annotations

from collections.abc import Iterator
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
    cache = getattr(request.config, "cache", None)
    if cache is not None:
        options.setdefault("cache_dir", cache.mkdir("minilambda"))
    with cluster(**options) as running:
        yield running
