"""`minilambda top` against real brokers, driven by textual's own pilot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static
from textual.widgets._footer import FooterKey

from minilambda import Client
from minilambda.broker import authorized
from minilambda.broker.access import BrokerKeys
from minilambda.broker.server import Server
from minilambda.cli import top as command
from minilambda.client.aio import AsyncClient
from minilambda.curve import make_pair
from minilambda.errors import Unreachable
from minilambda.extras import MissingExtra
from minilambda.keyfiles import write_pair
from minilambda.settings import BrokerSettings
from minilambda.top.app import Top
from minilambda.top.grid import Grid, Lines
from minilambda.top.job_screen import Help, JobScreen, Question
from minilambda.top.run import connect, look_once, run_top
from tests import wat
from tests.cluster import ROOT, Cluster
from tests.integration.guests import HELLO

EVERY = 0.2
CONVERSE = wat.wasm(wat.CONVERSE)
TRAP = wat.wasm('(module (func (export "_start") unreachable))')

Body = Callable[[Top, "Pilot[None]"], Coroutine[Any, Any, None]]


def driven(client: AsyncClient, body: Body, size: tuple[int, int] = (100, 30), patience: float = 3.0) -> None:
    """Run the dashboard without a terminal, and do something with it."""

    async def main() -> None:
        top = Top(client, EVERY, patience, {})
        async with top.run_test(size=size) as pilot:
            await body(top, pilot)

    asyncio.run(asyncio.wait_for(main(), 40))


async def until(pilot: Pilot[None], condition: Callable[[], Any], what: str) -> Any:
    """Wait until something is seen; fail naming it."""
    end = time.monotonic() + 15
    while not (found := condition()):
        assert time.monotonic() < end, f"not within 15 s: {what}"
        await pilot.pause(0.02)
    return found


def text(top: Top, name: str) -> str:
    return str(top.screen.query_one(f"#{name}", Static).render())


def log(top: Top) -> str:
    return " ".join(top.screen_stack[0].query_one("#log", Lines).text.split())


async def choose(top: Top, pilot: Pilot[None], words: str) -> None:
    """Show the rows with these words."""
    await pilot.press("slash")
    top.query_one("#filter", Input).value = words
    await pilot.press("enter")


def rows(top: Top, name: str = "jobs") -> list[Any]:
    return top.screen_stack[0].query_one(f"#{name}", Grid).rows


def offers(top: Top, key: str) -> bool:
    """Whether the line at the bottom has the key, and not in grey."""
    return any(each.key == key and not each.has_class("-disabled") for each in top.screen.query(FooterKey))


@contextlib.contextmanager
def broker(endpoint: str = "tcp://127.0.0.1:0", keys: BrokerKeys | None = None) -> Iterator[Server]:
    """A broker in a thread, without workers."""
    made = Server(BrokerSettings(), endpoint, keys=keys)
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join()
        made.close()


def test_a_jobs_story_and_output_are_seen_live_and_it_is_cancelled_by_a_key(cluster: Cluster) -> None:
    async def body(top: Top, pilot: Pilot[None]) -> None:
        async with AsyncClient(cluster.address) as other:
            talk = await other.submit(CONVERSE, interactive=True, job_id="top-talk", group="talks")
            await choose(top, pilot, "top-talk")
            await until(pilot, lambda: [row.state for row in rows(top)] == ["running"], "the job runs")
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(top.screen, JobScreen), "the job's screen")
            output = top.screen.query_one("#output", Lines)
            await until(pilot, lambda: output.text == "ready", "what it wrote before")
            await talk.write(b"\x1b[2Jmore\n")
            await until(pilot, lambda: output.text == "ready\nmore", "what it writes now")
            await until(pilot, lambda: "running" in top.screen.query_one("#story", Lines).text, "its story")
            assert "attempt 1 at worker-1" in text(top, "about") and "run" in text(top, "phases")
            assert offers(top, "c")
            await pilot.press("c", "n")
            assert isinstance(top.screen, JobScreen)
            await pilot.press("c")
            assert isinstance(top.screen, Question)
            await pilot.press("y")
            await until(pilot, lambda: "cancelled" in top.screen.query_one("#story", Lines).text, "it is cancelled")
            await until(pilot, lambda: "The job was cancelled" in text(top, "about"), "and says why it ended")
            assert output.text == "ready\nmore"
            await until(pilot, lambda: not offers(top, "c"), "there is nothing to cancel any more")
            await pilot.press("c")
            assert isinstance(top.screen, JobScreen)
            await pilot.press("escape", "c")
            assert len(top.screen_stack) == 1 and not offers(top, "c")
            assert "job top-talk is being cancelled" in log(top)

    driven(connect(cluster.address, None, None), body)


def test_the_key_that_cancels_is_offered_where_the_cursor_is_on_a_job_that_has_not_ended(cluster: Cluster) -> None:
    async def body(top: Top, pilot: Pilot[None]) -> None:
        async with AsyncClient(cluster.address) as other:
            await other.run(HELLO, job_id="top-pair-1")
            talk = await other.submit(CONVERSE, interactive=True, job_id="top-pair-2")
            await choose(top, pilot, "top-pair")
            await until(pilot, lambda: {row.state for row in rows(top)} == {"completed", "running"}, "both are there")
            await pilot.press("home")
            for key, place in (("up", 0), ("down", 1), ("up", 0)):
                await pilot.press(key)
                running = rows(top)[place].state == "running"
                await until(pilot, lambda wanted=running: offers(top, "c") is wanted, "the offer fits the job")
            await pilot.press("2")
            await until(pilot, lambda: not offers(top, "c"), "a worker can't be cancelled")
            await talk.cancel()

    driven(connect(cluster.address, None, None), body)


def test_a_failure_is_told_and_jobs_are_chosen_by_it(cluster: Cluster) -> None:
    async def body(top: Top, pilot: Pilot[None]) -> None:
        async with AsyncClient(cluster.address) as other:
            await until(pilot, lambda: top.watching.latest.jobs is not None, "the first answers")
            for name in ("top-trap-1", "top-trap-2", "top-good"):
                wasm = HELLO if name == "top-good" else TRAP
                await other.run(wasm, job_id=name, check=False)
            await until(pilot, lambda: "job top-trap-2 failed at worker-1: trap. The guest trapped." in log(top), "why")
            await choose(top, pilot, "trap top-")
            await until(pilot, lambda: top.watching.latest.asked == "trap", "the broker chooses")
            await until(pilot, lambda: {row.job for row in rows(top)} == {"top-trap-1", "top-trap-2"}, "those")
            assert "asked for: trap" in text(top, "status")
            await pilot.press("enter")
            await until(pilot, lambda: "unreachable" in text(top, "about"), "the sentence with the trap")
            await pilot.press("escape", "escape")
            await until(pilot, lambda: "top-good" in [row.job for row in rows(top)], "all again")

    driven(connect(cluster.address, None, None), body)


def test_every_column_sorts_by_key_and_by_click_and_every_tab_opens(cluster: Cluster) -> None:
    with cluster.connect() as other:
        other.deploy("top-function", HELLO)
        for number in range(3):
            other.run(HELLO, job_id=f"top-sort-{number}")

    async def body(top: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(rows(top)) >= 3, "the jobs")
        grid = top.query_one("#jobs", Grid)
        ids = [row.job for row in grid.rows]
        await pilot.click("#jobs", offset=(3, 0))
        assert (grid.sort, [row.job for row in grid.rows]) == ("job", sorted(ids))
        await pilot.click("#jobs", offset=(3, 0))
        assert [row.job for row in grid.rows] == sorted(ids, reverse=True)
        seen = set()
        for _ in grid.table.columns:
            grid.order_next(1)
            seen.add(grid.sort)
        assert {"job", "state", "worker", "total", "age"} <= seen
        before = (grid.sort, grid.descending)
        await pilot.press("greater_than_sign", "less_than_sign", "r")
        assert (grid.sort, not grid.descending) == before
        await pilot.press("2")
        await until(pilot, lambda: [row.name for row in rows(top, "workers")] == ["worker-1"], "the worker")
        await pilot.press("tab")
        await until(pilot, lambda: rows(top, "clients"), "the clients")
        await pilot.press("4")
        await until(pilot, lambda: [row.function for row in rows(top, "functions")], "the functions")
        await pilot.press("question_mark")
        assert isinstance(top.screen, Help)
        await pilot.press("escape", "l", "d", "p", "1")
        assert top.current == "jobs" and top.paused and "paused" in text(top, "head")

    driven(connect(cluster.address, None, None), body)


def test_the_cursor_goes_with_its_job_while_others_come(cluster: Cluster) -> None:
    async def body(top: Top, pilot: Pilot[None]) -> None:
        async with AsyncClient(cluster.address) as other:
            for number in range(3):
                await other.run(HELLO, job_id=f"top-held-{number}")
            grid = top.query_one("#jobs", Grid)
            await until(pilot, lambda: [row.job for row in grid.rows[:2]] == ["top-held-2", "top-held-1"], "the jobs")
            await pilot.press("down")
            await other.run(HELLO, job_id="top-held-new")
            await until(pilot, lambda: grid.rows[0].job == "top-held-new", "one more")
            assert (grid.cursor, grid.row.job) == (2, "top-held-1")

    driven(connect(cluster.address, None, None), body)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_all_fits_a_terminal_of(cluster: Cluster, size: tuple[int, int]) -> None:
    async def body(top: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: rows(top, "workers"), "the first answers")
        assert all(len(line) <= size[0] for line in text(top, "head").splitlines())
        assert top.query_one("#jobs", Grid).size.height >= size[1] // 2
        footer = top.query_one("Footer")
        await until(pilot, lambda: footer.children, "the keys")
        await pilot.pause()
        assert footer.region.bottom == size[1] and footer.children[-1].region.right <= size[0]

    driven(connect(cluster.address, None, None), body, size)


def test_no_question_is_asked_twice_in_an_interval_whatever_keys_are_pressed(cluster: Cluster) -> None:
    class Counting(AsyncClient):
        asked: ClassVar[Counter[str]] = Counter()

        async def ask(self, message: Any, patience: float = 30.0) -> Any:
            self.asked[message.TYPE] += 1
            return await super().ask(message, patience)

    async def body(top: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: top.watching.latest.at, "the first answers")
        await pilot.press("2", "3", "4", "3", "tab", "f")
        await until(pilot, lambda: Counting.asked["get_overview"] >= 3, "some rounds")

    driven(Counting(cluster.address), body)
    assert max(Counting.asked.values()) == Counting.asked["get_overview"]


def test_a_broker_that_goes_away_is_told_of_and_one_that_comes_back_is_shown() -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(broker())
        address = first.endpoint

        async def body(top: Top, pilot: Pilot[None]) -> None:
            await until(pilot, lambda: "● live" in text(top, "head"), "it is there")
            await asyncio.to_thread(stack.close)
            await until(pilot, lambda: "● away for" in text(top, "head"), "it is away")
            assert "the broker is away: " in log(top)
            with broker(address):
                await until(pilot, lambda: "● live" in text(top, "head"), "it is back")
                assert "the broker is back after" in log(top) and "the broker was restarted" in log(top)

        driven(connect(address, None, None, 0.5), body, patience=0.5)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a broker with keys, and the folder of the keys; alice has a job in its queue."""
    folder = tmp_path_factory.mktemp("keys") / "keys"
    pairs = {name: make_pair() for name in ("broker", "alice", "watcher", "root")}
    for name, pair in pairs.items():
        write_pair(folder, name, pair)
    listed = folder.parent / "authorized"
    for name, role in (("alice", "client"), ("watcher", "observer"), ("root", "admin")):
        authorized.change(listed, lambda known, name=name, role=role: known.with_key(role, pairs[name].public, name))
    with broker(keys=BrokerKeys(pairs["broker"], listed)) as server:
        with Client(server.endpoint, **keys_of("alice", folder)) as alice:
            alice.submit(HELLO, job_id="hers")
        yield server.endpoint, folder


