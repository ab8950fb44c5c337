"""Run untrusted WebAssembly on a pool of machines, with millisecond latency.

``Client`` is where to begin; every failure is a class in ``minilambda.errors``. Names are imported when they
are first used, so that ``import minilambda`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minilambda._version import __version__

if TYPE_CHECKING:
    from minilambda.client.job import Job
    from minilambda.client.listings import Cluster, JobInfo, ModuleInfo, Status, WorkerInfo
    from minilambda.client.modules import Module, ModuleLike
    from minilambda.client.results import RunResult
    from minilambda.client.spec import RunOptions
    from minilambda.client.sync import Client
    from minilambda.errors import JobError, MinilambdaError, RequestError
    from minilambda.messages import ErrorInfo, Usage

_HOMES = {
    "Client": "minilambda.client.sync",
    "Cluster": "minilambda.client.listings",
    "ErrorInfo": "minilambda.messages",
    "Job": "minilambda.client.job",
    "JobError": "minilambda.errors",
    "JobInfo": "minilambda.client.listings",
    "MinilambdaError": "minilambda.errors",
    "Module": "minilambda.client.modules",
    "ModuleInfo": "minilambda.client.listings",
    "ModuleLike": "minilambda.client.modules",
    "RequestError": "minilambda.errors",
    "RunOptions": "minilambda.client.spec",
    "RunResult": "minilambda.client.results",
    "Status": "minilambda.client.listings",
    "Usage": "minilambda.messages",
    "WorkerInfo": "minilambda.client.listings",
}

__all__ = [
    "Client",
    "Cluster",
    "ErrorInfo",
    "Job",
    "JobError",
    "JobInfo",
    "MinilambdaError",
    "Module",
    "ModuleInfo",
    "ModuleLike",
    "RequestError",
    "RunOptions",
    "RunResult",
    "Status",
    "Usage",
    "WorkerInfo",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'minilambda' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - not needed before

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
