"""The page itself: states of the server, the key, light and dark, small screens, the keyboard."""

from __future__ import annotations

import re
from importlib import resources
from itertools import product

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from api.fake_engine import say
from caravan.api import service
from caravan.messages import Progress
from page.chat import Chat
from page.page_server import MODEL, PageServer, ready, until

KEY_WANTED = "This server needs an API key"
LONG = "W" * 400
WIDE = (
    f"{LONG}\n\n```\n{LONG}\n```\n\n- {LONG}\n\n`{LONG}`\n\n"
    '{"type": "function", "name": "get_time", "parameters": {"zone": "' + LONG + '"}}'
)
RIGHT_EDGES = """() => [...document.querySelectorAll('body *')]
  .filter((node) => node.checkVisibility() && !node.closest('pre, .off-screen, symbol, svg'))
  .map((node) => [node.getBoundingClientRect().right, node.outerHTML.slice(0, 80)])
  .filter(([right]) => right > innerWidth + 0.5)"""


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_a_key_is_asked_for_and_kept_in_the_tab_only(
    page: Page, locked_server: PageServer, expected_statuses: set[int]
) -> None:
    expected_statuses.add(401)
    key, _ = locked_server.keys
    chat = Chat(page, locked_server)
    expect(chat.status).to_have_text(KEY_WANTED)
    chat.send("Hi")
    field = page.locator("#key")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("type", "password")
    field.fill("wrong")
    field.press("Enter")
    expect(chat.status).to_have_text("The API key is not valid")
    field.fill(f" {key} ")
    field.press("Enter")
    expect(chat.status).to_have_text(MODEL)
    chat.message.press("Enter")
    expect(chat.complete()).to_have_text("Hello there!")
    assert locked_server.recorder.headers[-1]["authorization"].encode("latin-1") == (
        f"Bearer {key}".encode()
    )
    kept = "[Object.values({...sessionStorage}), Object.values({...localStorage}), document.cookie]"
    assert page.evaluate(kept) == [[key], [], ""]
    page.reload()
    expect(chat.status).to_have_text(MODEL)
    field.fill("")
    field.press("Enter")
    expect(chat.status).to_have_text(KEY_WANTED)
    assert page.evaluate(kept) == [[], [], ""]


def test_a_key_that_is_no_longer_valid(
    page: Page, server: PageServer, expected_statuses: set[int]
) -> None:
    expected_statuses.add(401)
    chat = Chat.ready(page, server)
    refusal = '{"error": {"message": "The API key is not valid.", "code": "invalid_api_key"}}'
    page.route("**/v1/*/**", lambda route: route.fulfill(status=401, body=refusal))
    page.route("**/v1/models", lambda route: route.fulfill(status=401, body=refusal))
    chat.ask("Hi")
    expect(page.get_by_role("alert")).to_have_text("The API key is not valid.")
    expect(chat.status).to_have_text(KEY_WANTED)


