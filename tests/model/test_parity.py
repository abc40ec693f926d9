"""Greedy tokens and log-probabilities equal `transformers`, past chunk boundaries and in any batch.

The oracle reads each whole sequence once, without a cache: if its best token at every position is
the one that Caravan chose, then its greedy decoding is the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from caravan.messages import Sampling
from caravan.worker.runner import Runner
from in_process import Completion, complete, load, new_engine
from tiny_llama4 import load_oracle

VARIANTS = ["scout", "scout-multimodal", "maverick", "group5", "odd", "guard", "tied"]
CHUNK = 32
LENGTHS = [1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7]
NEW_TOKENS = 200
GREEDY = Sampling(max_tokens=NEW_TOKENS, temperature=0.0, logprobs=5)


@pytest.fixture(params=VARIANTS)
def directory(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    name, _, naming = request.param.partition("-")
    return tiny_checkpoint(name, multimodal=naming == "multimodal")


@functools.cache
def oracle(directory: Path) -> Any:
    return load_oracle(directory)


@functools.cache
def runner(directory: Path) -> Runner:
    return load(directory)


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(1000 * seed + length)
    return torch.randint(0, 256, (length,), generator=generator).tolist()


@torch.inference_mode()
def assert_greedy(directory: Path, tokens: list[int], completion: Completion) -> None:
    new = completion.tokens
    assert completion.finish == "length"
    assert len(new) == NEW_TOKENS
    ids = torch.tensor([tokens + new])
    logits = oracle(directory)(input_ids=ids, use_cache=False).logits[0].double()
    logprobs = logits[len(tokens) - 1 : -1].log_softmax(-1)
    assert logprobs.argmax(-1).tolist() == new
    ours = torch.tensor([entry.logprob for entry in completion.logprobs], dtype=torch.float64)
    theirs = logprobs.gather(1, torch.tensor(new)[:, None])[:, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    top = torch.tensor([[p for _, p in entry.top] for entry in completion.logprobs]).double()
    # rtol: far into a context transformers' fp32 RoPE angles alone shift these by 1e-4
    torch.testing.assert_close(top, logprobs.topk(5).values, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", LENGTHS)
def test_alone(directory: Path, length: int) -> None:
    engine = new_engine(runner(directory))
    tokens = prompt(length)
    assert_greedy(directory, tokens, complete(engine, [tokens], GREEDY)[0])


def mixed() -> list[list[int]]:
    """16 requests of all lengths."""
    lengths = [*LENGTHS, *LENGTHS, *LENGTHS, 77]
    return [prompt(length, seed) for seed, length in enumerate(lengths)]


@pytest.mark.parametrize("budget", [2048, 19], ids=["whole prefills", "cut prefills"])
def test_batch_of_16(directory: Path, budget: int) -> None:
    engine = new_engine(runner(directory), budget=budget)
    completions = complete(engine, mixed(), GREEDY)
    assert engine.stats.preemptions == 0
    for tokens, completion in zip(mixed(), completions, strict=True):
        assert_greedy(directory, tokens, completion)


def test_preemption(directory: Path) -> None:
    longest = max(LENGTHS) + NEW_TOKENS
    num_pages = int(1.5 * runner(directory).layout.pages_needed(longest))
    engine = new_engine(runner(directory), num_pages=num_pages, budget=50)
    completions = complete(engine, mixed(), GREEDY)
    assert engine.stats.preemptions > 0
    for tokens, completion in zip(mixed(), completions, strict=True):
        assert_greedy(directory, tokens, completion)
