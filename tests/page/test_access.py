"""The live page without a mouse, without eyes, and without moving things."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import FileChooser, Page, expect

from tests import wat
from tests.cluster import Cluster, wait_for
from tests.page.conftest import Gateway
from tests.page.talk import run

Visit = Callable[..., Page]

JUDGE = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations.map(({ id, impact, nodes }) =>
    ({ id, impact, where: nodes.map((node) => node.html.slice(0, 120) + " " + (node.any[0]?.message || "")) }));
}"""

OUTLINED = """() => {
  const rings = (node) => {
    const style = node && getComputedStyle(node);
    return style && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  };
  const node = document.activeElement;
  return rings(node) || rings(node.closest(".drop"));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing_wrong(
    visit: Visit, gateway: Gateway, cluster: Cluster, axe: str, scheme: str, width: int
) -> None:
    # given a page with something in each of its parts
    with cluster.connect() as client:
        client.deploy("hello", wat.wasm(wat.HELLO))
        for name in (wat.HELLO, wat.DIVIDE):
            client.submit(wat.wasm(name)).result(check=False)
        sleeping = [client.submit(wat.wasm(wat.SLEEP)) for _ in range(6)]
        page = visit(
            gateway.url, color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
        )
        expect(run(page, wat.wasm(wat.printing("to stderr\n", 2))).locator(".badge")).to_have_text("queued")
        expect(page.locator("#jobs-view")).to_contain_text("queued")
        page.get_by_text("More options").click()
        page.evaluate(axe)
        # when, then
        assert findings(page) == []
        for job in sleeping:
            job.cancel()
        expect(page.locator("#run-view .badge")).to_have_text("completed")
        page.locator("#jobs-view .link").first.click()
        expect(page.locator("#job .story")).to_be_visible()
        assert findings(page) == []
        page.keyboard.press("Escape")
        page.evaluate("document.getElementById('token').showModal()")
        assert findings(page) == []


def findings(page: Page) -> list[str]:
    return [json.dumps(each) for each in page.evaluate(JUDGE)]


def test_a_module_runs_by_the_keyboard_alone(visit: Visit, gateway: Gateway) -> None:
    page = visit(gateway.url)

    def tab_to(what: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            assert page.evaluate(OUTLINED), page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
            if page.evaluate("(what) => document.activeElement.matches(what)", what):
                return
        raise AssertionError(f"{what} is not reached by the Tab key")

    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.insert(0, chooser))  # from now on: it takes the browser a while
    # when
    tab_to(".skip")
    expect(page.locator(".skip").first).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#run-title")).to_be_focused()
    tab_to("#file")
    page.keyboard.press("Space")
    wait_for(lambda: page.evaluate("true") and choosers, "the browser asks for a file")
    choosers[0].set_files([{"name": "cat.wasm", "mimeType": "application/wasm", "buffer": wat.wasm(wat.CAT)}])
    expect(page.locator("#chosen")).to_contain_text("cat.wasm")
    tab_to("#stdin")
    page.keyboard.type("typed")
    tab_to("#start")
    page.keyboard.press("Enter")
    # then
    expect(page.locator("#run-view .output")).to_have_text("typed")
    expect(page.locator("#run-view .badge")).to_have_text("completed")
    tab_to("#run-view .output")
    tab_to("#workers .sort")
    page.keyboard.press("Enter")
    expect(page.locator("#workers th").first).to_have_attribute("aria-sort", "ascending")


def test_nothing_moves_for_those_who_asked_for_that(visit: Visit, gateway: Gateway) -> None:
    page = visit(gateway.url, reduced_motion="reduce")
    moving = "[...document.querySelectorAll('*')].filter((node) => node.getAnimations().length).length"
    assert page.evaluate(moving) == 0
    assert visit(gateway.url).evaluate(moving) > 0
