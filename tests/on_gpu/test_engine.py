"""The engine on a GPU: real graphs, real streams, real kernels. Everything here needs one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from caravan.config import Dtype
from caravan.engine.engine import Engine
from caravan.engine.executor import Executor, Launched
from caravan.engine.handle import ShownImage, Submission
from caravan.messages import Sampling, StepPlan, TokenMasks
from caravan.tiles import TiledImage, TileGrid
from caravan.worker.runner import Runner
from in_process import Completion, complete, complete_all, load, new_engine, new_scheduler
from tiny_llama4 import VARIANTS, load_oracle

pytestmark = pytest.mark.gpu

CHUNK = 32  # of the tiny models
LENGTHS = [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7]
PROMPTS = [[(7 * i + 3 * j) % 250 + 1 for j in range(n)] for i, n in enumerate([*LENGTHS, 50, 2])]
GREEDY = Sampling(max_tokens=100, temperature=0.0, logprobs=3)
MIXED = [
    GREEDY,
    Sampling(max_tokens=90, seed=5, temperature=0.8, top_p=0.9, frequency_penalty=0.4),
    Sampling(max_tokens=33, seed=6, top_k=9, min_p=0.01, repetition_penalty=1.2, logprobs=0),
    Sampling(max_tokens=50, seed=7, logit_bias=((3, 2.0),), min_tokens=20, stop_token_ids=(3, 4)),
    Sampling(max_tokens=70, seed=8),
    Sampling(max_tokens=64, seed=9, presence_penalty=0.3, logprobs=5),
    Sampling(max_tokens=5, temperature=0.0),
]


@functools.cache
def runner(directory: Path, dtype: Dtype, *, enforce_eager: bool) -> Runner:
    return load(directory, device="cuda", dtype=dtype, enforce_eager=enforce_eager)


@functools.cache
def oracle(directory: Path) -> Any:
    return load_oracle(directory)


def assert_same(ours: list[Completion], others: list[Completion], tolerance: float) -> None:
    for one, other in zip(ours, others, strict=True):
        assert (one.tokens, one.finish) == (other.tokens, other.finish)
        for a, b in zip(one.logprobs, other.logprobs, strict=True):
            assert a.logprob == pytest.approx(b.logprob, abs=tolerance)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@torch.inference_mode()
def test_tiny_models_equal_transformers(variant: str, tiny_checkpoint: Callable[..., Path]) -> None:
    """fp32, greedy, in one batch: graphs and steps ahead on, as they are served."""
    directory = tiny_checkpoint(variant)
    engine = new_engine(runner(directory, "float32", enforce_eager=False), async_scheduling=True)
    for prompt, completion in zip(PROMPTS, complete(engine, PROMPTS, GREEDY), strict=True):
        ids = torch.tensor([prompt + completion.tokens])
        logits = oracle(directory)(input_ids=ids, use_cache=False).logits[0].double()
        logprobs = logits[len(prompt) - 1 : -1].log_softmax(-1)
        assert logprobs.argmax(-1).tolist() == completion.tokens
        ours = torch.tensor([entry.logprob for entry in completion.logprobs]).double()
        theirs = logprobs.gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
        torch.testing.assert_close(ours, theirs, atol=3e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", ["scout", "maverick", "odd"])
def test_graphs_change_nothing(
    variant: str, dtype: Dtype, tiny_checkpoint: Callable[..., Path]
) -> None:
    """A batch that fills its graph has the same shapes, so the same kernels and the same bits."""
    directory = tiny_checkpoint(variant)
    prompts, samplings = [PROMPTS[-1]] * 8, [MIXED[0], *[MIXED[4]] * 7]
    eager, graphs = (
        complete(new_engine(runner(directory, dtype, enforce_eager=each)), prompts, samplings)
        for each in (True, False)
    )
    assert_same(graphs[:1], eager[:1], tolerance=1e-6)


@pytest.mark.parametrize("enforce_eager", [True, False])
def test_steps_ahead_change_nothing(
    enforce_eager: bool, tiny_checkpoint: Callable[..., Path]
) -> None:
    engine_of = functools.partial(
        new_engine, runner(tiny_checkpoint("scout"), "float32", enforce_eager=enforce_eager)
    )
    plain = complete(engine_of(), PROMPTS, MIXED)
    assert_same(complete(engine_of(async_scheduling=True), PROMPTS, MIXED), plain, 1e-4)
    for budget in (19, 100):
        cut = engine_of(async_scheduling=True, budget=budget)
        assert_same(complete(cut, PROMPTS, MIXED), plain, 1e-4)


def test_steps_ahead_under_preemption(tiny_checkpoint: Callable[..., Path]) -> None:
    on_gpu = runner(tiny_checkpoint("scout"), "float32", enforce_eager=False)
    plain = complete(new_engine(on_gpu), PROMPTS, MIXED)
    num_pages = int(1.4 * on_gpu.layout.pages_needed(210))
    engine = new_engine(on_gpu, num_pages=num_pages, budget=40, async_scheduling=True)
    assert_same(complete(engine, PROMPTS, MIXED), plain, 1e-4)
    assert engine.stats.preemptions > 0


def test_prompts_are_scored_and_shared_as_on_the_cpu(tiny_checkpoint: Callable[..., Path]) -> None:
    directory = tiny_checkpoint("scout")
    scored = Sampling(max_tokens=30, seed=1, temperature=0.9, logprobs=0, prompt_logprobs=3)
    seeded = [Sampling(max_tokens=30, seed=seed, temperature=0.9, logprobs=0) for seed in (2, 3)]
    prompt = PROMPTS[4]
    family = [Submission(prompt, scored), *(Submission(prompt, s, prompt_of=0) for s in seeded)]
    cpu = complete_all(new_engine(load(directory)), family)
    on_gpu = runner(directory, "float32", enforce_eager=False)
    gpu = complete_all(new_engine(on_gpu, async_scheduling=True), family)
    assert_same(gpu, cpu, 3e-4)
    assert [it.cached_tokens for it in gpu] == [it.cached_tokens for it in cpu]
    for ours, theirs in zip(gpu[0].prompt_logprobs, cpu[0].prompt_logprobs, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=3e-4)


def test_masks_hold_the_draw(tiny_checkpoint: Callable[..., Path]) -> None:
    """In steps launched ahead, with graphs: only the tokens whose bits are set are drawn."""
    on_gpu = runner(tiny_checkpoint("scout"), "float32", enforce_eager=False)
    words = np.zeros(-(-on_gpu.vocab_size // 32), np.int32)
    words[1], words[3] = 0b1010, 1  # the tokens 33, 35 and 96
    plain_launch = on_gpu.launch

    def launch(plan: StepPlan, masks: Callable[[], TokenMasks] | None = None) -> Launched:
        rids = [segment.rid for segment in plan.segments if segment.samples][:2]
        held = TokenMasks(rids, words.tobytes() * len(rids))
        return plain_launch(plan, lambda: held)

    held = SimpleNamespace(launch=launch, vocab_size=on_gpu.vocab_size)
    scheduler = new_scheduler(on_gpu)
    engine = Engine(cast(Executor, held), scheduler, async_scheduling=True)
    free = Sampling(max_tokens=40, seed=5, temperature=1.5)
    first, second, third = complete(engine, [PROMPTS[5]] * 3, free)
    assert {*first.tokens, *second.tokens} <= {33, 35, 96}
    assert len({*third.tokens}) > 5


def test_a_chunk_of_real_length(tiny_checkpoint: Callable[..., Path]) -> None:
    """8192-token chunks: prompts and graphs on both sides of two boundaries."""
    directory = tiny_checkpoint("scout", attention_chunk_size=8192, max_position_embeddings=1 << 16)
    prompts = [[(5 * j) % 250 + 1 for j in range(n)] for n in (8185, 16380, 8192)]
    eager, graphs = (
        complete(
            new_engine(
                load(directory, device="cuda", block_size=16, enforce_eager=each), budget=8192
            ),
            prompts,
            Sampling(max_tokens=20, temperature=0.0, logprobs=0),
        )
        for each in (True, False)
    )
    assert_same(graphs, eager, 1e-4)


def test_pictures(tiny_checkpoint: Callable[..., Path]) -> None:
    """The vision encoder in one step with text, against the CPU."""
    directory = tiny_checkpoint("scout", multimodal=True)
    on_cpu, on_gpu = load(directory), load(directory, device="cuda")
    assert on_cpu.tile_slots is not None
    step = on_cpu.tile_slots.tile_tokens + 1
    pixels = torch.randint(0, 256, (3, 56 * 56 * 3), dtype=torch.uint8)
    tiles = tuple(bytes(row.tolist()) for row in pixels)
    shown = ShownImage(TiledImage(b"key", TileGrid(1, 2), tiles), [4 + i * step for i in range(3)])
    greedy = Sampling(max_tokens=20, temperature=0.0, logprobs=0)
    submission = Submission([5] * (3 * step + 30), greedy, [shown])
    cpu, gpu = (complete_all(new_engine(each), [submission]) for each in (on_cpu, on_gpu))
    assert_same(gpu, cpu, 1e-4)