def test_while_the_model_is_loading(
    page: Page,
    server: PageServer,
    expected_statuses: set[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected_statuses.add(503)
    monkeypatch.setattr(service, "LOADING_RETRY_S", 1)
    server.engine.ready, server.engine.loading = None, None
    chat = Chat(page, server)
    expect(chat.status).to_have_text("Model is loading")
    server.engine.loading = Progress("weights", 3, 12, "tensors")
    expect(chat.status).to_have_text("Model is loading: weights, 3 of 12 tensors")
    chat.send("Hi")
    expect(chat.toast).to_have_text("Model is loading: weights, 3 of 12 tensors")
    expect(chat.message).to_have_value("Hi")
    server.engine.ready = ready()
    expect(chat.status).to_have_text(MODEL)
    chat.message.press("Enter")
    chat.complete()
    assert len(server.recorder.bodies) == 1


def test_the_wait_is_the_servers_own(
    page: Page, server: PageServer, expected_statuses: set[int]
) -> None:
    expected_statuses.add(503)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    server.engine.ready = None
    chat = Chat(page, server)
    expect(chat.status).to_have_text("Model is loading")
    page.wait_for_timeout(400)
    assert sum(url.endswith("/ready") for url in asked) == 1


def test_a_server_that_is_gone(page: Page, server: PageServer, expected_statuses: set[int]) -> None:
    expected_statuses.add(502)
    page.route("**/ready", lambda route: route.fulfill(status=502, body="<html>"))
    chat = Chat(page, server)
    expect(chat.status).to_have_text("The server answers with status 502.")


def test_the_theme_is_the_systems_until_it_is_chosen(
    context: BrowserContext, server: PageServer
) -> None:
    page = context.new_page()
    Chat.ready(page, server)
    colors = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colors[scheme] = background(page)
    assert colors == {"light": "rgb(250, 247, 242)", "dark": "rgb(26, 23, 20)"}
    toggle = page.get_by_role("button", name="Light or dark")
    toggle.click()
    assert background(page) == colors["light"]
    page.reload()
    assert background(page) == colors["light"], "the choice is kept"
    toggle.click()
    page.emulate_media(color_scheme="light")
    assert background(page) == colors["dark"]


def test_a_phone_scrolls_in_one_direction_only(context: BrowserContext, server: PageServer) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 360, "height": 700})
    chat = Chat.ready(page, server)
    assert page.evaluate(RIGHT_EDGES) == []
    page.wait_for_timeout(50)
    assert page.locator("#scroller").evaluate("box => box.scrollTop") == 0, "it starts at its top"
    page.locator("#gallery button").last.click()
    chat.button("Settings").click()
    assert page.evaluate(RIGHT_EDGES) == []
    panel = page.locator("#settings").bounding_box()
    assert panel
    assert panel["width"] == 360
    page.locator("#tools").fill('[{"type": "function", "function": {"name": "get_time"}}]')
    page.keyboard.press("Escape")
    expect(page.locator("#settings")).to_be_hidden()
    expect(chat.button("Settings")).to_be_focused()
    server.engine.script = lambda index, sampling: say(WIDE, by=100)
    chat.ask(LONG)
    page.locator(".results textarea").fill(LONG)
    chat.button("Copy as curl").hover()
    chat.button("Example pictures").click()
    assert page.evaluate(RIGHT_EDGES) == []
    for box in ("document.documentElement", "document.querySelector('#scroller')"):
        assert page.evaluate(f"{box}.scrollWidth") <= 360


def test_a_conversation_by_keyboard_alone(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    expect(chat.message).to_be_focused()
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("Two")
    page.keyboard.press("Enter")
    chat.complete()
    assert server.body["messages"][0]["content"] == "One\nTwo"
    expect(chat.message).to_be_focused()
    page.keyboard.press("Enter")
    assert len(server.recorder.bodies) == 1, "nothing is no message"
    page.keyboard.press("Shift+Tab")
    expect(chat.answer.get_by_role("button", name="Copy")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(chat.button("Retry")).to_be_focused()
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.press("Enter")
    until(lambda: len(server.recorder.bodies) == 2)
    chat.complete()


def test_the_tab_key_follows_the_page(page: Page, server: PageServer) -> None:
    Chat.ready(page, server)
    page.locator("h1").click()
    seen: list[str] = []
    name = "n => n.getAttribute('aria-label') || n.labels?.[0]?.textContent || n.textContent.trim()"
    while len(seen) < 60:
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        if not focused.count():
            break
        seen.append(str(focused.evaluate(name)))
    landmarks = ["New chat", "Hello, who are you?", "Three green triangles", "Message",
                 "Add pictures", "Copy as curl", "Copy as Python", "Send", "Close settings",
                 "API key", "System prompt", "Temperature", "Stop strings", "Tools",
                 "JSON"]  # fmt: skip
    places = [seen.index(landmark) for landmark in landmarks]
    assert places == sorted(places), seen
    assert "" not in seen


def test_everything_has_a_name(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    page.locator("#format").select_option("json_schema")
    chat.ask("Hi")
    for role in ("button", "textbox", "spinbutton", "combobox", "progressbar"):
        for control in page.get_by_role(role).all():
            expect(control).to_have_accessible_name(re.compile(r"\S"))
    log = page.get_by_role("log")
    expect(log).to_have_count(1)
    assert not log.get_attribute("aria-live"), "a log is polite by itself"


def test_the_tab_icon_is_there(page: Page, server: PageServer) -> None:
    Chat.ready(page, server)
    assert page.locator("header .mark").evaluate("image => image.naturalWidth") > 0


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrasts() -> None:
    """WCAG 2 AA: 4.5 to 1 for text, 3 to 1 for the edges of fields."""
    style = resources.files("caravan.api.ui").joinpath("style.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    for theme in (1, 2):
        color = {pair[0]: pair[theme] for pair in pairs}
        grounds = ("ground", "surface", "raised")
        texts = [*product(("ink", "muted", "accent"), grounds), ("bad", "bad-ground")]
        texts += [("bad", "ground"), ("on-accent", "accent"), ("ground", "ink")]
        for text, ground in texts:
            assert contrast(color[text], color[ground]) >= 4.5, (theme, text, ground)
        for ground in ("ground", "surface"):
            assert contrast(color["edge"], color[ground]) >= 3, (theme, ground)
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