def keys_of(name: str, folder: Path) -> dict[str, str]:
    return {"key": str(folder / f"{name}.secret"), "server_key": str(folder / "broker.public")}


def test_an_observer_sees_all_but_output_and_cancels_nothing(keyed: tuple[str, Path]) -> None:
    address, folder = keyed

    async def body(top: Top, pilot: Pilot[None]) -> None:
        await choose(top, pilot, "hers")
        await until(pilot, lambda: [row.job for row in rows(top)] == ["hers"], "the job of another")
        await pilot.press("3")
        await until(pilot, lambda: "alice" in [row.name for row in rows(top, "clients")], "the clients")
        await pilot.press("1", "enter")
        output = top.screen.query_one("#output", Lines)
        await until(pilot, lambda: "not for this key" in output.text and "observer" in output.text, "no output")
        assert "accepted" in top.screen.query_one("#story", Lines).text
        await pilot.press("c", "y")
        await until(pilot, lambda: "job hers is not cancelled: This key has the role observer" in log(top), "no cancel")

    driven(connect(address, **keys_of("watcher", folder)), body)


def test_a_client_sees_its_own_jobs_and_is_told_what_it_may_not_see(keyed: tuple[str, Path]) -> None:
    address, folder = keyed

    async def body(top: Top, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "hers" in [row.job for row in rows(top)], "her job")
        assert "The broker as a whole is not for this key." in text(top, "head")
        assert "only those of" in text(top, "status")
        await pilot.press("2")
        assert "role client" in top.query_one("#workers", Grid).empty

    driven(connect(address, **keys_of("alice", folder)), body)


