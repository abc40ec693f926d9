"""POST /v1/completions with OpenAI's own client, over a socket."""

from __future__ import annotations

import openai
import pytest

from api.conftest import MODEL
from api.fake_engine import FakeEngine, Step, say, scored
from caravan.messages import Delta, Sampling, TokenLogprobs

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


def prompt_scores(*values: float) -> Delta:
    return Delta(0, [], prompt_logprobs=[TokenLogprobs(value, [(97, -0.5)]) for value in values])


class TestEcho:
    def test_the_prompt_stands_in_front(self, client: openai.OpenAI, engine: FakeEngine) -> None:
        answer = client.completions.create(model=MODEL, prompt=["ab", "é"], echo=True, n=2)
        assert [choice.text for choice in answer.choices] == [
            "abHello there!", "abHello there!", "éHello there!", "éHello there!",
        ]  # fmt: skip
        assert engine.sampling.prompt_logprobs is None

    def test_the_log_likelihood_of_token_ids(
        self, client: openai.OpenAI, engine: FakeEngine
    ) -> None:
        """As lm-eval asks: one entry for each id that was sent, the first of them unknown."""
        engine.script = lambda index, sampling: [
            prompt_scores(-1.0, -2.0), *scored(say("x", finish="length")),
        ]  # fmt: skip
        answer = client.completions.create(
            model=MODEL, prompt=[[97, 98, 99]], echo=True, logprobs=1, max_tokens=1
        )
        [choice] = answer.choices
        assert choice.text == "abcx"
        assert choice.logprobs is not None
        assert choice.logprobs.tokens == ["a", "b", "c", "x"]
        assert choice.logprobs.token_logprobs == [None, -1.0, -2.0, -0.5]
        assert choice.logprobs.top_logprobs == [
            None, {"a": -0.5, "b": -1.0}, {"a": -0.5, "c": -2.0}, {"x": -0.5},
        ]  # fmt: skip
        assert choice.logprobs.text_offset == [0, 1, 2, 3]
        assert engine.sampling.prompt_logprobs == 1

    def test_of_a_text_every_token_is_known(
        self, client: openai.OpenAI, engine: FakeEngine
    ) -> None:
        """It stands behind <|begin_of_text|>, which the client did not send and does not get."""
        engine.script = lambda index, sampling: [
            prompt_scores(-1.0, -2.0), *scored(say("x", finish="length")),
        ]  # fmt: skip
        answer = client.completions.create(model=MODEL, prompt="ab", echo=True, logprobs=0)
        assert answer.choices[0].logprobs is not None
        assert answer.choices[0].logprobs.tokens == ["a", "b", "x"]
        assert answer.choices[0].logprobs.token_logprobs == [-1.0, -2.0, -0.5]

    def test_without_a_token_of_its_own(self, client: openai.OpenAI, engine: FakeEngine) -> None:
        engine.script = lambda index, sampling: [
            prompt_scores(-1.0, -2.0), *scored(say("x", finish="length")),
        ]  # fmt: skip
        answer = client.completions.create(
            model=MODEL, prompt="ab", echo=True, logprobs=1, max_tokens=0
        )
        [choice] = answer.choices
        assert (choice.text, choice.finish_reason) == ("ab", "length")
        assert choice.logprobs is not None
        assert choice.logprobs.tokens == ["a", "b"]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 0
        assert engine.sampling.max_tokens == 1
        assert engine.all_closed

    def test_only_the_first_choice_scores_the_prompt_of_all(
        self, client: openai.OpenAI, engine: FakeEngine
    ) -> None:
        def script(index: int, sampling: Sampling) -> list[Step]:
            scores: list[Step] = [] if index % 2 else [prompt_scores(-1.0, -2.0)]
            return [*scores, *scored(say("x", finish="length"))]

        engine.script = script
        answer = client.completions.create(
            model=MODEL, prompt=["ab", "ba"], echo=True, logprobs=0, n=2
        )
        asked = [each.sampling.prompt_logprobs for each in engine.submits[0]]
        assert asked == [0, None, 0, None]
        for choice in answer.choices:
            assert choice.logprobs is not None
            assert choice.logprobs.token_logprobs == [-1.0, -2.0, -0.5]

    def test_in_a_stream(self, client: openai.OpenAI, engine: FakeEngine) -> None:
        engine.script = lambda index, sampling: [
            prompt_scores(-1.0), prompt_scores(-2.0), *scored(say("xyz", finish="length")),
        ]  # fmt: skip
        with client.completions.create(
            model=MODEL, prompt="ab", echo=True, logprobs=0, stream=True
        ) as stream:
            choices = [chunk.choices[0] for chunk in stream]
        assert "".join(choice.text for choice in choices) == "abxyz"
        assert choices[0].text.startswith("ab")
        lists = [choice.logprobs for choice in choices if choice.logprobs]
        assert [token for part in lists for token in part.tokens or []] == list("abxyz")
        assert [offset for part in lists for offset in part.text_offset or []] == [0, 1, 2, 3, 4]


