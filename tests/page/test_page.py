"""The live page in a real Chromium: what people see of a cluster, and what they do with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

from playwright.sync_api import Page, Route, expect

from tests import wat
from tests.cluster import Cluster, wait_for
from tests.page.conftest import Gateway
from tests.page.talk import drop, overflow, pausing, run

Visit = Callable[..., Page]
Serve = Callable[..., Gateway]
HELLO = wat.wasm(wat.HELLO)


def state(gateway: Gateway) -> dict[str, Any]:
    """What the gateway tells its pages."""
    with urlopen(f"{gateway.url}/api/state") as reply:
        found: dict[str, Any] = json.load(reply)
        return found


def test_the_page_shows_the_cluster_as_it_is(visit: Visit, serve: Serve, own: Cluster) -> None:
    # given
    page, cluster = visit(serve(own).url), own
    expect(page.locator("#workers-view tbody tr")).to_have_count(1)
    expect(page.locator("#workers-view")).to_contain_text("worker-1")
    expect(page.locator(".tile.slots .value")).to_have_text("0 / 2")
    # when
    with cluster.connect() as client:
        client.run(HELLO)
        client.submit(wat.wasm(wat.DIVIDE))
        sleeping = client.submit(wat.wasm(wat.SLEEP))
        # then
        jobs = page.locator("#jobs-view tbody")
        expect(jobs.locator("tr")).to_have_count(3)
        expect(jobs).to_contain_text("completed")
        expect(jobs).to_contain_text("trap")
        expect(page.locator(".tile.slots .value")).to_have_text("1 / 2")
        expect(page.locator("#workers-view")).to_contain_text("1 of 2")
        sleeping.cancel()
    expect(page.locator(".tile.slots .value")).to_have_text("0 / 2")
    expect(jobs).to_contain_text("cancelled")
    bar = jobs.locator("tr").last.locator(".bar")
    assert re.search(r"run [\d.]+ .?s", bar.get_attribute("aria-label"))
    expect(page.locator("#latency-view tbody tr").first).to_be_visible()
    expect(page.locator("#chart-queue svg")).to_have_attribute("aria-label", re.compile("^Jobs: waiting 0, at most"))


def test_a_dropped_module_is_heard_before_its_end(visit: Visit, gateway: Gateway) -> None:
    page = visit(gateway.url)
    # when
    view = run(page, pausing("first\n", "second\n", 60_000))
    # then
    expect(view.locator(".output")).to_have_text("first\n")
    expect(view.locator(".badge")).to_have_text("running")
    # when
    view.get_by_role("button", name="Cancel").click()
    # then
    expect(view.locator(".badge")).to_have_text("cancelled")
    expect(view.locator(".output")).to_have_text("first\n")
    expect(page.locator("#said")).to_contain_text("The job has ended, cancelled")


def test_a_run_ends_with_its_output_and_where_its_time_went(visit: Visit, gateway: Gateway) -> None:
    page = visit(gateway.url)
    # when
    view = run(page, pausing("grüß", " dich\n", 300), args="a b", timeout="20")
    # then
    expect(view.locator(".badge")).to_have_text("completed")
    expect(view.locator(".output")).to_have_text("grüß dich\n")
    expect(view.locator(".spans")).to_contain_text(re.compile(r"run3\d\d ms"))
    expect(view.locator(".facts")).to_contain_text("Exit code0")
    with page.expect_download() as download:
        view.get_by_role("button", name="Save stdout").click()
    assert download.value.path().read_text(encoding="utf-8") == "grüß dich\n"


def test_arguments_input_and_environment_reach_the_guest(visit: Visit, gateway: Gateway) -> None:
    page = visit(gateway.url)
    view = run(page, wat.wasm(wat.ARGS), args="one 'two words' \"\"")
    expect(view.locator(".output")).to_have_text(re.compile("one\u2400two words\u2400\u2400$"))
    view = run(page, wat.wasm(wat.CAT), stdin="line\nline\n")
    expect(view.locator(".output")).to_have_text("line\nline\n")
    page.get_by_text("More options").click()
    view = run(page, wat.wasm(wat.ENVIRON), env="A=b c\nD==")
    expect(view.locator(".output")).to_have_text("A=b c\u2400D==\u2400")
    view = run(page, wat.wasm(wat.ADD), invoke="add", args="2 3", env="")
    expect(view.locator(".value")).to_have_text("Returned 5")


def test_a_failing_guest_is_told_in_a_sentence(visit: Visit, gateway: Gateway) -> None:
    page = visit(gateway.url)
    view = run(page, wat.wasm(wat.DIVIDE))
    expect(view.locator(".badge")).to_have_text("trap")
    expect(view.locator(".sentence")).to_have_text("The guest trapped: integer divide by zero.")
    view.get_by_text("Backtrace").click()
    expect(view.get_by_label("Backtrace")).to_contain_text("quotient")
    view = run(page, wat.wasm(wat.LOOP), timeout="0.3")
    expect(view.locator(".badge")).to_have_text("time limit")


def test_what_is_no_module_or_no_argument_is_told_before_anything_is_sent(visit: Visit, gateway: Gateway) -> None:
    page = visit(gateway.url)
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#run-fault")).to_have_text("Choose a .wasm file first.")
    drop(page, "notes.txt", b"hello")
    expect(page.locator("#run-fault")).to_contain_text("notes.txt is not WebAssembly")
    drop(page, "guest.wat", b"(module)")
    expect(page.locator("#run-fault")).to_contain_text("WebAssembly as text")
    run(page, HELLO, args='"open')
    expect(page.locator("#run-fault")).to_contain_text("not closed")


def test_the_page_never_offers_to_cancel_a_job_that_has_ended(visit: Visit, gateway: Gateway, cluster: Cluster) -> None:
    # given: the answers about the job are slow
    with cluster.connect() as client:
        job = client.submit(HELLO, group="over")
        job.result(check=False)
    page, held, slow = visit(gateway.url), [], [True]

    def hold(route: Route) -> None:
        held.append(route) if slow else route.continue_()

    page.route(re.compile(f"/jobs/{job.id}"), hold)
    # when
    page.locator("#jobs-view tbody tr").filter(has_text="over").get_by_role("button").click()
    # then
    view = page.locator("#job")
    expect(view).to_be_visible()
    wait_for(lambda: page.evaluate("true") and held, "the page has asked")
    expect(view.get_by_role("button", name="Cancel")).to_be_hidden()
    # when
    slow.clear()
    for route in held:
        route.continue_()
    # then
    expect(view.get_by_role("button", name="Run again")).to_be_visible()
    expect(view.get_by_role("button", name="Cancel")).to_be_hidden()


def test_a_job_is_looked_at_from_near(visit: Visit, gateway: Gateway, cluster: Cluster) -> None:
    # given
    with cluster.connect() as client:
        client.submit(wat.wasm(wat.printing("seen from near\n")), group="near").result(check=False)
    page = visit(gateway.url)
    row = page.locator("#jobs-view tbody tr").filter(has_text="near")
    link = row.get_by_role("button")
    # when
    link.focus()
    page.keyboard.press("Enter")
    # then
    dialog = page.locator("#job")
    expect(dialog.locator(".output")).to_have_text("seen from near\n")
    expect(dialog.locator(".story")).to_contain_text("accepted")
    expect(dialog.locator(".story")).to_contain_text("completed")
    expect(dialog).to_contain_text("Groupnear")
    # when
    page.keyboard.press("Escape")
    # then
    expect(dialog).to_be_hidden()
    expect(link).to_be_focused()


def test_a_function_is_called(visit: Visit, gateway: Gateway, cluster: Cluster) -> None:
    with cluster.connect() as client:
        client.deploy("echo", wat.wasm(wat.CAT))
    page = visit(gateway.url)
    page.get_by_role("button", name="Call echo").click()
    expect(page.locator("#args")).to_be_focused()
    page.locator("#stdin").fill("to a function")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#run-view .output")).to_have_text("to a function")


def pieces_heard(page: Page) -> list[Any]:
    """What the page gets from the network from now on; it grows while the browser is talked to."""
    heard: list[Any] = []
    session = page.context.new_cdp_session(page)
    session.on("Network.dataReceived", lambda piece: heard.append(piece["dataLength"]))
    session.send("Network.enable")
    return heard


def test_tables_are_sorted_filtered_and_held(visit: Visit, gateway: Gateway, cluster: Cluster) -> None:
    with cluster.connect() as client:
        for wasm in (HELLO, wat.wasm(wat.DIVIDE)):
            client.submit(wasm).result(check=False)
        page = visit(gateway.url)
        head = page.locator("#jobs-view thead")
        rows = page.locator("#jobs-view tbody tr")
        times = "(rows) => rows.map((row) => row.querySelector('.c-outcome').textContent)"
        expect(rows.nth(1)).to_be_visible()
        # when, then
        head.get_by_role("button", name="Outcome").click()
        expect(head.locator(".c-outcome")).to_have_attribute("aria-sort", "ascending")
        told = rows.evaluate_all(times)
        assert told == sorted(told, key=lambda word: word not in ("cancelled",) and word != "completed")
        head.get_by_role("button", name="Outcome").click()
        expect(head.locator(".c-outcome")).to_have_attribute("aria-sort", "descending")
        expect(rows.first).not_to_contain_text("completed")
        page.get_by_role("button", name="Failed").click()
        assert not {"completed", "cancelled", "running"} & set(rows.evaluate_all(times))
        # when nothing may move
        count = rows.count()
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#link-word")).to_have_text("Paused")
        heard = pieces_heard(page)
        job = client.submit(wat.wasm(wat.DIVIDE))
        job.result(check=False)
        wait_for(lambda: any(row["job"] == job.id for row in state(gateway)["jobs"]), "the gateway tells the job")
        before = len(heard)
        wait_for(lambda: page.evaluate("true") and len(heard) >= before + 2, "the page has heard of it")
        assert rows.count() == count
        page.get_by_role("button", name="Pause").click()
        expect(rows).to_have_count(count + 1)


def test_dark_is_as_the_system_has_it_or_as_chosen(visit: Visit, gateway: Gateway) -> None:
    def ground(page: Page, colour: str) -> None:
        expect(page.locator("html")).to_have_css("background-color", colour)

    light, dark = "rgb(245, 245, 248)", "rgb(16, 16, 22)"
    ground(visit(gateway.url, color_scheme="light"), light)
    page = visit(gateway.url, color_scheme="dark")
    ground(page, dark)
    # when
    page.get_by_role("button", name="Light colours").click()
    # then
    ground(page, light)
    page.reload()
    ground(page, light)
    # when: chosen as the system has it
    page.get_by_role("button", name="Dark colours").click()
    ground(page, dark)
    page.emulate_media(color_scheme="light")
    # then: it follows the system again
    ground(page, light)


def test_nothing_is_wider_than_a_phone(visit: Visit, gateway: Gateway, cluster: Cluster) -> None:
    with cluster.connect() as client:
        client.submit(HELLO, job_id="j" * 64, group="g" * 100).result(check=False)
    page = visit(gateway.url, viewport={"width": 360, "height": 740}, has_touch=True)
    expect(page.locator("#jobs-view")).to_contain_text("ggg")
    assert overflow(page) == 0
    view = run(page, wat.wasm(wat.printing("w" * 250)), name="n" * 120 + ".wasm")
    expect(view.locator(".badge")).to_have_text("completed")
    assert overflow(page) == 0
    page.locator("#jobs-view .link").first.click()
    expect(page.locator("#job .story")).to_be_visible()
    assert overflow(page) == 0
    assert page.evaluate("(box => box.scrollWidth - box.clientWidth)(document.getElementById('job'))") == 0


def test_thousands_of_jobs_and_megabytes_of_output_leave_the_page_small(
    visit: Visit, gateway: Gateway, cluster: Cluster
) -> None:
    page = visit(gateway.url)
    nodes = "document.querySelectorAll('*').length"
    expect(page.locator("#jobs-view tbody tr").first).to_be_visible()
    with cluster.connect() as client:
        assert sum(result.exit_code == 0 for result in client.map(HELLO, [()] * 2000)) == 2000
    page.get_by_role("button", name="Show all").click()
    expect(page.locator("#jobs-view tbody tr")).to_have_count(100)
    assert page.evaluate(nodes) < 4000
    # when
    view = run(page, wat.wasm(wat.FLOOD))
    # then
    expect(view.locator(".badge")).to_have_text("too much output")
    expect(view.get_by_text("Only the end is shown here")).to_be_visible()
    assert page.evaluate("document.querySelector('#run-view .output').textContent.length") <= 300_000
    assert page.evaluate(nodes) < 6000


def test_a_hidden_page_holds_no_connection_and_lives_on_when_it_is_seen_again(visit: Visit, gateway: Gateway) -> None:
    page = visit(gateway.url)
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    # when
    with page.expect_request("**/api/state"):
        page.evaluate(hide, True)
    # then
    wait_for(lambda: state(gateway)["gateway"]["streams"] == 0, "the stream is closed")
    # when
    with page.expect_request("**/api/events"):
        page.evaluate(hide, False)
    expect(page.locator("#link-word")).to_have_text("Live")
