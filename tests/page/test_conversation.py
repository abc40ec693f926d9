"""Questions and answers: streams, stops, errors, history, and text that wants to be more."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from api.fake_engine import HANG, say
from caravan.errors import EngineDead, InternalError, Overloaded
from page.chat import Chat
from page.page_server import MAX_MODEL_LEN, MODEL, Gate, PageServer, paced, unfinished, until

HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script></script>",
    "</textarea><svg onload=alert(1)>",
    "[click](javascript:alert(1)) &lt;b&gt; &amp;",
    "`<b>code</b>` **<i>bold</i>** *<u>em</u>*",
    "# <h1>heading</h1>",
    "- <li>item</li>\n1. <a href=x>",
    "```<b>\n<script>x</script>\n```",
    "\u202e\u0000 \u2028 ́ \U0001f999",
]
CODE_FRAME = {"div", "span", "button"}
READ_EVENTS = """async (sizes) => {
  const { readEvents } = await import(new URL('ui/sse.js', location.href));
  const text = ': ping\\n\\ndata: {"a": "ü🦙"}\\n\\nevent: x\\ndata:b\\ndata:  c\\r\\n'
    + '\\r\\n: x\\n\\n' + 'data: [DONE]\\n\\ndata: lost';
  const bytes = new TextEncoder().encode(text);
  const results = [];
  for (const size of sizes) {
    const stream = new ReadableStream({
      start(controller) {
        for (let i = 0; i < bytes.length; i += size) controller.enqueue(bytes.slice(i, i + size));
        controller.close();
      },
    });
    const found = [];
    for await (const event of readEvents(stream)) found.push(event);
    results.push(found);
  }
  return results;
}"""


def test_an_answer_appears_while_it_is_made(page: Page, server: PageServer) -> None:
    gate = Gate()
    server.engine.script = gate.script(unfinished(say("Hello ")), say("world"))
    chat = Chat.ready(page, server)
    chat.send("Hi")
    expect(chat.text).to_have_text("Hello")
    expect(chat.answer).to_have_attribute("aria-busy", "true")
    expect(chat.answer.locator(".stats")).to_contain_text("≈ 6 tokens")
    expect(chat.button("Stop")).to_be_visible()
    expect(chat.button("Send")).to_be_hidden()
    gate.is_open = True
    expect(chat.complete()).to_have_text("Hello world")
    expect(chat.button("Stop")).to_be_hidden()
    expect(chat.message).to_have_value("")
    assert server.body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_stop_ends_the_request_and_keeps_what_came(page: Page, server: PageServer, by: str) -> None:
    server.engine.script = lambda index, sampling: [*unfinished(say("So far")), HANG]
    chat = Chat.ready(page, server)
    chat.send("Hi")
    expect(chat.text).to_have_text("So far")
    if by == "button":
        chat.button("Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(chat.complete()).to_have_text("So far")
    expect(chat.answer).to_contain_text("Stopped.")
    until(lambda: server.engine.all_closed)
    expect(chat.message).to_be_focused()
    server.engine.script = lambda index, sampling: say("More")
    chat.ask("Go on")
    assert server.body["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "So far"},
        {"role": "user", "content": "Go on"},
    ]


def test_stopped_before_the_first_word(page: Page, server: PageServer) -> None:
    server.engine.script = lambda index, sampling: [HANG]
    chat = Chat.ready(page, server)
    chat.send("Hi")
    until(lambda: server.engine.generations)
    page.keyboard.press("Escape")
    chat.complete()
    server.engine.script = lambda index, sampling: say("Yes")
    chat.ask("Well?")
    said = [message["role"] for message in server.body["messages"]]
    assert said == ["user", "user"], "an answer that never was is no message"


def test_times_tokens_and_the_context(page: Page, server: PageServer) -> None:
    server.engine.script = lambda index, sampling: paced(say("0123456789", by=2), 0.05)
    chat = Chat.ready(page, server)
    chat.ask("Hi")
    stats = chat.answer.locator(".stats")
    expect(stats).to_have_text(re.compile(r"^11 tokens · \d+\.\d tokens/s · first after \d+ ms$"))
    shown = re.search(r"([\d.]+) tokens/s", stats.inner_text())
    assert shown
    assert 10 < float(shown[1]) < 60, "10 tokens after the first one, in 5 pauses of 50 ms or more"
    used = len(server.engine.submits[-1][0].prompt) + 11
    expect(page.locator("#context-text")).to_contain_text(f"{used} of {MAX_MODEL_LEN} tokens")
    assert page.locator("#context-bar").evaluate("bar => [bar.value, bar.max]") == [
        used,
        MAX_MODEL_LEN,
    ]
    chat.button("New chat").click()
    expect(page.locator("#context")).to_be_hidden()
    expect(page.locator("#welcome")).to_be_visible()


def test_retry_asks_again(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    chat.ask("One")
    chat.ask("Two")
    before = server.body
    server.engine.script = lambda index, sampling: say("Another")
    expect(chat.button("Retry")).to_have_count(1)
    chat.button("Retry").click()
    expect(chat.text).to_have_text("Another")
    chat.complete()
    assert server.body == before
    expect(page.locator(".turn")).to_have_count(4)


def test_an_edited_message_takes_the_place_of_what_followed(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    chat.ask("One")
    chat.ask("Two")
    page.locator(".turn.user").first.get_by_role("button", name="Edit").click()
    expect(chat.message).to_have_value("One")
    expect(page.locator(".turn")).to_have_count(0)
    chat.ask("Three")
    assert server.body["messages"] == [{"role": "user", "content": "Three"}]


def test_new_chat_ends_the_answer_under_way(page: Page, server: PageServer) -> None:
    server.engine.script = lambda index, sampling: [*unfinished(say("So far")), HANG]
    chat = Chat.ready(page, server)
    chat.send("Hi")
    expect(chat.text).to_have_text("So far")
    chat.button("New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    until(lambda: server.engine.all_closed)
    server.engine.script = lambda index, sampling: say("Fresh")
    expect(chat.ask("Hello")).to_have_text("Fresh")
    assert len(server.body["messages"]) == 1


def test_settings_are_sent_and_empty_ones_are_not(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    chat.set(system=" Be brief. ", temperature="0.5", top_p="0.9", max_tokens="20", seed="-7")
    chat.set(stop="END\n\\n\\n\n\\\\n")
    chat.ask("Hi")
    assert server.body == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 20,
        "seed": -7,
        "stop": ["END", "\n\n", "\\n"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    chat.set(system="", temperature="0", top_p="", max_tokens="", seed="", stop="")
    chat.ask("Hi")
    assert server.body["temperature"] == 0, "which is not nothing"
    assert not {"top_p", "max_tokens", "seed", "stop"} & server.body.keys()
    assert server.body["messages"][0]["role"] == "user"


WRONG = [
    ("temperature", "2.1"), ("temperature", "-1"), ("top_p", "0"), ("top_p", "1.5"),
    ("max_tokens", "0"), ("max_tokens", "1.5"), ("seed", "0.5"), ("seed", "1e300"),
    ("tools", "[{]"), ("tools", '{"type": "function"}'),
]  # fmt: skip


def test_a_wrong_setting_is_named_and_nothing_is_sent(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    for field, value in WRONG:
        chat.set(**{field: value})
        assert page.locator(f"#{field}-problem").inner_text(), (field, value)
        assert page.locator(f"#{field}").get_attribute("aria-invalid") == "true"
        chat.send("Hi")
        assert page.evaluate("document.activeElement.id") == field
        chat.set(**{field: ""})
        assert not page.locator(f"#{field}-problem").inner_text(), (field, value)
    expect(chat.message).to_have_value("Hi")
    chat.message.press("Enter")
    chat.complete()
    assert len(server.recorder.bodies) == 1


def test_an_error_in_mid_stream_is_shown_and_what_came_stays(
    page: Page, server: PageServer
) -> None:
    broken = InternalError("The <b>engine</b> tripped.")
    server.engine.script = lambda index, sampling: [*unfinished(say("So far")), 0.05, broken]
    chat = Chat.ready(page, server)
    expect(chat.ask("Hi")).to_have_text("So far")
    expect(page.get_by_role("alert")).to_have_text("The <b>engine</b> tripped.")
    server.engine.script = lambda index, sampling: say("Better")
    chat.button("Retry").click()
    expect(chat.text).to_have_text("Better")
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(
    "error", [Overloaded("Too many wait.", retry_after_s=7), EngineDead("The engine has ended.")]
)
def test_a_refusal_is_shown_in_the_servers_words(
    page: Page, server: PageServer, error: Any, expected_statuses: set[int]
) -> None:
    expected_statuses.add(503)
    server.engine.refusal = error
    chat = Chat.ready(page, server)
    chat.ask("Hi")
    expect(page.get_by_role("alert")).to_have_text(error.message)
    server.engine.refusal = None
    chat.button("Retry").click()
    expect(chat.text).to_have_text("Hello there!")


def test_a_connection_that_breaks(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    cut = b'data: {"choices":[{"index":0,"delta":{"content":"So"}}]}\n\ndata: {"cho'
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=cut))
    expect(chat.ask("Hi")).to_have_text("So")
    expect(page.get_by_role("alert")).to_have_text("The answer ended before it was complete.")


def test_events_wherever_they_are_cut(page: Page, server: PageServer) -> None:
    Chat.ready(page, server)
    whole = ['{"a": "ü🦙"}', "b\n c", "[DONE]"]
    sizes = [*range(1, 40), 1000]
    assert page.evaluate(READ_EVENTS, sizes) == [whole] * len(sizes)


def test_pings_are_no_text(page: Page, server: PageServer) -> None:
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
    body = b": ping\n\n" + chunk % b"So" + b": ping\n\n" + chunk % b" it is" + b"data: [DONE]\n\n"
    chat = Chat.ready(page, server)
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body))
    expect(chat.ask("Hi")).to_have_text("So it is")


def test_hostile_text_stays_text(page: Page, server: PageServer) -> None:
    everything = "\n\n".join(HOSTILE)
    server.engine.script = lambda index, sampling: say(everything, by=7)
    chat = Chat.ready(page, server)
    text = chat.ask(everything)
    for line in ("<img src=x onerror", "<script>document.title", "<svg onload", "<b>code</b>"):
        expect(text).to_contain_text(line)
    expect(text).to_contain_text("&lt;b&gt; &amp;")
    tags = set(text.evaluate("n => [...n.querySelectorAll('*')].map((x) => x.localName)"))
    assert tags <= {"p", "h3", "ul", "ol", "li", "code", "strong", "em", "pre"} | CODE_FRAME
    assert page.locator(".turn.user .said").evaluate("n => n.childElementCount") == 0
    assert page.locator(".turn.user .said").inner_text().startswith(HOSTILE[0])
    assert page.title() == "Caravan"


def test_a_little_markdown(page: Page, server: PageServer) -> None:
    source = (
        "# Head\nfirst\nsecond **bold** and `a*b` 2 * 3 * 4 snake*case*d *soft* **open\n\n"
        "1. one\n2. two\n   - under\n\n* star\n\n```py\nx = '''\n\n# no heading\n```\nafter"
    )
    server.engine.script = lambda index, sampling: say(source)
    text = Chat.ready(page, server).ask("Hi")
    expect(text.locator("h3")).to_have_text("Head")
    expect(text.locator("strong")).to_have_text(["bold"])
    expect(text.locator("em")).to_have_text(["soft"])
    expect(text.locator(":not(pre) > code")).to_have_text(["a*b"])
    expect(text.locator("ol > li")).to_have_text(["one", "two", "under"])
    expect(text.locator("ul > li")).to_have_text(["star"])
    assert text.locator("pre code").text_content() == "x = '''\n\n# no heading"
    expect(text.locator("p").last).to_have_text("after")
    expect(text.locator("p").first).to_contain_text("2 * 3 * 4 snake*case*d")
    expect(text.locator("p").first).to_contain_text("**open")


def test_code_and_answers_are_copied(page: Page, server: PageServer) -> None:
    source = "So:\n\n```\n a  <b>\n```"
    server.engine.script = lambda index, sampling: say(source)
    chat = Chat.ready(page, server)
    chat.ask("Hi")
    chat.text.get_by_role("button", name="Copy").click()
    expect(chat.toast).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == " a  <b>"
    chat.answer.locator(".actions").get_by_role("button", name="Copy").click()
    page.wait_for_timeout(50)
    assert page.evaluate("navigator.clipboard.readText()") == source


def test_a_long_answer_is_followed_until_the_reader_scrolls_away(
    page: Page, server: PageServer
) -> None:
    gate = Gate()
    lines = "\n\n".join(f"line {i}" for i in range(60))
    server.engine.script = gate.script(unfinished(say(lines, by=5)), say("\n\n" + lines, by=50))
    chat = Chat.ready(page, server)
    chat.send("Hi")
    expect(chat.text).to_contain_text("line 58")
    scroller = page.locator("#scroller")
    left = "n => n.scrollHeight - n.scrollTop - n.clientHeight"
    until(lambda: scroller.evaluate(left) < 5)
    scroller.evaluate("n => { n.scrollTop = 100; }")
    page.wait_for_timeout(50)
    gate.is_open = True
    chat.complete()
    assert scroller.evaluate("n => n.scrollTop") == 100
