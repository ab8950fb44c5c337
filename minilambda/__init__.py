"""Run untrusted WebAssembly on a pool of machines, with millisecond latency.

``Client`` is where to begin; every failure is a class in ``minilambda.errors``. Names are imported when they
are first used, so that ``import minilambda`` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minilambda._version import __version__

if TYPE_CHECKING:
    from minilambda.client.aio import AsyncClient
    from minilambda.client.async_job import AsyncJob
    from minilambda.client.executor import Executor
    from minilambda.client.functions import CallOptions, FunctionInfo, FunctionVersion
    from minilambda.client.job import Job
    from minilambda.client.listings import (
        ClientInfo,
        Cluster,
        JobInfo,
        Latency,
        ModuleInfo,
        Moment,
        Overview,
        Status,
        WorkerInfo,
    )
    from minilambda.client.live import Chunk
    from minilambda.client.modules import Module, ModuleLike
    from minilambda.client.results import RunResult
    from minilambda.client.spec import RunOptions
    from minilambda.client.sync import Client
    from minilambda.errors import JobError, MinilambdaError, RequestError
    from minilambda.messages import ErrorInfo, Usage

_HOMES = {
    "AsyncClient": "minilambda.client.aio",
    "AsyncJob": "minilambda.client.async_job",
    "CallOptions": "minilambda.client.functions",
    "Chunk": "minilambda.client.live",
    "Client": "minilambda.client.sync",
    "ClientInfo": "minilambda.client.listings",
    "Cluster": "minilambda.client.listings",
    "ErrorInfo": "minilambda.messages",
    "Executor": "minilambda.client.executor",
    "FunctionInfo": "minilambda.client.functions",
    "FunctionVersion": "minilambda.client.functions",
    "Job": "minilambda.client.job",
    "JobError": "minilambda.errors",
    "JobInfo": "minilambda.client.listings",
    "Latency": "minilambda.client.listings",
    "MinilambdaError": "minilambda.errors",
    "Module": "minilambda.client.modules",
    "ModuleInfo": "minilambda.client.listings",
    "ModuleLike": "minilambda.client.modules",
    "Moment": "minilambda.client.listings",
    "Overview": "minilambda.client.listings",
    "RequestError": "minilambda.errors",
    "RunOptions": "minilambda.client.spec",
    "RunResult": "minilambda.client.results",
    "Status": "minilambda.client.listings",
    "Usage": "minilambda.messages",
    "WorkerInfo": "minilambda.client.listings",
}

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "CallOptions",
    "Chunk",
    "Client",
    "ClientInfo",
    "Cluster",
    "ErrorInfo",
    "Executor",
    "FunctionInfo",
    "FunctionVersion",
    "Job",
    "JobError",
    "JobInfo",
    "Latency",
    "MinilambdaError",
    "Module",
    "ModuleInfo",
    "ModuleLike",
    "Moment",
    "Overview",
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