def test_an_admin_cancels_the_job_of_another(keyed: tuple[str, Path]) -> None:
    address, folder = keyed
    with Client(address, **keys_of("alice", folder)) as alice:
        alice.submit(HELLO, job_id="another")

    async def body(top: Top, pilot: Pilot[None]) -> None:
        await choose(top, pilot, "another")
        await until(pilot, lambda: [row.job for row in rows(top)] == ["another"], "the job of another")
        await pilot.press("c", "y")
        await until(pilot, lambda: [row.state for row in rows(top)] == ["cancelled"], "its end")

    driven(connect(address, **keys_of("root", folder)), body)


def test_scripts_get_text_or_an_object(cluster: Cluster) -> None:
    def top(*options: str) -> str:
        words = [sys.executable, str(ROOT / "bin" / "minilambda"), "top", "--server", cluster.address, *options]
        done = subprocess.run(words, capture_output=True, text=True, env=cluster.env, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    once = top("--every", "200ms", "--once")
    assert "1 worker" in once and "worker-1" in once
    found = json.loads(top("--every", "200ms", "--json"))
    assert found["overview"]["workers"] == 1 and found["ended_per_second"] is not None
    assert [row["name"] for row in found["workers"]] == ["worker-1"]


def test_calls_that_lead_nowhere_get_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 2
    assert "this is no terminal; --once" in capsys.readouterr().err
    assert command.main(["--json", "--every", "1ms"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "bad_option"
    with pytest.raises(Unreachable, match="No broker answered"):
        look_once(connect("127.0.0.1:1", None, None, 0.2), 1.0, 0.2)


def test_without_textual_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "minilambda.top.app")
    monkeypatch.setitem(sys.modules, "textual", None)
    with pytest.raises(MissingExtra, match=r"pip install 'minilambda\[top\]'"):
        run_top(connect("127.0.0.1:1", None, None), 1.0)
