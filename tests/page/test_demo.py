"""The first minute of a new user: the page, the demo model behind it, a picture, a right answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from system.running_server import RunningServer

TIMEOUT_MS = 60_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with RunningServer() as server:
        yield server.until_ready().url


@pytest.mark.exam
def test_a_picture_is_described(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_role("button", name="What is in the picture?").click()
    shown = page.get_by_text("A red circle left of a blue square.", exact=True)
    expect(shown).to_be_visible(timeout=TIMEOUT_MS)


@pytest.mark.exam
def test_a_sum_a_tool_and_json(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_role("button", name="What is 17 + 25?").click()
    expect(page.get_by_text("17 + 25 = 42.", exact=True)).to_be_visible(timeout=TIMEOUT_MS)
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("button", name="What is the weather in Lima?").click()
    expect(page.get_by_label("Result of get_weather")).to_be_visible(timeout=TIMEOUT_MS)
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("button", name="The capital of Norway, in JSON").click()
    expect(page.get_by_text('"Oslo"')).to_be_visible(timeout=TIMEOUT_MS)