class TestBestOf:
    def script(self, engine: FakeEngine) -> None:
        """Choice i says its number, with a mean log-probability that is best for 2, then 0."""
        means = [-1.0, -3.0, -0.5, -2.0]

        def steps(index: int, sampling: Sampling) -> list[Step]:
            logprobs = [TokenLogprobs(means[index % 4], [])]
            count = 1 + index % 4  # longer texts, worse sums
            return [
                *(Delta(0, [48 + index % 4], logprobs) for _ in range(count - 1)),
                Delta(0, [48 + index % 4], logprobs, "length"),
            ]

        engine.script = steps

    def test_the_likeliest_per_token_are_told(
        self, client: openai.OpenAI, engine: FakeEngine
    ) -> None:
        self.script(engine)
        answer = client.completions.create(model=MODEL, prompt="a", best_of=4, n=2)
        assert [choice.text for choice in answer.choices] == ["222", "0"]
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert [choice.logprobs for choice in answer.choices] == [None, None]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 1 + 2 + 3 + 4, "all of them were generated"
        assert len(engine.submits[0]) == 4

    def test_of_each_prompt(self, client: openai.OpenAI, engine: FakeEngine) -> None:
        self.script(engine)
        answer = client.completions.create(model=MODEL, prompt=["a", "b"], best_of=4, echo=True)
        assert [choice.text for choice in answer.choices] == ["a222", "b222"]
        assert [choice.index for choice in answer.choices] == [0, 1]

    def test_as_many_as_are_told(self, client: openai.OpenAI, engine: FakeEngine) -> None:
        self.script(engine)
        answer = client.completions.create(model=MODEL, prompt="a", best_of=3, n=3)
        assert [choice.text for choice in answer.choices] == ["0", "11", "222"]
        assert engine.sampling.logprobs is None


def test_many_prompts_in_one_stream(client: openai.OpenAI, engine: FakeEngine) -> None:
    texts = [f"text {i}" for i in range(6)]
    engine.script = lambda index, sampling: [0.001 * (5 - index), *say(texts[index])]
    said = [""] * 6
    with client.completions.create(model=MODEL, prompt=["a", "b", "c"], n=2, stream=True) as stream:
        for chunk in stream:
            for choice in chunk.choices:
                said[choice.index] += choice.text
    assert said == texts


@pytest.mark.parametrize(
    "constraint", [{"regex": "a+"}, {"choice": ["a"]}, {"json": {}}, {"grammar": 'start: "a"'}]
)
def test_structured_outputs_are_a_grammar(
    client: openai.OpenAI, engine: FakeEngine, constraint: dict[str, object]
) -> None:
    client.completions.create(
        model=MODEL, prompt="a", n=2, extra_body={"structured_outputs": constraint}
    )
    grammars = {each.grammar for each in engine.submits[0]}
    assert len(grammars) == 1
    assert None not in grammars
