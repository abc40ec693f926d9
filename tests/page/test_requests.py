"""Tools, JSON, and the same request as a command and as a program, which must run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from api.fake_engine import HANG, say
from page.chat import Chat
from page.page_server import PageServer, unfinished, until

TOOL_NAMES = ("get_weather", "get_time")
HOSTILE = (
    'it\'s "quoted" $HOME `id` \\ \\n %s !! \n\t<b> é🦙 \u2028 \x7f \'\'\'\n"""\nEND_OF_BODY\n'
)
RUN_S = 60


def call(name: str, **parameters: Any) -> str:
    return json.dumps({"type": "function", "name": name, "parameters": parameters})


def use_tools(chat: Chat, *names: str) -> list[dict[str, Any]]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    chat.set(tools=json.dumps(tools))
    return tools


def test_a_tool_call_and_its_result(page: Page, server: PageServer) -> None:
    server.engine.script = lambda index, sampling: say(call("get_weather", city="<b>Lima</b>"))
    chat = Chat.ready(page, server)
    chat.button("What is the weather in Lima?").click()
    chat.complete()
    assert server.body["tools"][0]["function"]["name"] == "get_weather"
    assert server.body["tools"][0]["function"]["parameters"]["required"] == ["city"]
    shown = chat.answer.locator(".call")
    expect(shown.locator("strong")).to_have_text("get_weather")
    expect(shown.locator("th")).to_have_text("city")
    expect(shown.locator("td")).to_have_text("<b>Lima</b>")
    expect(page.locator("#badges")).to_contain_text("get_weather")
    server.engine.script = lambda index, sampling: say("It is 19 degrees.")
    result = page.get_by_role("textbox", name="Result of get_weather")
    expect(result).to_be_focused()
    result.fill('{"degrees": 19}')
    result.press("Enter")
    expect(chat.complete()).to_have_text("It is 19 degrees.")
    expect(page.locator(".turn.tool th")).to_have_text("degrees")
    expect(result).to_have_count(0)
    question, called, answered = server.body["messages"]
    assert question == {"role": "user", "content": "What is the weather in Lima?"}
    (made,) = called["tool_calls"]
    assert (called["role"], "content" in called) == ("assistant", False)
    assert json.loads(made["function"]["arguments"]) == {"city": "<b>Lima</b>"}
    expected = {"role": "tool", "tool_call_id": made["id"], "content": '{"degrees": 19}'}
    assert answered == expected
    chat.button("Retry").click()
    chat.complete()
    assert server.body["messages"] == [question, called, answered]


def test_several_calls_need_a_result_each(page: Page, server: PageServer) -> None:
    calls = [call("get_weather", place={"city": "Lima", "days": [1, 2]}), call("get_time")]
    server.engine.script = lambda index, sampling: say("\n".join(calls))
    chat = Chat.ready(page, server)
    use_tools(chat, *TOOL_NAMES)
    chat.ask("Hi")
    expect(chat.answer.locator(".call strong")).to_have_text([*TOOL_NAMES])
    expect(chat.answer.locator(".call").first.locator("pre")).to_contain_text('"days": [')
    expect(chat.answer.locator(".call").last).to_contain_text("no arguments")
    weather, clock = (page.get_by_role("textbox", name=f"Result of {n}") for n in TOOL_NAMES)
    weather.fill("rain")
    chat.button("Send results").click()
    expect(clock).to_be_focused()
    assert len(server.recorder.bodies) == 1
    clock.fill("noon")
    server.engine.script = lambda index, sampling: say("Rain at noon.")
    chat.button("Send results").click()
    expect(chat.complete()).to_have_text("Rain at noon.")
    *_, called, first, second = server.body["messages"]
    assert [first["content"], second["content"]] == ["rain", "noon"]
    ids = [made["id"] for made in called["tool_calls"]]
    assert [first["tool_call_id"], second["tool_call_id"]] == ids


