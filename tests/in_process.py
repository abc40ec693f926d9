"""Caravan's engine inside the test's own process: requests in, tokens out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from caravan.config import CacheConfig, EngineConfig, ModelConfig, SchedulerConfig
from caravan.engine.engine import Engine
from caravan.messages import Generate, Sampling, TokenLogprobs
from caravan.scheduling.scheduler import Scheduler
from caravan.worker.runner import Runner


@dataclass
class Completion:
    """What a request has produced so far."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish: str | None = None


def load(directory: Path, *, block_size: int = 4, max_model_len: int | None = None) -> Runner:
    config = EngineConfig(
        model=ModelConfig(dtype="float32", device="cpu", max_model_len=max_model_len),
        cache=CacheConfig(block_size=block_size, kv_cache_memory_bytes=64 << 20),
    )
    return Runner(config, directory, lambda progress: None)


def new_engine(
    runner: Runner, *, num_pages: int | None = None, budget: int = 2048, max_num_seqs: int = 64
) -> Engine:
    """A fresh scheduler over the runner's arena, or over its first `num_pages` pages."""
    config = SchedulerConfig(max_num_seqs=max_num_seqs, max_num_batched_tokens=budget)
    return Engine(runner, Scheduler(runner.layout, num_pages or runner.num_pages, config))


_rids = itertools.count()  # engines share a runner, which forgets a request with the next plan


def complete(
    engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]
) -> list[Completion]:
    """Runs all prompts to their end; every page is back afterwards."""
    samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
    completions = {next(_rids): Completion() for _ in prompts}
    for rid, prompt, each in zip(completions, prompts, samplings, strict=True):
        engine.add(Generate(rid, list(prompt), each))
    while engine.has_work:
        output = engine.step()
        for delta in output.deltas if output else []:
            completion = completions[delta.rid]
            assert completion.finish is None, delta
            completion.tokens += delta.tokens
            completion.logprobs += delta.logprobs or []
            completion.finish = delta.finish
    stats = engine.stats
    assert (stats.running, stats.waiting, stats.pages_owned) == (0, 0, 0), stats
    assert all(completion.finish for completion in completions.values())
    return list(completions.values())
