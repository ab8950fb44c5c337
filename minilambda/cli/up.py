"""``minilambda up``."""

from __future__ import annotations

import re
import signal
import sys
import time
from collections.abc import Callable, Sequence

from minilambda.cli import options, streams
from minilambda.cli.children import Child, Children
from minilambda.cli.serving import FAILED, serve
from minilambda.cli.worker import cores
from minilambda.client.listings import Cluster
from minilambda.client.sync import Client
from minilambda.errors import MinilambdaError
from minilambda.notation import DEFAULT_ADDRESS

USAGE = """Run a broker and workers on this machine until Ctrl-C.

Usage:
  minilambda up [options]
  minilambda up (-h | --help | --version)

Options:
  -w --workers=<n>   Worker processes. Default: 1.
  -n --slots=<n>     Guests at a time in each worker.
                     Default: the cores, shared out between the workers.
  -b --bind=<addr>   Where the broker listens; port 0 takes any free one.
                     Default: 127.0.0.1:8080.
  --cache-dir=<dir>  Where compiled modules are kept. Default: the user's cache.
  --state-dir=<dir>  What outlives the broker is kept here. Default: nothing outlives it.
  --grace=<time>     Running jobs have so long to finish when the workers stop. Default: 10s.
  --insecure         Listen on an address that other machines reach, although nobody has to show
                     a key.
  -v --verbose       Say more.
  -h --help          Show this.
  --version          Show the version.

On a terminal a line shows the address, the workers, busy slots, waiting jobs, jobs done and
jobs a second. A worker that dies is started again, and so is the broker, at the same address:
workers and clients come back to it by themselves. The first Ctrl-C stops all in order, the
second at once.
Every option can be set by a variable: --workers by MINILAMBDA_WORKERS, and so on. So can those
of `minilambda-broker --help` and `minilambda-worker --help` that are not above, but for keys;
MINILAMBDA_METRICS is for the broker. With keys, start the two by themselves, as in the last
examples; `minilambda authorize` lets in who may talk to the broker.
Exit codes: 0 ended as asked, 1 could not start or go on, 2 wrong usage.

Examples:
  minilambda up
  minilambda up --workers 2 --slots 1 --bind 127.0.0.1:0
  MINILAMBDA_MAX_MEMORY=1G minilambda up
  minilambda-broker --key broker
  minilambda-worker --key host7 --server-key broker
"""

PROGRAM = "minilambda up"
_START = 20.0  # the broker must be up after so long, seconds
_REFRESH = 0.5  # how often the live line is drawn, seconds
_AGAIN = 1.0  # one that died is started again after so long, seconds
_AGAIN_MAX = 30.0  # a broker that dies again and again is started again after so long at most, seconds
_STEADY = 60.0  # a broker that lived so long did not die of its start, seconds
_BROKER = "broker"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = options.parse(PROGRAM, USAGE, ["up", *words])

    found = options.Options(args)
    return serve(PROGRAM, lambda: Up(found).run, found)


