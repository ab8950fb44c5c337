"""One system under test and the program that calls it, in a process of its own. Started by ``peers.py``.

Each is set up with two workers the way its own documentation shows, on this machine, without keys or encryption. A
driver yields two functions: run one job and return its output, run so many at a time and return all outputs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import json
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lines import serve

One = Callable[[], bytes]
Many = Callable[[int], list[bytes]]
Driver = Iterator[tuple[One, Many]]
WORKERS = 2
OUTPUT = b"Hello, WebAssembly\n"


@contextlib.contextmanager
def minilambda(options: tuple[str, ...], module: str, folder: Path) -> Driver:
    from local_cluster import LocalCluster  # noqa: PLC0415 - each driver runs where the others are not installed

    from minilambda import Client  # noqa: PLC0415

    with (
        LocalCluster(folder, WORKERS, broker_options=options) as cluster,
        Client(f"tcp://{cluster.address}") as client,
    ):
        cluster.start_worker(client, *options)
        yield (
            lambda: client.run(module).stdout,
            lambda count: [result.stdout for result in client.map(module, [()] * count)],
        )


@contextlib.contextmanager
def pool(work: Callable[[str], bytes], module: str, folder: Path) -> Driver:
    from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415

    with ProcessPoolExecutor(WORKERS) as executor:
        yield (
            lambda: executor.submit(work, module).result(),
            lambda count: list(executor.map(work, [module] * count)),
        )


@contextlib.contextmanager
def with_ray(work: Callable[[str], bytes], module: str, folder: Path) -> Driver:
    import ray  # noqa: PLC0415

    ray.init(num_cpus=WORKERS, include_dashboard=False, _temp_dir=str(folder), log_to_driver=False)
    try:
        remote = ray.remote(work)
        yield (
            lambda: ray.get(remote.remote(module)),
            lambda count: ray.get([remote.remote(module) for _ in range(count)]),
        )
    finally:
        ray.shutdown()


@contextlib.contextmanager
def with_dask(work: Callable[[str], bytes], module: str, folder: Path) -> Driver:
    from dask.distributed import Client, LocalCluster  # noqa: PLC0415

    options = {"dashboard_address": None, "local_directory": str(folder)}
    with LocalCluster(n_workers=WORKERS, threads_per_worker=1, **options) as cluster, Client(cluster) as client:
        yield (
            lambda: client.submit(work, module, pure=False).result(),
            lambda count: client.gather(client.map(work, [module] * count, pure=False)),
        )


@contextlib.contextmanager
def with_parsl(work: Callable[[str], bytes], module: str, folder: Path) -> Driver:
    import parsl  # noqa: PLC0415
    from parsl.config import Config  # noqa: PLC0415
    from parsl.executors import HighThroughputExecutor  # noqa: PLC0415
    from parsl.providers import LocalProvider  # noqa: PLC0415

    executor = HighThroughputExecutor(
        label="htex_local",
        address="127.0.0.1",
        max_workers_per_node=WORKERS,
        encrypted=False,
        provider=LocalProvider(init_blocks=1, max_blocks=1),
    )
    with parsl.load(Config(executors=[executor], run_dir=str(folder))):
        app = parsl.python_app(work)
        yield (
            lambda: app(module).result(),
            lambda count: [future.result() for future in [app(module) for _ in range(count)]],
        )


@contextlib.contextmanager
def with_ipyparallel(work: Callable[[str], bytes], module: str, folder: Path) -> Driver:
    import ipyparallel  # noqa: PLC0415

    with ipyparallel.Cluster(n=WORKERS, profile_dir=str(folder)) as client:
        view = client.load_balanced_view()
        yield (
            lambda: view.apply_sync(work, module),
            lambda count: list(view.map_async(work, [module] * count, chunksize=1)),
        )


def drivers() -> dict[str, Callable[[str, Path], Any]]:
    """What runs each system, by its name in ``peers.py``."""
    from peer_work import documented, tuned  # noqa: PLC0415 - a driver of ours needs no wasmtime

    peers = {"pool": pool, "ray": with_ray, "parsl": with_parsl, "ipyparallel": with_ipyparallel, "dask": with_dask}
    made: dict[str, Callable[[str, Path], Any]] = {
        "minilambda": functools.partial(minilambda, ()),
        "minilambda-asleep": functools.partial(minilambda, ("--awake=0",)),
        "pool-awake": functools.partial(pool, documented),
    }
    for name, peer in peers.items():
        made[name] = functools.partial(peer, documented)
        made[f"{name}-tuned"] = functools.partial(peer, tuned)
    return made


@contextlib.contextmanager
def processors_awake() -> Iterator[None]:
    """No processor of this machine sleeps meanwhile."""
    with Path("/dev/cpu_dma_latency").open("wb", buffering=0) as device:
        device.write(struct.pack("=i", 0))  # the time that one may take to wake up, microseconds
        yield


def latency(one: One, count: int) -> list[float]:
    """``count`` jobs one after another, microseconds each."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        output = one()
        times.append((time.perf_counter() - begun) * 1e6)
        _check(output)
    return times


def throughput(many: Many, count: int) -> float:
    """Seconds for ``count`` jobs that are all handed over at once."""
    begun = time.perf_counter()
    outputs = many(count)
    took = time.perf_counter() - begun
    if len(outputs) != count:
        raise ValueError(f"{len(outputs)} of {count} outputs came back")
    for output in outputs:
        _check(output)
    return took


def _check(output: bytes) -> None:
    if output != OUTPUT:
        raise ValueError(f"a job gave {output!r}")


def main() -> None:
    name, package, module, folder = sys.argv[1:]
    try:
        driver = drivers()[name](module, Path(folder))
        # In its own turns only: others that stay up are measured between them.
        held: Callable[[Any], Any] = processors_awake() if name == "pool-awake" else lambda act: act
        with driver as (one, many):
            held(latency)(one, 30)
            throughput(many, 200)
            serve(
                {
                    "version": importlib.metadata.version(package) if package else "",
                    "wasmtime": importlib.metadata.version("wasmtime"),
                },
                {
                    "latency": held(lambda count: latency(one, count)),
                    "throughput": held(lambda count: throughput(many, count)),
                },
            )
    except Exception as error:
        print(json.dumps({"failed": f"{type(error).__name__}: {error}"[:300]}), flush=True)
        raise


if __name__ == "__main__":
    main()
