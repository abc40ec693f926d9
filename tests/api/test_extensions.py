"""Fields beside OpenAI's, and fields of OpenAI's that only say something about the request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from api.conftest import MODEL
from api.fake_engine import EOT, FakeEngine, Step, say
from caravan.config import ApiConfig
from caravan.messages import Delta, TokenLogprobs
from caravan.text.tokenizer import Tokenizer

USER = {"role": "user", "content": "Hi"}
CHAT = {"model": MODEL, "messages": [USER]}
RAW = {"model": MODEL, "prompt": "abc"}


async def chat(http: httpx.AsyncClient, **fields: Any) -> Any:
    response = await http.post("/v1/chat/completions", json={**CHAT, **fields})
    assert response.status_code == 200, response.text
    return response.json()


async def streamed(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> list[Any]:
    response = await http.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False},
        {"modalities": ["text"]},
        {"reasoning_effort": "none"},
        {"verbosity": "medium"},
        {"user": "u-1", "safety_identifier": "s-1"},
        {"prompt_cache_key": "k", "prompt_cache_retention": "in_memory", "cache_salt": "salt"},
        {"response_format": {"type": "text"}},
        {"tools": []},
        {"tools": [], "tool_choice": "none"},
        {"parallel_tool_calls": False},
        {"logprobs": False, "top_logprobs": 0},
    ],
)
async def test_values_that_change_nothing_are_obeyed(
    http: httpx.AsyncClient, engine: FakeEngine, fields: dict[str, Any]
) -> None:
    answer = await chat(http, **fields)
    assert answer["choices"][0]["message"]["content"] == "Hello there!"
    assert engine.submits[0][0].grammar is None
    plain = await chat(http)
    assert plain["usage"] == answer["usage"]


@pytest.mark.parametrize(
    ("tier", "told", "priority"),
    [
        ("auto", "default", 0),
        ("default", "default", 0),
        ("priority", "default", 0),
        ("flex", "flex", 100),
    ],
)
async def test_who_names_a_tier_is_told_which_one_it_was(
    http: httpx.AsyncClient, engine: FakeEngine, tier: str, told: str, priority: int
) -> None:
    answer = await chat(http, service_tier=tier)
    assert answer["service_tier"] == told
    assert engine.submits[0][0].priority == priority
    chunks = await streamed(http, "/v1/chat/completions", {**CHAT, "service_tier": tier})
    assert {chunk["service_tier"] for chunk in chunks} == {told}
    assert "service_tier" not in await chat(http)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_priority_goes_to_the_engine(
    http: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    body = CHAT if "chat" in path else RAW
    assert (await http.post(path, json={**body, "priority": 7, "n": 2})).status_code == 200
    assert [each.priority for each in engine.submits[0]] == [7, 7]


async def test_choices_name_the_prompt_that_they_share(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await http.post("/v1/completions", json={**RAW, "prompt": ["a", "b"], "n": 3})
    assert [each.prompt_of for each in engine.submits[0]] == [None, 0, 0, None, 3, 3]


async def test_token_ids_in_an_answer(
    http: httpx.AsyncClient, engine: FakeEngine, tokenizer: Tokenizer
) -> None:
    answer = await chat(http, return_token_ids=True)
    assert answer["prompt_token_ids"] == engine.submits[0][0].prompt
    assert answer["choices"][0]["token_ids"] == [*b"Hello there!", EOT]
    raw = (await http.post("/v1/completions", json={**RAW, "return_token_ids": True})).json()
    [choice] = raw["choices"]
    assert choice["prompt_token_ids"] == [tokenizer.bos_id, *b"abc"]
    assert choice["token_ids"] == [*b"Hello there!", EOT]
    plain = await chat(http)
    assert "prompt_token_ids" not in plain
    assert "token_ids" not in plain["choices"][0]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_token_ids_in_a_stream(
    http: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    """A character of several tokens: their ids come with it."""
    engine.script = lambda index, sampling: say("aé🦙")
    body = CHAT if "chat" in path else RAW
    chunks = await streamed(http, path, {**body, "return_token_ids": True, "n": 2})
    for index in range(2):
        choices = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        ids = [token for choice in choices for token in choice.get("token_ids", [])]
        assert ids == [*"aé🦙".encode(), EOT]
    told = [chunk.get("prompt_token_ids") for chunk in chunks if "prompt_token_ids" in chunk]
    told += [
        c["choices"][0]["prompt_token_ids"] for c in chunks if "prompt_token_ids" in c["choices"][0]
    ]
    assert told
    assert all(ids == engine.submits[0][0].prompt for ids in told)


def scoring(text: str, prompt: list[int]) -> list[Step]:
    """Scores of a prompt, told in two parts, and then the text."""
    entries = [
        TokenLogprobs(-i / 8, [(token, -i / 8), (5, -9.0)]) for i, token in enumerate(prompt)
    ]
    first, second = entries[1:3], entries[3:]
    scores: list[Step] = [Delta(0, [], prompt_logprobs=first)]
    return [*scores, Delta(0, [], prompt_logprobs=second), *say(text)]


async def test_prompt_logprobs_of_a_chat(
    http: httpx.AsyncClient, engine: FakeEngine, tokenizer: Tokenizer
) -> None:
    plain = await chat(http)
    prompt = engine.submits[0][0].prompt
    assert "prompt_logprobs" not in plain
    engine.script = lambda index, sampling: say("ok") if index else scoring("ok", prompt)
    answer = await chat(http, prompt_logprobs=1, n=2)
    assert [each.sampling.prompt_logprobs for each in engine.submits[-1]] == [1, None]
    listed = answer["prompt_logprobs"]
    assert len(listed) == len(prompt)
    assert listed[0] is None
    for index, entry in enumerate(listed[1:], 1):
        name = tokenizer.token_bytes(prompt[index]).decode()
        assert entry == {
            str(prompt[index]): {"logprob": -index / 8, "rank": 1, "decoded_token": name}
        }


async def test_prompt_logprobs_of_a_completion(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: scoring("ok", [256, *b"abc"])
    body = {**RAW, "prompt_logprobs": 2, "max_tokens": 0}
    answer = (await http.post("/v1/completions", json=body)).json()
    [choice] = answer["choices"]
    assert choice["text"] == ""
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0
    assert [len(entry or {}) for entry in choice["prompt_logprobs"]] == [0, 2, 2, 2]


async def test_truncation_keeps_the_end(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    await http.post("/v1/completions", json={**RAW, "truncate_prompt_tokens": 2})
    await http.post("/v1/completions", json={**RAW, "truncate_prompt_tokens": 4})
    await http.post(
        "/v1/completions", json={**RAW, "prompt": [[1, 2, 3], [4]], "truncate_prompt_tokens": 2}
    )
    prompts = [each.prompt for submit in engine.submits for each in submit]
    assert prompts == [[*b"bc"], [256, *b"abc"], [2, 3], [4]]
    await chat(http, truncate_prompt_tokens=5)
    whole = await chat(http)
    assert len(engine.submits[-2][0].prompt) == 5
    assert engine.submits[-1][0].prompt[-5:] == engine.submits[-2][0].prompt
    assert whole["usage"]["prompt_tokens"] > 5


async def test_special_tokens_are_shown_on_request(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.script = lambda index, sampling: say([*b"a", 258, *b"b"])  # <|header_start|>
    assert (await chat(http))["choices"][0]["message"]["content"] == "ab"
    shown = await chat(http, skip_special_tokens=False)
    assert shown["choices"][0]["message"]["content"] == "a<|header_start|>b"
    body = {**RAW, "skip_special_tokens": False, "logprobs": 0, "echo": True}
    engine.script = lambda index, sampling: [
        Delta(0, [], prompt_logprobs=[TokenLogprobs(-1.0, [])] * 3),
        Delta(0, [97, 258, 98], [TokenLogprobs(-1.0, [])] * 3, "length"),
    ]
    [choice] = (await http.post("/v1/completions", json=body)).json()["choices"]
    assert choice["text"] == "abca<|header_start|>b"
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3, 4, 20]


@pytest.mark.parametrize("stop", ["the", "ere!"])
async def test_a_stop_string_stays_on_request(http: httpx.AsyncClient, stop: str) -> None:
    answer = await chat(http, stop=stop, include_stop_str_in_output=True)
    said = answer["choices"][0]["message"]["content"]
    assert said == "Hello there!"[: "Hello there!".index(stop) + len(stop)]
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_the_generation_prompt_can_be_left_out(
    http: httpx.AsyncClient, engine: FakeEngine, tokenizer: Tokenizer
) -> None:
    await chat(http)
    await chat(http, add_generation_prompt=False)
    with_prompt, without = (submit[0].prompt for submit in engine.submits)
    assert with_prompt[: len(without)] == without
    assert tokenizer.decode(with_prompt[len(without) :]) == "assistant\n\n"


@pytest.mark.parametrize("explicit", [{}, {"add_generation_prompt": False}])
async def test_a_final_message_is_continued(
    http: httpx.AsyncClient, engine: FakeEngine, tokenizer: Tokenizer, explicit: dict[str, Any]
) -> None:
    messages = [USER, {"role": "assistant", "content": "Once upon"}]
    await chat(http, messages=messages, continue_final_message=True, **explicit)
    prompt = engine.submits[0][0].prompt
    assert tokenizer.decode(prompt).endswith("assistant\n\nOnce upon")
    assert prompt[-1] == ord("n"), "the message is open"


async def test_usage_on_every_chunk_on_request(http: httpx.AsyncClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await streamed(http, "/v1/chat/completions", {**CHAT, "stream_options": options})
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == len("Hello there!") + 1
    assert len(set(counts)) > 5


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_obfuscation_makes_events_equally_long(
    http: httpx.AsyncClient, engine: FakeEngine, path: str
) -> None:
    engine.script = lambda index, sampling: say("a bb ccc\n🦙 dddd", by=3)
    body = {**(CHAT if "chat" in path else RAW), "stream_options": {"include_obfuscation": True}}
    response = await http.post(path, json={**body, "stream": True})
    parts = [part for part in response.content.split(b"\n\n") if part.startswith(b"data: {")]
    assert len({len(part) for part in parts[:-1]}) == 1
    padding = [json.loads(part[6:])["obfuscation"] for part in parts]
    assert len(set(padding)) == len(padding)
    plain = await http.post(path, json={**(CHAT if "chat" in path else RAW), "stream": True})
    assert b"obfuscation" not in plain.content


class TestIgnoredFields:
    CONFIG = ApiConfig(ignore_unknown_fields=True)

    @pytest.mark.parametrize("config", [CONFIG])
    @pytest.mark.parametrize("stream", [False, True])
    async def test_what_is_ignored_is_named_in_a_header(
        self, http: httpx.AsyncClient, config: ApiConfig, stream: bool
    ) -> None:
        body = {
            **CHAT,
            "messages": [{**USER, "name": "me", "mood": "good"}],
            "foo": 1,
            "metadata": {"a": "b"},
            "stream": stream,
        }
        response = await http.post("/v1/chat/completions", json=body)
        assert response.status_code == 200, response.text
        named = response.headers["x-caravan-ignored-fields"].split(", ")
        assert sorted(named) == ["foo", "messages[0].mood", "messages[0].name", "metadata"]

    @pytest.mark.parametrize("config", [CONFIG])
    async def test_other_mistakes_are_refused_all_the_same(
        self, http: httpx.AsyncClient, config: ApiConfig
    ) -> None:
        for fields in ({"n": 0}, {"foo": 1, "temperature": 9}):
            response = await http.post("/v1/chat/completions", json={**CHAT, **fields})
            assert response.status_code == 400
        many = dict.fromkeys(map(str, range(40)), 1)
        response = await http.post("/v1/chat/completions", json={**CHAT, **many})
        assert response.json()["error"]["code"] == "unknown_parameter"

    async def test_without_the_flag_there_is_no_header(self, http: httpx.AsyncClient) -> None:
        response = await http.post("/v1/chat/completions", json=CHAT)
        assert "x-caravan-ignored-fields" not in response.headers