def test_a_message_may_come_in_place_of_a_result(page: Page, server: PageServer) -> None:
    server.engine.script = lambda index, sampling: say(call("get_time"))
    chat = Chat.ready(page, server)
    use_tools(chat, "get_time")
    chat.ask("Hi")
    server.engine.script = lambda index, sampling: say("Fine.")
    expect(chat.ask("Never mind")).to_have_text("Fine.")
    expect(page.locator(".results")).to_have_count(0)
    assert [m["role"] for m in server.body["messages"]] == ["user", "assistant", "user"]


def test_half_a_call_is_no_call(page: Page, server: PageServer) -> None:
    half = unfinished(say(call("get_weather", city="Lima" * 20)))[:-50]
    server.engine.script = lambda index, sampling: [*half, HANG]
    chat = Chat.ready(page, server)
    use_tools(chat, "get_weather")
    chat.send("Hi")
    expect(chat.answer.locator(".call")).to_contain_text("LimaLima")
    page.keyboard.press("Escape")
    chat.complete()
    expect(page.locator(".results")).to_have_count(0)
    until(lambda: server.engine.all_closed)
    server.engine.script = lambda index, sampling: say("Yes.")
    chat.ask("Again")
    assert [m["role"] for m in server.body["messages"]] == ["user", "user"]


def test_json_modes(page: Page, server: PageServer) -> None:
    server.engine.script = lambda index, sampling: say('{"a": 1}')
    chat = Chat.ready(page, server)
    expect(page.locator("#schema")).to_be_hidden()
    page.locator("#format").select_option("json_object")
    chat.ask("Hi")
    assert server.body["response_format"] == {"type": "json_object"}
    page.locator("#format").select_option("json_schema")
    schema = page.locator("#schema")
    assert json.loads(schema.input_value())["type"] == "object", "an example to begin with"
    schema.fill('{"type": ')
    expect(page.locator("#schema-problem")).to_have_text("This is not JSON yet.")
    schema.fill('{"type": "object"}')
    chat.ask("Hi")
    described = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert server.body["response_format"] == {"type": "json_schema", "json_schema": described}
    page.locator("#format").select_option("off")
    chat.ask("Hi")
    assert "response_format" not in server.body


