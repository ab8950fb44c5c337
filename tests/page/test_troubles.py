"""The live page when things go wrong: nobody answers, a token is wanted, names are hostile."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests import wat
from tests.cluster import BIN, Cluster
from tests.page.conftest import Gateway
from tests.page.talk import pausing, run

Visit = Callable[..., Page]
Serve = Callable[..., Gateway]
HELLO = wat.wasm(wat.HELLO)
EVIL = "<img src=x onerror=hacked=1>"


def test_a_broker_that_goes_and_comes_back_is_told(visit: Visit, serve: Serve, own: Cluster) -> None:
    # given
    gateway = serve(own)
    page = visit(gateway.url)
    expect(page.locator("#workers-view")).to_contain_text("worker-1")
    # when
    own.lose(own.service("broker"))
    # then
    expect(page.locator("#link-word")).to_have_text("Broker away")
    expect(page.get_by_text("The broker is away: what you see is from")).to_be_visible()
    expect(page.locator("#workers-view")).to_contain_text("worker-1")
    # when
    own.restart_broker()
    # then
    expect(page.locator("#link-word")).to_have_text("Live")
    expect(page.locator("#word")).to_be_hidden()
    view = run(page, HELLO)
    expect(view.locator(".output")).to_have_text("hello\n")


def test_a_gateway_that_goes_and_comes_back_is_told_and_a_run_is_heard_on(
    visit: Visit, serve: Serve, own: Cluster
) -> None:
    # given
    gateway = serve(own)
    page = visit(gateway.url, lonely=True)
    view = run(page, pausing("before\n", "after\n", 6000))
    expect(view.locator(".output")).to_have_text("before\n")
    # when
    gateway.service.kill()
    # then
    expect(page.locator("#link-word")).to_have_text("Gateway away")
    expect(page.locator("#word")).to_contain_text("The page goes on asking.")
    # when
    gateway.start()
    page.get_by_role("button", name="Try now").click()
    # then
    expect(page.locator("#link-word")).to_have_text("Live")
    expect(view.locator(".output")).to_have_text("before\nafter\n")
    expect(view.locator(".badge")).to_have_text("completed")


def test_a_token_is_asked_for_and_never_in_an_address(
    visit: Visit, serve: Serve, cluster: Cluster, tmp_path: Path
) -> None:
    # given
    tokens = tmp_path / "tokens"

    def token(name: str, may: str) -> str:
        command = [sys.executable, str(BIN / "minilambda"), "web", "token", "--tokens", str(tokens), "--may", may, name]
        return subprocess.run(command, env=cluster.env, capture_output=True, check=True, text=True).stdout.strip()

    good, reader = token("good", "read,run,call"), token("reader", "read")
    gateway = serve(cluster, "--tokens", str(tokens))
    page = visit(gateway.url, lonely=True, live=False)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Token")).to_be_focused()
    # when
    dialog.get_by_label("Token").fill("wrong")
    page.keyboard.press("Enter")
    # then
    expect(dialog).to_contain_text("does not take this token")
    # when: one that may look only
    dialog.get_by_label("Token").fill(reader)
    page.keyboard.press("Enter")
    # then
    expect(page.locator("#link-word")).to_have_text("Live")
    run(page, HELLO)
    expect(page.locator("#run-fault")).to_have_text("The token 'reader' may not run.")
    # when: another one, kept
    page.reload()
    dialog.get_by_label("Token").fill(good)
    dialog.get_by_label("Keep it").check()
    dialog.get_by_role("button", name="Use it").click()
    # then
    expect(page.locator("#link-word")).to_have_text("Live")
    expect(run(page, HELLO).locator(".output")).to_have_text("hello\n")
    page.reload()
    expect(page.locator("#link-word")).to_have_text("Live")
    assert addresses
    assert not [url for url in addresses if good in url or reader in url]


def test_no_name_and_no_output_becomes_markup(visit: Visit, serve: Serve, own: Cluster) -> None:
    # given
    own.lose(own.service("worker-1"))
    own._start("worker", "--orchestrator", own.address, "--cache-dir", str(own.folder / "cache"), "--name", EVIL)
    gateway = serve(own)
    with own.connect() as client:
        client.submit(wat.wasm(wat.printing(EVIL)), group=EVIL).result(check=False)
        client.deploy("evil", HELLO, env={"A": EVIL}, alias="live")
        client.deploy("named", wat.wasm(wat.ADD.replace('"add"', f'"{EVIL}"')), invoke=EVIL)
    page = visit(gateway.url)
    for place in ("#workers-view", "#jobs-view", "#functions-view"):
        expect(page.locator(place)).to_contain_text(EVIL)
    # when
    page.locator("#jobs-view .link").first.click()
    expect(page.locator("#job .output")).to_have_text(EVIL)
    page.keyboard.press("Escape")
    view = run(
        page, wat.wasm(wat.printing(f"{EVIL}</pre><script>hacked=1</script>", 2)), name=f"{EVIL}.wasm", args=EVIL
    )
    expect(view.locator(".output")).to_contain_text("<script>")
    named = wat.wasm(wat.DIVIDE.replace("$quotient", f'$"{EVIL}"'))
    view = run(page, named, name="trap.wasm")
    expect(view.locator(".sentence")).to_contain_text("divide by zero")
    # then
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.locator("img:not(.brand img)").count() == 0
