"""A browser, the server that it visits, and what must never happen on the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    expect,
    sync_playwright,
)

from caravan.config import ApiConfig
from page.page_server import PageServer

ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
KEYS = ("page-schlüssel", "page-key")  # openai sends ASCII only
TIMEOUT_MS = 30_000  # the test machine may be busy; nothing here takes a tenth of it
expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Closed with its module: Playwright's event loop must not live beside pytest-asyncio's."""
    path = shutil.which("chromium")
    if path is None:
        assert not os.environ.get("CARAVAN_REQUIRE_BROWSER"), "there is no chromium"
        pytest.skip("needs chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def running() -> Iterator[PageServer]:
    with PageServer(ApiConfig()) as server:
        yield server


@pytest.fixture(scope="module")
def running_with_key() -> Iterator[PageServer]:
    with PageServer(ApiConfig(api_key=KEYS)) as server:
        yield server


@pytest.fixture
def server(running: PageServer) -> PageServer:
    running.reset()
    return running


@pytest.fixture
def locked_server(running_with_key: PageServer) -> PageServer:
    running_with_key.reset()
    return running_with_key


class Watch:
    """Notes what must never happen on a page, whatever a test does there."""

    def __init__(self, context: BrowserContext) -> None:
        self.expected_statuses: set[int] = set()
        self.wrong: list[str] = []
        self.origins: set[str] = set()
        context.on("console", self._on_console)
        context.on("weberror", lambda error: self.wrong.append(str(error.error)))
        context.on("request", self._on_request)

    def require_nothing_wrong(self) -> None:
        """No breach of the policy, no error, no other server than the page's."""
        assert self.wrong == []
        assert len(self.origins) <= 1, self.origins
        self.origins.clear()

    def _on_console(self, message: ConsoleMessage) -> None:
        statuses = self.expected_statuses
        is_known = any(f"a status of {status} " in message.text for status in statuses)
        if message.type in ("error", "warning") and not is_known:
            self.wrong.append(message.text)

    def _on_request(self, request: Request) -> None:
        scheme, host = request.url.split("/")[:3:2]
        if scheme in ("http:", "https:"):
            self.origins.add(host)


@pytest.fixture
def expected_statuses() -> set[int]:
    """Statuses of refusals that a test provokes: the browser logs each; tests add theirs."""
    return set()


@pytest.fixture(scope="module")
def shared(browser: Browser) -> Iterator[tuple[Page, Watch]]:
    """A tab for all tests of a module: a new one takes longer than most of them."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(TIMEOUT_MS)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context.new_page(), Watch(context)
    context.close()


@pytest.fixture
def page(shared: tuple[Page, Watch], expected_statuses: set[int]) -> Iterator[Page]:
    """The tab, empty."""
    page, watch = shared
    watch.expected_statuses = expected_statuses
    watch.wrong.clear()
    yield page
    if page.url.startswith("http"):
        page.evaluate("sessionStorage.clear(); localStorage.clear()")
    page.unroute_all()
    page.goto("about:blank")
    watch.require_nothing_wrong()


@pytest.fixture
def context(browser: Browser, expected_statuses: set[int]) -> Iterator[BrowserContext]:
    """For a test that needs a browser of its own: of another size, or with another theme."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(TIMEOUT_MS)
    watch = Watch(context)
    watch.expected_statuses = expected_statuses
    yield context
    context.close()
    watch.require_nothing_wrong()
