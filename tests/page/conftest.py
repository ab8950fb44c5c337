"""A real cluster, a real gateway and a real Chromium. `make test-page` installs what this needs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.cluster import BIN, ROOT, Cluster, Service

URL = re.compile(r"listening on (http://127\.0\.0\.1:([1-9]\d*))")
AXE = ROOT / ".page" / "axe.min.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REFUSED = re.compile("Failed to load resource|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING")

expect.set_options(timeout=15_000)


class Gateway:
    """`minilambda web` in front of a cluster, always at the same address."""

    def __init__(self, cluster: Cluster, *options: str) -> None:
        self._cluster = cluster
        self._options = options
        self._port = "0"
        self._runs = 0
        self.url = ""
        self.service = self.start()

    def start(self) -> Service:
        self._runs += 1
        args = ["web", "--bind", f"127.0.0.1:{self._port}", "--server", self._cluster.address, *self._options]
        command = [sys.executable, str(BIN / "minilambda"), *args]
        name = f"web-{id(self)}-{self._runs}"
        self.service = Service(name, command, self._cluster.env, self._cluster.folder / "logs")
        found = self.service.wait_printed(URL)
        self.url, self._port = found[1], found[2]
        return self.service


@pytest.fixture(scope="module")
def gateway(cluster: Cluster) -> Iterator[Gateway]:
    made = Gateway(cluster)
    yield made
    made.service.kill()


@pytest.fixture
def serve() -> Iterator[Callable[..., Gateway]]:
    """Start a gateway of a test's own; it ends after the pages that look at it."""
    made: list[Gateway] = []

    def start(cluster: Cluster, *options: str) -> Gateway:
        made.append(Gateway(cluster, *options))
        return made[-1]

    yield start
    for gateway in made:
        gateway.service.kill()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of one worker with two slots, for a test that breaks it or wants it fresh."""
    made = Cluster(tmp_path)
    try:
        made.start_broker()
        made.start_worker("--slots", "2")
        made.wait_workers(1)
        yield made
    finally:
        made.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail("there is no Chromium: apt-get install chromium, or CHROMIUM=/path/to/it", pytrace=False)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def visit(browser: Browser, serve: object) -> Iterator[Callable[..., Page]]:
    """Open a page in a context of its own; at the end, nothing may have gone wrong in its scripts.

    With ``lonely`` the gateway may be away or refuse: then the browser itself complains on the console.
    """
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_page(url: str, *, lonely: bool = False, live: bool = True, **options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()

        def heard(message: object) -> None:
            if message.type in ("error", "warning") and not (lonely and REFUSED.search(message.text)):
                complaints.append(message.text)

        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        if live:
            expect(page.locator("#link-word")).to_have_text("Live")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The text of axe-core, which judges whether people can use a page without eyes or mouse."""
    if not AXE.exists():
        pytest.fail(f"{AXE.relative_to(ROOT)} is not there: run `make test-page`", pytrace=False)
    return Path(AXE).read_text(encoding="utf-8")
