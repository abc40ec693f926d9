"""The engine behind the clients' checks says what its script promises."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from caravan.engine.handle import Submission
from caravan.errors import EngineDead, Overloaded
from caravan.messages import Delta, Sampling
from caravan.text.prompt import Message, Picture, render_chat, render_completion
from caravan.text.tokenizer import Tokenizer
from caravan.text.tool_prompt import Tool
from caravan.tiles import TileGrid
from clients.prompts import OfferedTool, ReadPrompt, Turn, read_prompt
from clients.script import candidates, instance
from clients.scripted_engine import ScriptedEngine, byte_tokenizer, logprob
from reading import deltas_of

CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = Tool("get_weather", parameters=CITY)
TIME = Tool("get_time", parameters={"type": "object", "properties": {"zone": {"type": "string"}}})
SUM = Tool("calculator", "custom")
WEATHER_CALL = '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}'
TIME_CALL = '{"type": "function", "name": "get_time", "parameters": {"zone": "Europe/Paris"}}'
REPORT = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "temperature_c": {"type": "integer"}},
    "additionalProperties": False,
}
REPORTED = '{"city": "Paris", "temperature_c": 21}'
SUM_CALL = "<|python_start|>calculator\n2 + 2<|python_end|>"
GREEDY = Sampling(max_tokens=1000, seed=5)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


@pytest.fixture
def engine(tokenizer: Tokenizer) -> ScriptedEngine:
    return ScriptedEngine(tokenizer)


def chat(tokenizer: Tokenizer, *messages: Message, tools: tuple[Tool, ...] = ()) -> list[int]:
    return render_chat(tokenizer, messages, tools=tools).tokens


def user(text: str) -> Message:
    return Message("user", (text,))


async def deltas(
    engine: ScriptedEngine, submission: Submission, found: list[Delta] | None = None
) -> list[Delta]:
    """All of one request's, added to those in `found`."""
    (generation,) = engine.submit([submission])
    found = [] if found is None else found
    async for delta in deltas_of(generation):
        found.append(delta)
    return found


def text(engine: ScriptedEngine, found: list[Delta]) -> str:
    tokens = [token for delta in found for token in delta.tokens]
    return b"".join(map(engine.tokenizer.token_bytes, tokens)).decode()


def test_a_conversation_is_read_back(tokenizer: Tokenizer) -> None:
    picture = Picture(TileGrid(1, 1), tile_tokens=4)
    tokens = chat(
        tokenizer,
        Message("system", ("Be kind.",)),
        Message("user", ("Look: ", picture)),
        Message("assistant", ("I see.",)),
        Message("tool", ("sunny",)),
        Message("tool", ("noon",)),
        tools=(WEATHER, SUM),
    )
    prompt = read_prompt(tokenizer, tokens)
    assert [turn.role for turn in prompt.turns] == [
        "system",
        "user",
        "assistant",
        "ipython",
        "ipython",
    ]
    assert prompt.turns[1] == Turn("user", "Look: ", num_pictures=1)
    assert prompt.system.startswith("Be kind.\n\n")
    assert prompt.results == ["sunny", "noon"]
    assert prompt.tools == [OfferedTool("get_weather", CITY), OfferedTool("calculator", None)]


def test_a_raw_prompt_is_one_turn(tokenizer: Tokenizer) -> None:
    prompt = read_prompt(tokenizer, render_completion(tokenizer, "count to ten").tokens)
    assert prompt == ReadPrompt([Turn("", "count to ten")])
    assert not prompt.tools
    assert not prompt.results


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("Grüße 👋", "You said: Grüße 👋"),
        ("The seed?", "The seed is 5."),
        ("How is the weather?", WEATHER_CALL),
        ("The weather and the time.", f"{WEATHER_CALL}\n{TIME_CALL}"),
        ("The weather, pythonic", "[get_weather(city='Paris')]"),
        ("Use the calculator", SUM_CALL),
        ("Answer in json", REPORTED),
    ],
)
async def test_answers(engine: ScriptedEngine, said: str, answer: str) -> None:
    prompt = chat(engine.tokenizer, user(said), tools=(WEATHER, TIME, SUM))
    found = await deltas(engine, Submission(prompt, GREEDY))
    assert text(engine, found) == f"{answer}<|eot|>"
    assert [delta.finish for delta in found] == [*[None] * (len(found) - 1), "stop"]
    assert {len(delta.tokens) for delta in found[:-1]} == {1, 2, 3}


