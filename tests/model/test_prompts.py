"""What is asked about prompts: their own log-probabilities, and several choices of one prompt."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from caravan.engine.handle import Submission
from caravan.messages import Sampling, TokenLogprobs
from caravan.worker.runner import Runner
from in_process import Completion, complete, complete_all, load, new_engine
from tiny_llama4 import load_oracle

CHUNK = 32
SCORED = Sampling(max_tokens=3, temperature=0.0, prompt_logprobs=4)


@pytest.fixture(scope="module", params=["scout", "maverick"])
def directory(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint(request.param)


@functools.cache
def runner(directory: Path) -> Runner:
    return load(directory)


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(1000 * seed + length)
    return torch.randint(0, 256, (length,), generator=generator).tolist()


@torch.inference_mode()
def assert_scored(directory: Path, tokens: list[int], completion: Completion) -> None:
    logits = load_oracle(directory)(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    expected = logits[:-1].double().log_softmax(-1)
    ours = completion.prompt_logprobs
    assert len(ours) == len(tokens) - 1
    chosen = torch.tensor([entry.logprob for entry in ours], dtype=torch.float64)
    theirs = expected.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
    torch.testing.assert_close(chosen, theirs, atol=1e-4, rtol=1e-4)
    top = torch.tensor([[p for _, p in entry.top] for entry in ours]).double()
    torch.testing.assert_close(top, expected.topk(4).values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("budget", [2048, 19], ids=["whole prefills", "cut prefills"])
def test_a_prompt_is_scored_as_transformers_does(directory: Path, budget: int) -> None:
    """Past chunk boundaries, beside requests that ask for nothing, and for single tokens."""
    engine = new_engine(runner(directory), budget=budget)
    prompts = [prompt(5 * CHUNK + 7), prompt(9), prompt(2), prompt(1)]
    samplings = [SCORED, msgspec.structs.replace(SCORED, prompt_logprobs=None), SCORED, SCORED]
    long, plain, short, single = complete(engine, prompts, samplings)
    assert_scored(directory, prompts[0], long)
    assert plain.prompt_logprobs == single.prompt_logprobs == []
    assert len(short.prompt_logprobs) == 1
    assert [len(it.tokens) for it in (long, plain, short, single)] == [3, 3, 3, 3]
    assert long.tokens == complete(engine, prompts[:1], samplings[1])[0].tokens


def test_a_prompt_is_scored_once_whatever_is_preempted(directory: Path) -> None:
    num_pages = int(1.6 * runner(directory).layout.pages_needed(4 * CHUNK))
    engine = new_engine(runner(directory), num_pages=num_pages, budget=25)
    prompts = [prompt(CHUNK + 5, seed) for seed in range(3)]
    scored = msgspec.structs.replace(SCORED, max_tokens=3 * CHUNK - 5)
    completions = complete(engine, prompts, scored)
    assert engine.stats.preemptions > 0
    for tokens, completion in zip(prompts, completions, strict=True):
        assert_scored(directory, tokens, completion)


def test_how_many_of_the_best_are_told_is_each_requests_own(directory: Path) -> None:
    engine = new_engine(runner(directory))
    asked = [msgspec.structs.replace(SCORED, prompt_logprobs=count) for count in (0, 7)]
    none, seven = complete(engine, [prompt(12)] * 2, asked)
    assert {len(entry.top) for entry in none.prompt_logprobs} == {0}
    assert {len(entry.top) for entry in seven.prompt_logprobs} == {7}
    assert [e.logprob for e in none.prompt_logprobs] == pytest.approx(
        [e.logprob for e in seven.prompt_logprobs], abs=1e-5
    )


@pytest.mark.parametrize("length", [3, 2 * CHUNK, 2 * CHUNK + 21])
@pytest.mark.parametrize("ahead", [False, True])
def test_choices_of_one_prompt_are_as_if_each_were_alone(
    directory: Path, length: int, ahead: bool
) -> None:
    """They share the prompt's pages, past the ends of their chunks."""
    tokens = prompt(length)
    seeded = [Sampling(max_tokens=30, seed=seed, temperature=0.9, logprobs=0) for seed in range(4)]
    engine = new_engine(runner(directory), async_scheduling=ahead)
    alone = [complete(engine, [tokens], sampling)[0] for sampling in seeded]
    before = engine.stats.computed_tokens
    family = [Submission(tokens, s, prompt_of=0 if i else None) for i, s in enumerate(seeded)]
    together = complete_all(engine, family)
    assert [it.tokens for it in together] == [it.tokens for it in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert values(ours.logprobs) == pytest.approx(values(theirs.logprobs), abs=1e-4)
    shared = [it.cached_tokens for it in together]
    assert shared[0] == 0
    if length > CHUNK + 1:  # blocks have 4 tokens; a chunk that has just ended is not shared
        least = length - CHUNK if length % CHUNK == 0 else length - 4
        assert min(shared[1:]) >= least
    generated = sum(len(it.tokens) for it in together)
    computed = engine.stats.computed_tokens - before
    assert computed + sum(shared) <= 4 * length + generated


def values(logprobs: list[TokenLogprobs]) -> list[float]:
    return [entry.logprob for entry in logprobs]
