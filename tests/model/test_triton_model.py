"""Whole tiny models through the Triton kernels, interpreted on the CPU, against transformers.

So what a GPU runs is compared end to end where there is none: every kernel, in the order and with
the tables of real steps. `tests/on_gpu` does the same with compiled kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from caravan.messages import Sampling
from caravan_kernels import devices
from in_process import complete, load, new_engine
from quick_interpreter import replace_once
from tiny_llama4 import load_oracle

CHUNK = 32
# a chunk's end is decoded by one request, prefilled by another; one decodes in its third chunk
PROMPTS = [[(7 * i + 3 * j) % 250 + 1 for j in range(n)] for i, n in enumerate([1, 29, 66])]
GREEDY = Sampling(max_tokens=5, temperature=0.0, logprobs=0)

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "on_gpu", lambda x: True)
    replace_once(monkeypatch)


@pytest.mark.parametrize("variant", ["group5", "maverick", "odd"])
@torch.inference_mode()
def test_tokens_equal_transformers(variant: str, tiny_checkpoint: Callable[..., Path]) -> None:
    directory = tiny_checkpoint(variant)
    runner = load(directory)
    oracle = load_oracle(directory)
    engine = new_engine(runner, budget=40, async_scheduling=True)
    for prompt, completion in zip(PROMPTS, complete(engine, PROMPTS, GREEDY), strict=True):
        ids = torch.tensor([prompt + completion.tokens])
        logits = oracle(input_ids=ids, use_cache=False).logits[0].double()
        logprobs = logits[len(prompt) - 1 : -1].log_softmax(-1)
        assert logprobs.argmax(-1).tolist() == completion.tokens
        ours = torch.tensor([entry.logprob for entry in completion.logprobs]).double()
        theirs = logprobs.gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