async def test_an_answer_to_results_is_no_call(engine: ScriptedEngine) -> None:
    messages = user("How is the weather?"), Message("tool", ("sunny weather",))
    prompt = chat(engine.tokenizer, *messages, tools=(WEATHER,))
    found = await deltas(engine, Submission(prompt, GREEDY))
    assert text(engine, found) == "The result is sunny weather.<|eot|>"


@pytest.mark.parametrize(
    ("grammar", "answer"),
    [
        (r"start: /You said: .*/", "You said: Hello"),
        (r"start: /\{.*get_time.*/", TIME_CALL),
        ("start: <|python_start|> /(.|\\n)*/ <|python_end|>", SUM_CALL),
        (f"start: %json {json.dumps(REPORT)}", REPORTED),
    ],
)
async def test_a_grammar_rules_out_answers(
    engine: ScriptedEngine, grammar: str, answer: str
) -> None:
    prompt = chat(engine.tokenizer, user("Hello"), tools=(WEATHER, TIME, SUM))
    found = await deltas(engine, Submission(prompt, GREEDY, grammar=grammar))
    assert text(engine, found) == f"{answer}<|eot|>"


async def test_a_grammar_that_the_script_cannot_follow(engine: ScriptedEngine) -> None:
    prompt = chat(engine.tokenizer, user("Hello"))
    with pytest.raises(AssertionError, match="nothing that the grammar allows"):
        await deltas(engine, Submission(prompt, GREEDY, grammar='start: "never"'))


async def test_the_limit_of_tokens(engine: ScriptedEngine) -> None:
    submission = Submission(chat(engine.tokenizer, user("count")), Sampling(max_tokens=7))
    found = await deltas(engine, submission)
    assert text(engine, found) == "one two"
    assert found[-1].finish == "length"


async def test_scores(engine: ScriptedEngine) -> None:
    prompt = render_completion(engine.tokenizer, "count").tokens
    sampling = Sampling(max_tokens=4, logprobs=2, prompt_logprobs=0)
    first, second, *others = await deltas(engine, Submission(prompt, sampling))
    scores = [*(first.prompt_logprobs or ()), *(second.prompt_logprobs or ())]
    assert [score.logprob for score in scores] == list(map(logprob, prompt[1:]))
    assert first.tokens == second.tokens == []
    for delta in others:
        assert [score.top[0] for score in delta.logprobs or ()] == [
            (token, logprob(token)) for token in delta.tokens
        ]


async def test_it_dies_in_mid_stream(engine: ScriptedEngine) -> None:
    found: list[Delta] = []
    with pytest.raises(EngineDead):
        await deltas(engine, Submission(chat(engine.tokenizer, user("die")), GREEDY), found)
    assert text(engine, found) == "You said: "


async def test_nothing_comes_after_closing(engine: ScriptedEngine) -> None:
    (generation,) = engine.submit([Submission(chat(engine.tokenizer, user("count")), GREEDY)])
    news = asyncio.Event()
    generation.watch(news.set)
    await news.wait()
    generation.close()
    generation.take()
    for _ in range(10):
        await asyncio.sleep(0)
    assert generation.take() == []


def test_it_is_busy_once_for_each_prompt(engine: ScriptedEngine) -> None:
    for said in ("busy 1", "busy 2"):
        submission = Submission(chat(engine.tokenizer, user(said)), GREEDY)
        with pytest.raises(Overloaded) as refusal:
            engine.submit([submission])
        assert refusal.value.retry_after_s == 1
        assert len(engine.submit([submission])) == 1


def test_the_likeliest_answer_comes_first_and_calls_of_all_tools_are_possible() -> None:
    tools = '\n{"name":"get_time","parameters":{}}\n{"name":"get_weather","parameters":{}}'
    prompt = ReadPrompt([Turn("system", tools), Turn("user", "How is the weather?")])
    called = [json.loads(c)["name"] for c in candidates(prompt, 0) if c.startswith('{"type"')]
    assert called == ["get_weather", "get_weather", "get_time", "get_weather"]


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "object", "properties": {"city": {"type": "string"}}}, {"city": "Paris"}),
        ({"type": "array", "items": {"type": "integer"}}, [21]),
        ({"$defs": {"a": {"enum": ["b", "c"]}}, "$ref": "#/$defs/a"}, "b"),
        ({"anyOf": [{"const": 3}, {"type": "null"}]}, 3),
        ({}, {}),
    ],
)
def test_instances(schema: dict[str, Any], value: object) -> None:
    assert instance(schema) == value