def test_an_example_does_not_leave_its_settings_to_the_next(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    chat.button("What is the weather in Lima?").click()
    chat.complete()
    chat.button("New chat").click()
    chat.button("The capital of Norway, in JSON").click()
    chat.complete()
    assert "tools" not in server.body
    assert server.body["response_format"]["type"] == "json_schema"
    chat.button("New chat").click()
    chat.button("What is 17 + 25?").click()
    chat.complete()
    assert not {"tools", "response_format"} & server.body.keys()


def run(text: str, *command: str, **variables: str) -> str:
    """What a text does as a program's standard input."""
    return subprocess.run(
        command,
        input=text,
        env={**os.environ, "NO_PROXY": "*", **variables},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=True,
    ).stdout


def bash(text: str, **variables: str) -> str:
    return run(text, "bash", "-euo", "pipefail", **variables)


def python(text: str, **variables: str) -> str:
    return run(text, sys.executable, "-", **variables)


@pytest.fixture
def asked(page: Page, server: PageServer) -> Chat:
    """A conversation with everything in it, and a message that is not sent yet."""
    server.engine.script = lambda index, sampling: say(call("get_time", zone=HOSTILE))
    chat = Chat.ready(page, server)
    use_tools(chat, *TOOL_NAMES)
    chat.set(system=HOSTILE, temperature="0.5", seed="-3", stop="a'b\n\\n", max_tokens="900")
    page.locator("#gallery button").first.click()
    chat.ask(HOSTILE)
    server.engine.script = lambda index, sampling: say("First.")
    page.get_by_role("textbox", name="Result of get_time").fill(HOSTILE)
    chat.button("Send result").click()
    expect(chat.complete()).to_have_text("First.")
    chat.message.fill(HOSTILE)
    server.engine.script = lambda index, sampling: say("It's é🦙.")
    return chat


def test_the_copied_requests_are_the_one_that_is_sent(asked: Chat, server: PageServer) -> None:
    command, program = asked.copied("Copy as curl"), asked.copied("Copy as Python")
    assert "Authorization" not in command
    assert "environ" not in program
    events = [line for line in bash(command).splitlines() if line.startswith("data: {")]
    pieces = [json.loads(line[6:])["choices"] for line in events]
    said = "".join(c[0]["delta"].get("content") or "" for c in pieces if c)
    assert said == "It's é🦙."
    assert python(program, PYTHONIOENCODING="utf-8") == "It's é🦙.\n"
    asked.message.press("Enter")
    asked.complete()
    *_, by_curl, by_python, by_page = server.recorder.bodies
    assert by_curl == by_page
    assert by_python == by_page
    assert len(by_page["messages"]) == 6
    assert by_page["messages"][-1]["content"] == HOSTILE.strip()


def test_a_large_request_goes_through_a_pipe(
    page: Page, server: PageServer, tmp_path: Path
) -> None:
    path = tmp_path / "large.png"
    Image.effect_noise((500, 500), 90).save(path)
    chat = Chat.ready(page, server)
    page.locator("#picker").set_input_files(path)
    expect(chat.attachments).to_have_count(1)
    chat.message.fill(HOSTILE)
    command = chat.copied("Copy as curl")
    assert len(command) > 128 * 1024, "more than one argument may have"
    assert "data: [DONE]" in bash(command)
    assert python(chat.copied("Copy as Python")) == "Hello there!\n"
    chat.message.press("Enter")
    chat.complete()
    by_curl, by_python, by_page = server.recorder.bodies
    assert by_curl == by_python == by_page


def test_without_a_message_the_last_request_is_copied(page: Page, server: PageServer) -> None:
    chat = Chat.ready(page, server)
    chat.button("Copy as curl").click()
    expect(chat.toast).to_contain_text("write a message first")
    chat.ask("Hi")
    bash(chat.copied("Copy as curl"))
    assert server.recorder.bodies[0] == server.recorder.bodies[1]


def test_a_tool_call_is_printed_by_the_copied_program(page: Page, server: PageServer) -> None:
    server.engine.script = lambda index, sampling: say(call("get_time"))
    chat = Chat.ready(page, server)
    use_tools(chat, "get_time")
    chat.message.fill("Hi")
    assert '"name":"get_time"' in python(chat.copied("Copy as Python"))


def test_the_key_is_never_copied(
    page: Page, locked_server: PageServer, expected_statuses: set[int]
) -> None:
    expected_statuses.add(401)
    _, key = locked_server.keys
    chat = Chat(page, locked_server)
    chat.set(key=key)
    page.locator("#key").press("Enter")
    page.locator("#status[data-state=ready]").wait_for()
    chat.message.fill("Hi")
    command, program = chat.copied("Copy as curl"), chat.copied("Copy as Python")
    assert key not in command + program
    assert "data: [DONE]" in bash(command, CARAVAN_API_KEY=key)
    assert "invalid_api_key" in bash(command, CARAVAN_API_KEY="wrong")
    assert python(program, CARAVAN_API_KEY=key) == "Hello there!\n"


def test_without_the_clipboards_own_interface(page: Page, server: PageServer) -> None:
    """As on a page that came over plain HTTP from another machine."""
    chat = Chat.ready(page, server)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { configurable: true })")
    chat.message.fill("Hi")
    chat.button("Copy as curl").click()
    expect(chat.toast).to_contain_text("clipboard")
    page.evaluate("delete navigator.clipboard")
    assert str(page.evaluate("navigator.clipboard.readText()")).startswith("curl ")
