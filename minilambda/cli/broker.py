"""``minilambda-broker``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from minilambda.cli import keyring, options, streams
from minilambda.cli.serving import limit_memory, serve
from minilambda.notation import DEFAULT_ADDRESS, metrics_address
from minilambda.settings import BrokerSettings, QuotaSettings

USAGE = """Take jobs from clients and hand them to workers.

Usage:
  minilambda-broker [options]
  minilambda-broker (-h | --help | --version)

Options:
  -b --bind=<addr>       Where to listen: HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT or ipc://PATH;
                         port 0 takes any free one. Default: 127.0.0.1:8080.
  -k --key=<key>         The broker's own key, by name or path (see `minilambda keygen --help`):
                         from now on only keys that `minilambda authorize` has let in may talk
                         to it.
  --keys=<dir>           Where the list of those keys is, and the broker's own. Default: the
                         list is in the state directory, the key where keygen has put it.
  --insecure             Listen on an address that other machines reach, although nobody has to
                         show a key: whoever reaches it can run code on the workers.
  --state-dir=<dir>      What outlives the broker: accepted detached jobs, their modules and
                         results. Default: minilambda/broker in the user's state directory.
  --ephemeral            Keep nothing on the disk: with the broker its detached jobs are gone.
  --max-queued=<n>       Jobs in the queue; more are refused as busy. Default: 100000.
  --max-module=<size>    Largest module. Default: 256M.
  --max-stdin=<size>     Largest standard input of a job. Default: 16M.
  --store=<size>         Modules kept; the least recently used goes first. Default: 2G.
  --memory-limit=<size>  Memory of the broker, at most, whoever asks for it: it ends where it
                         needs more, to be started again by what watches over it.
                         Default: as much as there is.
  --quota-queued=<n>     Jobs of one client that may wait; more are refused to it.
                         Default: any number.
  --quota-running=<n>    Jobs of one client that may be at workers; more wait.
                         Default: any number.
  --quota-stored=<size>  Modules of one client, all together. Default: as much as there is.
  --quota-compile=<time> Time of compiling that one client may use in an hour. Default: any.
  --result-ttl=<time>    How long a result can be fetched after the job's end. Default: 300s.
  --heartbeat=<time>     A worker reports at least so often. Default: 1s.
  --liveness=<time>      A worker that is silent for so long is lost, its jobs run elsewhere.
                         Default: 5s.
  --awake=<time>         Keep this machine's processors from sleeping for so long after each
                         message of a job: where waking up is slow, a short job takes a quarter
                         less. 0: never. Needs /dev/cpu_dma_latency.
                         Default: 5ms where that can be opened, otherwise 0.
  --metrics=<addr>       Serve numbers for Prometheus over HTTP: PORT, HOST:PORT or [IPV6]:PORT;
                         only this machine gets them unless a host is named. Needs
                         minilambda[metrics].
  --otlp=<url>           Send spans of the jobs whose clients give a traceparent to an OTLP
                         receiver, such as http://127.0.0.1:4318. Needs minilambda[traces].
  --log-format=<form>    The log on stderr: text, lines for people; json, an object a line.
                         Default: text.
  -v --verbose           Say more on stderr: also each job that has ended.
  -h --help              Show this.
  --version              Show the version.

Sizes are bytes or numbers with K, M or G (of 1024); times are seconds or numbers with ms, s, m
or h.
Every option can be set by a variable: --result-ttl by MINILAMBDA_RESULT_TTL, and so on.

The first line on stdout is `minilambda-broker listening on ADDR`. Ctrl-C or SIGTERM ends the
broker.
Exit codes: 0 ended as asked, 1 could not start or go on, 2 wrong usage.

Examples:
  minilambda-broker
  minilambda-broker --bind 127.0.0.1:0
  minilambda-broker --bind ipc:///run/user/1000/minilambda.sock
  minilambda-broker --bind 0.0.0.0:8080 --key broker
"""

PROGRAM = "minilambda-broker"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = options.parse(PROGRAM, USAGE, sys.argv[1:] if argv is None else argv)
    found = options.Options(args)

    def prepare() -> Callable[[], int]:
        settings, endpoint = broker_settings(found), found.address("--bind", DEFAULT_ADDRESS)
        insecure, state = found.flag("--insecure"), state_dir(found)
        keys = keyring.broker_keys(found)
        memory = found.size("--memory-limit", 0)
        metrics, otlp = found.get("--metrics", metrics_address, None), found.text("--otlp", "")
        from minilambda.broker.run import run_broker  # noqa: PLC0415 - only once the options are right
        from minilambda.broker.telemetry import Wanted  # noqa: PLC0415

        wanted = Wanted(metrics, _say_metrics, otlp)

        def run() -> int:
            limit_memory(memory)
            return run_broker(settings, endpoint, _say_bound, insecure, state, keys, wanted)

        return run

    return serve(PROGRAM, prepare, found)


def broker_settings(found: options.Options) -> BrokerSettings:
    """The settings that the options ask for. Raises ``BadOption`` and ``BadSetting``."""
    base = BrokerSettings()
    max_stdin = found.size("--max-stdin", base.max_stdin_bytes)
    return BrokerSettings(
        heartbeat=found.duration("--heartbeat", base.heartbeat),
        liveness=found.duration("--liveness", base.liveness),
        max_queued=found.count("--max-queued", base.max_queued, 1),
        max_module_bytes=found.size("--max-module", base.max_module_bytes),
        max_stdin_bytes=max_stdin,
        max_request_bytes=max(base.max_request_bytes, 2 * max_stdin),
        store_bytes=found.size("--store", base.store_bytes),
        result_ttl=found.duration("--result-ttl", base.result_ttl),
        awake=found.duration("--awake", 0.0, zero=True) if found.given("--awake") else None,
        quotas=QuotaSettings(
            queued=found.count("--quota-queued", 0, 1),
            running=found.count("--quota-running", 0, 1),
            stored_bytes=found.size("--quota-stored", 0),
            compile_seconds=found.duration("--quota-compile", 0.0),
        ),
    )


def state_dir(found: options.Options) -> Path | None:
    """Where the broker keeps its state; None for nowhere. Raises ``BadOption`` when both are asked for."""
    if found.flag("--ephemeral"):
        if found.given("--state-dir"):
            raise options.BadOption("--ephemeral and --state-dir exclude each other.")
        return None
    return keyring.state_folder(found)


def _say_metrics(url: str) -> None:
    streams.say(f"{PROGRAM} serves metrics at {url}")


def _say_bound(endpoint: str) -> None:
    streams.say(f"{PROGRAM} listening on {endpoint}")


if __name__ == "__main__":
    sys.exit(main())
