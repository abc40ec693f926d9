"""POST /v1/chat/completions with OpenAI's own client, over a socket."""

from __future__ import annotations

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from api.conftest import MODEL
from api.fake_engine import FakeEngine, say, scored
from caravan.text.tokenizer import Tokenizer

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi"}]


def test_plain(client: openai.OpenAI, engine: FakeEngine) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.system_fingerprint == "fp-test"
    [choice] = answer.choices
    assert choice.index == 0
    assert choice.message.role == "assistant"
    assert choice.message.content == "Hello there!"
    assert choice.message.refusal is None
    assert choice.finish_reason == "stop"
    assert choice.logprobs is None
    prompt = len(engine.submits[0][0][0])
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": prompt,
        "completion_tokens": len("Hello there!") + 1,
        "total_tokens": prompt + len("Hello there!") + 1,
        "prompt_tokens_details": {
            "cached_tokens": 0,
            "text_tokens": prompt,
            "image_tokens": 0,
        },
    }
    assert engine.all_closed
    assert engine.sampling.max_tokens == 200 - prompt


def test_prompt_is_the_chat_format(
    client: openai.OpenAI, engine: FakeEngine, tokenizer: Tokenizer
) -> None:
    client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Be <|eot|>."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "2"}, {"type": "text", "text": "+2"}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
        ],
    )
    prompt = engine.submits[0][0][0]
    text = b"".join(map(tokenizer.token_bytes, prompt)).decode()
    assert text == (
        "<|begin_of_text|><|header_start|>system<|header_end|>\n\nBe <|eot|>.<|eot|>"
        "<|header_start|>user<|header_end|>\n\n2+2<|eot|>"
        '<|header_start|>assistant<|header_end|>\n\n{"type": "function", "name": "add", '
        '"parameters": {}}<|eom|>'
        "<|header_start|>ipython<|header_end|>\n\n4<|eom|>"
        "<|header_start|>assistant<|header_end|>\n\n"
    )
    # The client's own <|eot|> is text: the special token occurs twice only.
    assert prompt.count(tokenizer.special_id("<|eot|>")) == 2


def test_stream_of_several_choices(client: openai.OpenAI, engine: FakeEngine) -> None:
    answers = ["first", "the second", "3"]
    engine.script = lambda index, sampling: [0.002 * (3 - index), *say(answers[index])]
    text = ["", "", ""]
    finishes: list[tuple[int, str]] = []
    roles = []
    usage = None
    with client.chat.completions.create(
        model=MODEL, messages=HELLO, n=3, stream=True, stream_options={"include_usage": True}
    ) as stream:
        for chunk in stream:
            assert chunk.object == "chat.completion.chunk"
            for choice in chunk.choices:
                if choice.delta.role:
                    roles.append(choice.index)
                text[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    finishes.append((choice.index, choice.finish_reason))
            usage = chunk.usage
    assert text == answers
    assert roles == [0, 1, 2]
    assert sorted(finishes) == [(0, "stop"), (1, "stop"), (2, "stop")]
    assert usage is not None
    assert usage.prompt_tokens == len(engine.submits[0][0][0])
    assert usage.completion_tokens == sum(len(answer) + 1 for answer in answers)


@pytest.mark.parametrize("n", [1, 4])
def test_stream_helper_accumulates_the_same_answer(
    client: openai.OpenAI, engine: FakeEngine, n: int
) -> None:
    engine.script = lambda index, sampling: scored(say(f"Grüße № {index}", by=2), [(1, -0.25)])
    plain = client.chat.completions.create(
        model=MODEL, messages=HELLO, n=n, logprobs=True, top_logprobs=1
    )
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, n=n, logprobs=True, top_logprobs=1
    ) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion()
    for one, other in zip(plain.choices, streamed.choices, strict=True):
        assert other.message.content == one.message.content == f"Grüße № {one.index}"
        assert other.finish_reason == one.finish_reason
        assert other.logprobs is not None
        assert one.logprobs is not None
        assert other.logprobs.content == one.logprobs.content


def test_logprobs(client: openai.OpenAI, engine: FakeEngine) -> None:
    best = [(ord("é"), float("-inf")), (261, -2.0)]
    engine.script = lambda index, sampling: scored(say("né"), best)
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, logprobs=True, top_logprobs=2
    )
    [choice] = answer.choices
    assert engine.sampling.logprobs == 2
    assert choice.logprobs is not None
    assert choice.logprobs.refusal is None
    content = choice.logprobs.content
    assert content is not None
    assert [entry.token for entry in content] == ["n", "bytes:\\xc3", "bytes:\\xa9"]
    assert bytes(byte for entry in content for byte in entry.bytes or ()) == "né".encode()
    assert [entry.logprob for entry in content] == [-0.5] * 3
    impossible, special = content[0].top_logprobs
    assert impossible.logprob == -9999.0
    assert (special.token, special.bytes) == ("<|eot|>", None)


def test_logprobs_without_top(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: scored(say("a"))
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, logprobs=True)
    assert engine.sampling.logprobs == 0
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].top_logprobs == []


def test_a_special_token_inside_the_answer_has_no_text(
    client: openai.OpenAI, engine: FakeEngine
) -> None:
    """Such as <|python_start|> before a tool call, or an end token under `ignore_eos`."""
    engine.script = lambda index, sampling: scored(say([97, 262, 98, 262]))
    with client.chat.completions.stream(model=MODEL, messages=HELLO, logprobs=True) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0]
    plain = client.chat.completions.create(model=MODEL, messages=HELLO, logprobs=True).choices[0]
    assert plain.message.content == streamed.message.content == "ab"
    assert plain.logprobs is not None
    assert streamed.logprobs is not None
    assert plain.logprobs.content == streamed.logprobs.content
    assert plain.logprobs.content is not None
    assert [(entry.token, entry.bytes) for entry in plain.logprobs.content] == [
        ("a", [97]),
        ("<|python_start|>", None),
        ("b", [98]),
        ("<|python_start|>", None),
    ]


@pytest.mark.parametrize("by", [1, 3, 100])
def test_stop_string(client: openai.OpenAI, engine: FakeEngine, by: int) -> None:
    engine.script = lambda index, sampling: [*say("one, two, three", by=by), *say("never")]
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, stop=[", three", ", two"])
    [choice] = answer.choices
    assert choice.message.content == "one"
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len("one, two")
    assert engine.all_closed
    assert engine.generations[0].finished == (by == 100)


def test_stop_string_in_a_stream_never_leaks(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [
        part for step in say("abcSTOPdef") for part in (step, 0.001)
    ]
    with client.chat.completions.create(
        model=MODEL, messages=HELLO, stop="STOP", stream=True
    ) as stream:
        deltas = [chunk.choices[0] for chunk in stream]
    assert "".join(choice.delta.content or "" for choice in deltas) == "abc"
    assert [choice.finish_reason for choice in deltas][-1] == "stop"
    assert not engine.generations[0].finished


def test_length(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: say("abc", finish="length")
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, max_completion_tokens=3)
    assert engine.sampling.max_tokens == 3
    assert answer.choices[0].message.content == "abc"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_cached_tokens_are_those_of_the_first_choice(
    client: openai.OpenAI, engine: FakeEngine
) -> None:
    engine.script = lambda index, sampling: say("a", cached=4 if index == 0 else 8)
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, n=2)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 4


def test_unfinished_character_at_the_end(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: say("€".encode()[:2], finish="length")
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.choices[0].message.content == "\N{REPLACEMENT CHARACTER}"