class Up:
    """A broker and its workers."""

    def __init__(self, found: options.Options) -> None:
        self._bind = found.address("--bind", DEFAULT_ADDRESS)
        self._workers = found.count("--workers", 1, 1, 256)
        self._slots = found.count("--slots", max(1, cores() // self._workers), 1, 4096)
        self._grace = found.duration("--grace", 10.0, zero=True)
        self._more = ["--verbose"] if found.flag("--verbose") else []
        self._insecure = ["--insecure"] if found.flag("--insecure") else []
        cache = found.path("--cache-dir", "")
        self._cache = ["--cache-dir", cache] if cache else []
        state = found.path("--state-dir", "")
        self._state = ["--state-dir", state] if state else ["--ephemeral"]
        self._wrong = False  # a worker did not understand its options, and would not the next time
        self._stops = 0  # signals that asked to stop
        self._again: list[tuple[float, str]] = []  # those to start again: when, seconds, and name
        self._broker_began = 0.0  # when the broker was started last, seconds
        self._broker_pause = _AGAIN  # how long to wait before it is started once more, seconds
        self._screen = Screen()
        self._children = Children(self._screen.say)
        self._endpoint = ""  # where the broker can be reached from here

    def run(self) -> int:
        """Run until a signal; returns the exit code."""
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._signalled)
        try:
            if not self._start_broker():
                return 0 if self._stops else FAILED
            for number in range(1, self._workers + 1):
                self._start_worker(f"worker-{number}")
            with Client(self._endpoint, connect_timeout=_REFRESH) as client, self._screen:
                self._watch(client)
            self._stop()
            return options.USAGE_EXIT if self._wrong else 0
        finally:
            self._children.kill()

    def _start_broker(self) -> bool:
        """Start the broker and wait until it listens; False when it does not come up, or a signal came first."""
        more = [*self._state, *self._insecure, *self._more]
        self._broker_began = time.monotonic()
        broker = self._children.start(_BROKER, "broker", ["--bind", self._bind, *more])
        until = self._broker_began + _START
        while time.monotonic() < until and not self._stops:
            for line in self._children.listen(0.1):
                found = re.search(r"listening on (\S+)", line)
                if found is not None:
                    self._bind, self._endpoint = found[1], reachable(found[1])
                    return True
            if broker.process.poll() is not None:
                self._children.listen(0)  # its last words
                return False
        return False

    def _start_worker(self, name: str) -> None:
        place = ["--orchestrator", self._endpoint, "--name", name, "--slots", str(self._slots)]
        grace = ["--grace", f"{self._grace}s"]
        self._children.start(name, "worker", [*place, *grace, *self._cache, *self._more])

    def _watch(self, client: Client) -> None:
        """Look after the children until a signal."""
        shown = 0.0
        while not self._stops:
            self._children.listen(0.1)
            now = time.monotonic()
            for child in self._children.reap():
                if child.name != _BROKER and child.process.returncode == options.USAGE_EXIT:
                    self._wrong = True
                    return
                pause = self._pause(child, now)
                how = f"ended with {child.process.returncode} and is started again in {pause:g} s"
                self._screen.say(f"{PROGRAM}: {'the broker' if child.name == _BROKER else child.name} {how}")
                self._again.append((now + pause, child.name))
            for due in [each for each in self._again if each[0] <= now]:
                self._again.remove(due)
                self._start_broker() if due[1] == _BROKER else self._start_worker(due[1])
            if self._screen.live and now >= shown + _REFRESH:
                shown = now
                self._draw(client, now)

    def _pause(self, child: Child, now: float) -> float:
        """How long to wait before one that has ended is started again, seconds."""
        if child.name != _BROKER:
            return _AGAIN
        pause = _AGAIN if now - self._broker_began >= _STEADY else self._broker_pause
        self._broker_pause = min(2 * pause, _AGAIN_MAX)
        return pause

    def _draw(self, client: Client, now: float) -> None:
        try:
            self._screen.draw(self._endpoint, client.cluster(patience=_REFRESH), now)
        except MinilambdaError as error:
            self._screen.trouble(str(error))

    def _stop(self) -> None:
        seen = self._stops
        self._screen.say(f"{PROGRAM}: stopping; Ctrl-C again to stop at once")

        def hurry() -> bool:
            return self._stops > max(seen, 1)

        workers = [child for child in self._children.all if child.name != _BROKER]
        self._children.stop(workers, self._grace + 5.0, hurry)
        self._children.stop([child for child in self._children.all if child.name == _BROKER], 5.0, hurry)

    def _signalled(self, *_: object) -> None:
        self._stops += 1


class Screen:
    """The live line on a terminal, plain lines anywhere else."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self._show: Callable[[str], None] = lambda text: None
        self._print: Callable[[str], None] = streams.say
        self._stop: Callable[[], None] = lambda: None
        self._last: tuple[float, int] | None = None  # when, seconds, and how many jobs were done

    def __enter__(self) -> Screen:
        if self.live:
            from rich.console import Console  # noqa: PLC0415 - slow to import
            from rich.live import Live  # noqa: PLC0415
            from rich.text import Text  # noqa: PLC0415

            console = Console()
            live = Live(console=console, auto_refresh=False, transient=True)
            live.start()
            self._show = lambda text: live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
            self._print = lambda text: console.print(Text(text))
            self._stop = live.stop
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._print = streams.say

    def say(self, text: str) -> None:
        """A line that stays."""
        self._print(text)

    def trouble(self, text: str) -> None:
        """A live line that says why there is nothing to show."""
        self._show(text)

    def draw(self, endpoint: str, cluster: Cluster, now: float) -> None:
        """The live line."""
        done = sum(worker.done for worker in cluster.workers)
        self._show(live_line(endpoint, cluster, self._rate(now, done)))
        self._last = (now, done)

    def _rate(self, now: float, done: int) -> float:
        if self._last is None or done < self._last[1]:
            return 0.0
        return (done - self._last[1]) / max(now - self._last[0], 1e-3)


def live_line(endpoint: str, cluster: Cluster, rate: float) -> str:
    """What the cluster does, in a line; ``rate`` is in jobs a second."""
    slots = sum(worker.slots for worker in cluster.workers)
    held = sum(worker.queue for worker in cluster.workers)
    busy = sum(min(worker.queue, worker.slots) for worker in cluster.workers)
    done = sum(worker.done for worker in cluster.workers)
    number = len(cluster.workers)
    return (
        f"{endpoint}  {number} worker{'' if number == 1 else 's'}  {busy}/{slots} slots busy  "
        f"{cluster.queued + held - busy} waiting  {done} done  {rate:.0f} jobs/s"
    )


def reachable(endpoint: str) -> str:
    """The endpoint by which this machine reaches what it has bound."""
    return re.sub(
        r"^tcp://(0\.0\.0\.0|\*|\[::\]):", lambda m: f"tcp://{'[::1]' if '[' in m[1] else '127.0.0.1'}:", endpoint
    )


if __name__ == "__main__":
    sys.exit(main())
