"""``minilambda-worker``."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from minilambda.cli import keyring, options, streams
from minilambda.cli.serving import serve
from minilambda.notation import DEFAULT_ADDRESS, metrics_address
from minilambda.settings import COMPILERS, WALLS, Limits, WorkerSettings

USAGE = """Run the jobs that a broker hands out, each in a process of its own kind.

Usage:
  minilambda-worker [options]
  minilambda-worker (-h | --help | --version)

Options:
  -o --orchestrator=<addr>  The broker: HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT or ipc://PATH.
                            Default: 127.0.0.1:8080.
  -k --key=<key>            This worker's own key, by name or path (see
                            `minilambda keygen --help`).
  --server-key=<key>        The broker's public key, or the name or path of its file; needed
                            with --key.
  -n --slots=<n>            Guests at a time. Default: the cores that this process may use.
  --name=<name>             What people call this worker.
                            Default: the host's name and the process id.
  --cache-dir=<dir>         Where compiled modules are kept; workers may share it.
                            Default: the user's cache.
  --cache-size=<size>       Compiled modules kept on disk, and as much again of jobs' files.
                            Default: 8G.
  --timeout=<time>          Time that a guest has when its job asks for none. Default: 30s.
  --memory=<size>           Memory that a guest has when its job asks for none. Default: 256M.
  --output-limit=<size>     Output that a guest may write when its job asks for none.
                            Default: 4M.
  --max-timeout=<time>      The most time that a job may ask for. Default: 1h.
  --max-memory=<size>       The most memory that a job may ask for. Default: 4G.
  --max-output=<size>       The most output that a job may ask for. Default: 64M.
  --scratch-limit=<size>    The largest writable /tmp that a job may ask for; 0: none.
                            Default: 256M.
  --compiler=<name>         tiered, cranelift or winch. Winch compiles quickly, Cranelift makes
                            faster code. Tiered: Winch first, so that a new module runs at once;
                            Cranelift once the module has run again, or the worker is idle.
                            Default: tiered.
  --compile-timeout=<time>  Time that compiling one module may take. Default: 2m.
  --compile-memory=<size>   Memory that compiling one module may take. Default: 4G.
  --walls=<what>            Where a wall around guests can't be raised: best, say so and serve;
                            required, refuse to. Default: best.
  --fresh-runner            Each job gets a process of its own, not only each client.
  --awake=<time>            Keep this machine's processors from sleeping for so long after each
                            step of a job: where waking up is slow, a short job takes a quarter
                            less. 0: never. Needs /dev/cpu_dma_latency.
                            Default: 5ms where that can be opened, otherwise 0.
  --grace=<time>            Running jobs have so long to finish when the worker stops.
                            Default: 10s.
  --metrics=<addr>          Serve numbers for Prometheus over HTTP: PORT, HOST:PORT or
                            [IPV6]:PORT; only this machine gets them unless a host is named.
                            Needs minilambda[metrics].
  --log-format=<form>       The log on stderr: text, lines for people; json, an object a line.
                            Default: text.
  -v --verbose              Say more on stderr: also each job that has ended.
  -h --help                 Show this.
  --version                 Show the version.

Sizes are bytes or numbers with K, M or G (of 1024); times are seconds or numbers with ms, s, m
or h.
Every option can be set by a variable: --orchestrator by MINILAMBDA_ORCHESTRATOR, and so on.

The worker registers by itself and comes back when the broker does. Ctrl-C or SIGTERM drains it:
it takes nothing new, finishes what runs within the grace, hands back the rest. A second signal
ends it at once.
Exit codes: 0 ended as asked, 1 could not start or go on, 2 wrong usage.

Examples:
  minilambda-worker --orchestrator 192.0.2.7:8080
  minilambda-worker --slots 2 --max-memory 1G --cache-dir /var/cache/minilambda
"""

PROGRAM = "minilambda-worker"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = options.parse(PROGRAM, USAGE, sys.argv[1:] if argv is None else argv)
    found = options.Options(args)

    def prepare() -> Callable[[], int]:
        settings, endpoint = worker_settings(found), found.peer("--orchestrator", DEFAULT_ADDRESS)
        name = found.label("--name", "") or f"{platform.node()[:100] or 'worker'}-{os.getpid()}"
        keys = keyring.peer_keys(found)
        metrics = found.get("--metrics", metrics_address, None)
        cache_dir = Path(found.path("--cache-dir", "") or _user_cache())
        from minilambda.worker.entry import Entry  # noqa: PLC0415 - only once the options are right
        from minilambda.worker.server import run_worker  # noqa: PLC0415
        from minilambda.worker.telemetry import Wanted  # noqa: PLC0415

        if sys.platform == "linux":
            from minilambda.worker.walls import be_untraceable  # noqa: PLC0415

            be_untraceable()  # an escaped guest may run as the same user, and this process has keys and other jobs

        slots = "1 slot" if settings.slots == 1 else f"{settings.slots} slots"

        def say_registered(_: str) -> None:
            streams.say(f"{PROGRAM} {name} registered with {endpoint}, {slots}")

        def say_unanswered() -> None:
            streams.complain(f"{PROGRAM}: no broker answers at {endpoint}, trying on")

        def say_refused(reason: str) -> None:
            from minilambda.cli.render import printable  # noqa: PLC0415 - seldom needed

            streams.complain(f"{PROGRAM}: {printable(reason)} (Trying on.)")

        def say_metrics(url: str) -> None:
            streams.say(f"{PROGRAM} serves metrics at {url}")

        entry, wanted = Entry(endpoint, keys, say_refused), Wanted(metrics, say_metrics)
        return lambda: run_worker(settings, endpoint, name, cache_dir, say_registered, say_unanswered, entry, wanted)

    return serve(PROGRAM, prepare, found)


def worker_settings(found: options.Options) -> WorkerSettings:
    """The settings that the options ask for. Raises ``BadOption`` and ``BadSetting``.

    A ceiling below the built-in default of a job lowers that default too.
    """
    base = WorkerSettings()
    ceiling = Limits(
        timeout=found.duration("--max-timeout", base.ceiling.timeout),
        memory_bytes=found.size("--max-memory", base.ceiling.memory_bytes),
        output_bytes=found.size("--max-output", base.ceiling.output_bytes),
    )
    default = Limits(
        timeout=found.duration("--timeout", min(base.default.timeout, ceiling.timeout)),
        memory_bytes=found.size("--memory", min(base.default.memory_bytes, ceiling.memory_bytes)),
        output_bytes=found.size("--output-limit", min(base.default.output_bytes, ceiling.output_bytes)),
    )
    return WorkerSettings(
        slots=found.count("--slots", cores(), 1, 4096),
        default=default,
        ceiling=ceiling,
        compiler=found.choice("--compiler", tuple(COMPILERS), base.compiler),
        compile_timeout=found.duration("--compile-timeout", base.compile_timeout),
        compile_memory_bytes=found.size("--compile-memory", base.compile_memory_bytes),
        grace=found.duration("--grace", base.grace, zero=True),
        cache_bytes=found.size("--cache-size", base.cache_bytes),
        scratch_bytes=found.size("--scratch-limit", base.scratch_bytes, zero=True),
        walls=found.choice("--walls", WALLS, base.walls),
        fresh_runner=found.flag("--fresh-runner"),
        awake=found.duration("--awake", 0.0, zero=True) if found.given("--awake") else None,
    )


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def _user_cache() -> str:
    import platformdirs  # noqa: PLC0415 - not needed where the directory is given

    return platformdirs.user_cache_dir("minilambda", appauthor=False)


if __name__ == "__main__":
    sys.exit(main())
