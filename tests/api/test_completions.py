"""POST /v1/completions with OpenAI's own client, over a socket."""

from __future__ import annotations

import openai
import pytest

from api.conftest import MODEL
from api.fake_engine import FakeEngine, say, scored

BOS = 256


@pytest.mark.parametrize(
    ("prompt", "submitted"),
    [
        ("ab", [[BOS, 97, 98]]),
        ("", [[BOS]]),
        (["ab", "c"], [[BOS, 97, 98], [BOS, 99]]),
        ([5, 6, 7], [[5, 6, 7]]),
        ([[5, 6], [7]], [[5, 6], [7]]),
    ],
)
def test_forms_of_prompt(
    client: openai.OpenAI,
    engine: FakeEngine,
    prompt: str | list[str] | list[int] | list[list[int]],
    submitted: list[list[int]],
) -> None:
    engine.script = lambda index, sampling: say(f"answer {index}")
    answer = client.completions.create(model=MODEL, prompt=prompt)
    assert [each.prompt for each in engine.submits[0]] == submitted
    assert len(engine.submits) == 1
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert [choice.index for choice in answer.choices] == list(range(len(submitted)))
    assert [choice.text for choice in answer.choices] == [
        f"answer {index}" for index in range(len(submitted))
    ]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(map(len, submitted))


def test_choices_of_a_prompt_stand_together(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: say(str(index))
    answer = client.completions.create(model=MODEL, prompt=["a", "b"], n=3, seed=7)
    assert [each.prompt[1] for each in engine.submits[0]] == [97, 97, 97, 98, 98, 98]
    assert [each.sampling.seed for each in engine.submits[0]] == [7, 8, 9, 7, 8, 9]
    assert [choice.text for choice in answer.choices] == ["0", "1", "2", "3", "4", "5"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4  # each prompt once


def test_sixteen_tokens_unless_asked_for_more(client: openai.OpenAI, engine: FakeEngine) -> None:
    client.completions.create(model=MODEL, prompt="a")
    assert engine.sampling.max_tokens == 16
    client.completions.create(model=MODEL, prompt="a", max_tokens=100)
    assert engine.sampling.max_tokens == 100
    client.completions.create(model=MODEL, prompt=[[1] * 195, [1]])
    assert [each.sampling.max_tokens for each in engine.submits[-1]] == [5, 16]


def test_stream(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: [0.001, *say(f"text {index}")]
    text = ["", ""]
    finishes = []
    with client.completions.create(
        model=MODEL, prompt=["a", "b"], stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    for chunk in chunks[:-1]:
        assert chunk.object == "text_completion"
        assert chunk.usage is None
        for choice in chunk.choices:
            text[choice.index] += choice.text
            finishes += [choice.finish_reason] if choice.finish_reason else []
    assert text == ["text 0", "text 1"]
    assert finishes == ["stop", "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2 * len("text 0") + 2


@pytest.mark.parametrize("by", [1, 2, 7])
def test_logprobs_whole_and_streamed(client: openai.OpenAI, engine: FakeEngine, by: int) -> None:
    engine.script = lambda index, sampling: scored(
        say([*"aé€".encode(), 262, *b"b"], by=by), [(97, -0.5), (98, -1.0)]
    )
    plain = client.completions.create(model=MODEL, prompt="x", logprobs=2).choices[0]
    assert engine.sampling.logprobs == 2
    assert plain.text == "aé€b"
    logprobs = plain.logprobs
    assert logprobs is not None
    assert logprobs.tokens == [
        "a", "bytes:\\xc3", "bytes:\\xa9", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac",
        "<|python_start|>", "b",
    ]  # fmt: skip
    assert logprobs.text_offset == [0, 1, 1, 2, 2, 2, 3, 3]
    assert logprobs.token_logprobs == [-0.5] * 8
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"a": -0.5, "b": -1.0}
    assert logprobs.top_logprobs[1] == {"a": -0.5, "b": -1.0, "bytes:\\xc3": -0.5}

    tokens: list[str] = []
    offsets: list[int] = []
    text = ""
    with client.completions.create(model=MODEL, prompt="x", logprobs=2, stream=True) as stream:
        for chunk in stream:
            [choice] = chunk.choices
            text += choice.text
            if choice.logprobs:
                tokens += choice.logprobs.tokens or []
                offsets += choice.logprobs.text_offset or []
    assert text == plain.text
    assert (tokens, offsets) == (logprobs.tokens, logprobs.text_offset)


def test_a_stop_string_cuts_listed_tokens_too(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: scored(say("abSTOPc"))
    [choice] = client.completions.create(model=MODEL, prompt="x", logprobs=0, stop=["STOP"]).choices
    assert choice.text == "ab"
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["a", "b"]


def test_min_tokens_lets_a_stop_string_pass(client: openai.OpenAI, engine: FakeEngine) -> None:
    engine.script = lambda index, sampling: say("x.y.z")
    [choice] = client.completions.create(
        model=MODEL, prompt="x", stop=".", extra_body={"min_tokens": 3}
    ).choices
    assert engine.sampling.min_tokens == 3
    assert choice.text == "x.y"
